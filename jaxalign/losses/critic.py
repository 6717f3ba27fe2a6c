"""Distributional critic: losses and targets for the return distribution.

With one reward at the end and no discount, the return distribution is a mixture
over final labels, so the temporal-difference target is a mixture of later
predictions and needs no projection. With a reward per token or a discount the
distribution moves off its atoms at each step, and `projected_returns` projects
it back onto them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.ops import checks
from jaxalign.ops.returns import backward_recursion, next_counted


def categorical_returns(
  value_probs: jax.Array,
  final_probs: jax.Array,
  *,
  gae_lambda: float,
  where: jax.Array | None = None,
) -> jax.Array:
  """λ-returns of a distribution over labels.

    G_t = (1 − λ) V_n + λ G_n,   V_n = G_n = final_probs after the last step

  where n is the next step that counts.

  Args:
    value_probs: V, predicted distribution, float [..., T, d].
    final_probs: labels of the finished response, float [..., d].
    gae_lambda: λ, Python float in [0, 1].
    where: bool [..., T], True counts, all by default. Gaps may hold anything.

  Returns:
    G, [..., T, d], rows on the simplex if the inputs are, 0 where masked.

  Raises:
    TypeError: an array is not floating point or `where` is not bool.
    ValueError: shapes do not fit, or gae_lambda is out of range.

  References:
    Bellemare et al., "A distributional perspective on reinforcement learning",
    2017.
  """
  if not 0.0 <= gae_lambda <= 1.0:
    raise ValueError(f"gae_lambda must be in [0, 1], got {gae_lambda}")
  shape = jnp.shape(value_probs)
  if len(shape) < 2 or jnp.shape(final_probs) != shape[:-2] + shape[-1:]:
    raise ValueError(
      "final_probs must be [..., d] for value_probs [..., T, d], got "
      f"final_probs {jnp.shape(final_probs)} for value_probs {shape}"
    )
  if where is None:
    where = jnp.ones(shape[:-1], jnp.bool_)
  checks.boolean(where=where)
  if jnp.shape(where) != shape[:-1]:
    raise ValueError(f"where must be {shape[:-1]}, got {jnp.shape(where)}")
  probs, final = checks.floating(
    value_probs=value_probs, final_probs=final_probs
  )
  probs = jnp.where(where[..., None], probs, 0.0)
  # Time last, as the recursions want it; a label is one more batch axis.
  values = jnp.swapaxes(probs, -1, -2)
  counted = jnp.broadcast_to(where[..., None, :], values.shape)
  following = next_counted(values, where=counted, final_value=final)
  # The finished response is one more step, which every chain ends on.
  scale = jnp.where(counted, jnp.full_like(values, gae_lambda), 1.0)
  shift = jnp.where(counted, (1 - gae_lambda) * following, 0.0)
  returns = backward_recursion(
    jnp.concatenate([scale, jnp.zeros_like(final)[..., None]], axis=-1),
    jnp.concatenate([shift, final[..., None]], axis=-1),
  )[..., :-1]
  return jnp.where(where[..., None], jnp.swapaxes(returns, -1, -2), 0.0)


def two_hot(
  values: jax.Array, *, low: float, high: float, num_atoms: int
) -> jax.Array:
  """Distribution on evenly spaced atoms with these means and least spread.

  Mass lies on the two atoms around a value, in proportion to how near they are;
  beyond the range it all lies on the atom at that end.

  Args:
    values: float [...].
    low: the least atom.
    high: the greatest atom.
    num_atoms: M, ends included.

  Returns:
    [..., M], rows on the simplex.

  Raises:
    TypeError: values are not floating point.
    ValueError: there are less than two atoms, or no range.

  References:
    Bellemare et al., "A distributional perspective on reinforcement learning",
    2017, equation 7.
  """
  if num_atoms < 2 or not low < high:
    raise ValueError(
      "atoms must be 2 or more from low to a greater high, got "
      f"num_atoms={num_atoms}, low={low}, high={high}"
    )
  (values,) = checks.floating(values=values)
  places = (values - low) * ((num_atoms - 1) / (high - low))
  places = jnp.clip(places, 0, num_atoms - 1)[..., None]
  atoms = jnp.broadcast_to(
    jnp.arange(num_atoms, dtype=values.dtype), (*values.shape, num_atoms)
  )
  return jnp.maximum(1 - jnp.abs(places - atoms), 0)


def projected_returns(
  value_probs: jax.Array,
  rewards: jax.Array,
  *,
  low: float,
  high: float,
  discount: float,
  gae_lambda: float,
  where: jax.Array | None = None,
  final_probs: jax.Array | None = None,
  final_gaps: jax.Array | None = None,
) -> jax.Array:
  """λ-returns of a distribution over even atoms, with a reward at each step.

    G_t = Φ(r_t + γ Z),  Z ~ (1 − λ) V_n + λ G_n;   G_t = Φ(r_t) at the end

  where n is the next step that counts and Φ is `two_hot` of each outcome. The
  mean of G is the λ-return of the means of V as long as no outcome is beyond
  the range; what is beyond it counts as the atom at that end. With several
  outcomes of the end, G_t = Σ_i p_i Φ(r_t + g_i) there, of the same mean where
  Σ_i p_i g_i is 0: an answer that its judges disagree about ends in several
  atoms, and not in the one at their mean.

  Args:
    value_probs: V, predicted distribution, float [..., T, M].
    rewards: r, float [..., T].
    low: the least atom.
    high: the greatest atom.
    discount: γ, Python float.
    gae_lambda: λ, Python float in [0, 1].
    where: bool [..., T], True counts, all by default. Gaps may hold anything.
    final_probs: p, of the outcomes of the last step that counts, float
      [..., d]; None for one outcome. Where no step counts it may hold anything.
    final_gaps: g, what each adds to the last reward, float [..., d]; None with
      `final_probs`.

  Returns:
    G, [..., T, M], rows on the simplex if those of V are, 0 where masked.

  Raises:
    TypeError: an array is not floating point or `where` is not bool.
    ValueError: shapes do not fit, or a knob is out of range.

  References:
    Bellemare et al., "A distributional perspective on reinforcement learning",
    2017, algorithm 1.
    Li et al., "Aligning crowd feedback via distributional preference reward
    modeling", 2024: the outcomes.
  """
  if not 0.0 <= gae_lambda <= 1.0:
    raise ValueError(f"gae_lambda must be in [0, 1], got {gae_lambda}")
  shape = jnp.shape(value_probs)
  if len(shape) < 2 or jnp.shape(rewards) != shape[:-1]:
    raise ValueError(
      "rewards must be [..., T] for value_probs [..., T, M], got rewards "
      f"{jnp.shape(rewards)} for value_probs {shape}"
    )
  if where is None:
    where = jnp.ones(shape[:-1], jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(rewards=rewards, where=where)
  probs, rewards = checks.floating(value_probs=value_probs, rewards=rewards)
  probs = jnp.where(where[..., None], probs, 0.0)
  rewards = jnp.where(where, rewards, 0.0)
  project = functools.partial(two_hot, low=low, high=high, num_atoms=shape[-1])
  atoms = jnp.broadcast_to(
    jnp.linspace(low, high, shape[-1], dtype=rewards.dtype),
    (*shape[:-2], shape[-1]),
  )
  remaining = jnp.cumsum(where[..., ::-1], axis=-1)[..., ::-1]
  ended = _final_outcomes(final_probs, final_gaps, where, project)

  def back(
    ahead: tuple[jax.Array, jax.Array], step: tuple[jax.Array, ...]
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    following, returns = ahead
    predicted, reward, counts, ends = step
    mixed = (1 - gae_lambda) * following + gae_lambda * returns
    moved = jnp.einsum(
      "...j,...jm->...m",
      mixed,
      project(reward[..., None] + discount * atoms),
      precision=jax.lax.Precision.HIGHEST,
    )
    moved = jnp.where(ends, ended(reward), moved)
    # A gap hands on what stands behind it.
    ahead = (
      jnp.where(counts, predicted, following),
      jnp.where(counts, moved, returns),
    )
    return ahead, jnp.where(counts, moved, 0.0)

  steps = jax.tree.map(
    lambda x: jnp.moveaxis(x, len(shape) - 2, 0),
    (probs, rewards, where[..., None], (remaining == 1)[..., None]),
  )
  # Nothing reads what stands after the end; zeros would be of another type than
  # the rows under shard_map.
  after = (steps[0][-1], steps[0][-1])
  return jnp.moveaxis(
    jax.lax.scan(back, after, steps, reverse=True)[1], 0, len(shape) - 2
  )


def _final_outcomes(
  probs: jax.Array | None,
  gaps: jax.Array | None,
  where: jax.Array,
  project: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], jax.Array]:
  """`reward [...] -> distribution [..., M]` of what a last reward may be."""
  if (probs is None) != (gaps is None):
    raise ValueError("final_probs and final_gaps go together, got one of them")
  if probs is None or gaps is None:
    return project
  checks.same_shape(final_probs=probs, final_gaps=gaps)
  if jnp.ndim(probs) < 1 or jnp.shape(probs)[:-1] != jnp.shape(where)[:-1]:
    raise ValueError(
      f"final_probs must be {(*jnp.shape(where)[:-1], 'd')}, got "
      f"{jnp.shape(probs)}"
    )
  probs, gaps = checks.floating(final_probs=probs, final_gaps=gaps)
  gaps = jnp.where(jnp.any(where, axis=-1)[..., None], gaps, 0.0)
  return lambda reward: jnp.einsum(
    "...i,...im->...m",
    probs.astype(reward.dtype),
    project(reward[..., None] + gaps.astype(reward.dtype)),
    precision=jax.lax.Precision.HIGHEST,
  )


def categorical_advantages(
  value_probs: jax.Array, returns: jax.Array, utilities: jax.Array
) -> jax.Array:
  """Utility that the returns promise beyond the prediction.

    A_t = Σ_i u_i (G_ti − V_ti)

  Args:
    value_probs: V, float [..., d].
    returns: G of `categorical_returns`, float [..., d].
    utilities: u, utility of each label, float [d].

  Returns:
    Advantages in utility units, [...].

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes do not fit.
  """
  checks.same_shape(value_probs=value_probs, returns=returns)
  if jnp.shape(utilities) != jnp.shape(value_probs)[-1:]:
    raise ValueError(
      f"utilities must be {jnp.shape(value_probs)[-1:]}, got "
      f"{jnp.shape(utilities)}"
    )
  probs, returns, utilities = checks.floating(
    value_probs=value_probs, returns=returns, utilities=utilities
  )
  # Accelerators round the inputs of a float32 matmul unless told otherwise.
  return jnp.matmul(
    returns - probs, utilities, precision=jax.lax.Precision.HIGHEST
  )


def categorical_critic_loss(
  value_logits: jax.Array,
  returns: jax.Array,
  *,
  where: jax.Array | None = None,
) -> jax.Array:
  """Cross-entropy of predicted labels against their λ-returns, in nats.

    l_t = −Σ_i G_ti log softmax(logits_t)_i

  Args:
    value_logits: float [..., d].
    returns: G of `categorical_returns`, float [..., d]; to be passed as
      constants.
    where: bool [...], True counts, all by default.

  Returns:
    Loss per token, [...], 0 where masked. Its least value is the entropy of
    G, not 0.

  Raises:
    TypeError: an array is not floating point or `where` is not bool.
    ValueError: shapes do not fit.
  """
  checks.same_shape(value_logits=value_logits, returns=returns)
  logits, returns = checks.floating(value_logits=value_logits, returns=returns)
  if where is None:
    where = jnp.ones(logits.shape[:-1], jnp.bool_)
  checks.boolean(where=where)
  if jnp.shape(where) != logits.shape[:-1]:
    raise ValueError(
      f"where must be {logits.shape[:-1]}, got {jnp.shape(where)}"
    )
  counted = where[..., None]
  logits = jnp.where(counted, logits, 0.0)
  returns = jnp.where(counted, returns, 0.0)
  return -jnp.sum(returns * jax.nn.log_softmax(logits, axis=-1), axis=-1)
