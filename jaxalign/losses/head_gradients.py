"""Per-source gradients of a linear head, in closed form.

No backward pass: for outputs W z without bias, ∂loss/∂W = ∂loss/∂output ⊗ z.
"""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks, segment_mean
from jaxalign.ops.masked import AxisName


def head_gradients(
  features: jax.Array,
  slopes: jax.Array,
  *,
  source: jax.Array,
  num_sources: int,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Gradient of each source's mean loss in a linear head with d outputs.

    g_k = mean over n in source k of slopes_n ⊗ features_n

  Args:
    features: z, what the head reads, float [N, D].
    slopes: ∂loss/∂output of each example, float [N, d].
    source: whose example it is, int [N] in [0, num_sources).
    num_sources: K, a Python int.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the examples are spread over, None on one device.

  Returns:
    Gradients, [K, d·D], the head flattened row by row; zeros for a source
    without examples.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes differ.
  """
  checks.rank(2, features=features, slopes=slopes)
  checks.rank(1, source=source)
  checks.integer(source=source)
  checks.same_shape(source=source, where=where)
  features, slopes = checks.floating(features=features, slopes=slopes)
  if not features.shape[0] == slopes.shape[0] == jnp.shape(source)[0]:
    raise ValueError(
      f"features, slopes and source must have equal rows, got features "
      f"{features.shape}, slopes {slopes.shape} and source {jnp.shape(source)}"
    )
  if where is not None:
    checks.boolean(where=where)
    # Before the product, as 0 · NaN has a NaN gradient. One factor is enough:
    # the mean drops the product, and this select the gradient of the factor.
    features = jnp.where(where[:, None], features, 0.0)
  outer = slopes[:, :, None] * features[:, None, :]
  return segment_mean(
    jnp.reshape(outer, (features.shape[0], -1)),
    segment=source,
    num_segments=num_sources,
    where=where,
    axis_name=axis_name,
  )


def reward_head_gradients(
  chosen_features: jax.Array,
  rejected_features: jax.Array,
  gaps: jax.Array,
  *,
  source: jax.Array,
  num_sources: int,
  slopes: jax.Array | None = None,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Gradient of each source's mean pair loss in the weights of a reward head.

    g_k = mean over pairs n of source k of slope_n (z_chosen,n − z_rejected,n)

  the closed form for a linear head without bias, whose reward is ⟨w, z⟩.

  Args:
    chosen_features: z of the preferred responses, float [N, D].
    rejected_features: z of the other responses, float [N, D].
    gaps: the gap that enters the loss, after any margin, float [N].
    source: whose pair it is, int [N] in [0, num_sources).
    num_sources: K, a Python int.
    slopes: ∂loss/∂gap per pair, float [N]; that of plain Bradley-Terry,
      −σ(−gap), by default.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the pairs are spread over, None on one device, or
      None inside a mapped function for weights of each device's own pairs.

  Returns:
    Gradients, [K, D]; zeros for a source without pairs.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes differ.

  References:
    Zeng et al., "On diversified preferences of large language model
    alignment", 2024, eq. (8) and appendix B.
  """
  checks.same_shape(
    chosen_features=chosen_features, rejected_features=rejected_features
  )
  checks.rank(1, gaps=gaps)
  checks.same_shape(gaps=gaps, slopes=slopes, where=where)
  chosen, rejected, gaps = checks.floating(
    chosen_features=chosen_features,
    rejected_features=rejected_features,
    gaps=gaps,
  )
  if slopes is None:
    if where is not None:
      checks.boolean(where=where)
      gaps = jnp.where(where, gaps, 0.0)
    slopes = -jax.nn.sigmoid(-gaps)
  return head_gradients(
    chosen - rejected,
    slopes[:, None],
    source=source,
    num_sources=num_sources,
    where=where,
    axis_name=axis_name,
  )


def gradient_ema(
  state: jax.Array, gradients: jax.Array, *, decay: float
) -> jax.Array:
  """Moving average of the head gradients, in their unit.

    m ← decay · m + (1 − decay) · g

  The authors' momentum α = 0.99 weighs the new gradient, so it is decay 0.01:
  almost no memory.

  Args:
    state: m, float [K, D]; start from the first gradients.
    gradients: g, float [K, D].
    decay: share of the past kept, a Python float in [0, 1).

  Returns:
    The new state, [K, D]. A source without pairs has gradient 0 and its row
    shrinks; `jnp.where(present[:, None], new, state)` keeps it as it was.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes differ or `decay` is out of range.

  References:
    Zeng et al., "On diversified preferences of large language model
    alignment", 2024; the average is that of the authors' program.
  """
  if not 0.0 <= decay < 1.0:
    raise ValueError(f"decay must be in [0, 1), got {decay}")
  checks.same_shape(state=state, gradients=gradients)
  checks.rank(2, gradients=gradients)
  state, gradients = checks.floating(state=state, gradients=gradients)
  return decay * state + (1 - decay) * gradients
