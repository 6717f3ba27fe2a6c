"""DPRM losses: distances between predicted and observed label distributions.

The crowd's answer is a distribution over d labels. The model predicts one from
d logits, is trained on the distance between the two, and a policy is given a
utility of the prediction as its reward.

Li et al., "Aligning crowd feedback via distributional preference reward
modeling", 2024.
"""

import jax
import jax.numpy as jnp

from jaxalign.ops import (
  checks,
  sinkhorn,
  sinkhorn_divergence,
  wasserstein_1d,
)


def _checked(
  logits: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Both in one dtype, of one shape with a last axis of labels."""
  checks.same_shape(logits=logits, target=target)
  checks.fraction(target=target)
  logits, target = checks.floating(logits=logits, target=target)
  if logits.ndim < 1:
    raise ValueError("logits must have a last axis of labels, got shape ()")
  return logits, target


def label_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """Cross-entropy of predicted against observed label shares, in nats.

    l = −Σ_i target_i log softmax(logits)_i

  It does not know that some labels are closer than others.

  Args:
    logits: unnormalised log-probabilities, float [..., d].
    target: shares of the labels, float [..., d], summing to 1.

  Returns:
    Loss per response, [...], not reduced; at best the entropy of the target.

  Raises:
    TypeError: an input is not floating point.
    ValueError: the shapes differ, or a known share is outside [0, 1]; what is
      traced, as under `jit`, is not checked.
  """
  logits, target = _checked(logits, target)
  return -jnp.sum(target * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def optimal_transport_loss(
  logits: jax.Array,
  target: jax.Array,
  cost: jax.Array,
  *,
  epsilon: float = 0.2,
  num_iters: int = 100,
) -> jax.Array:
  """Cost of moving predicted label shares onto the observed ones.

    l = min_P ⟨P, C⟩ + ε KL(P‖p⊗t),   p = softmax(logits), P 1 = p, Pᵀ1 = t

  In the unit of the cost, so that a near miss costs little. Its gradient in a
  logit carries the factor p_i and so cannot revive a label predicted at
  almost 0: mix in some cross-entropy (`mixed_transport_loss`) or start with it.
  At ε > 0 the least loss is not 0, nor exactly at p = t; see
  `debiased_transport_loss`.

  Args:
    logits: unnormalised log-probabilities, float [..., d].
    target: t, shares of the labels, float [..., d], summing to 1; zeros
      allowed.
    cost: C, distance between labels, finite float [d, d] or [..., d, d].
    epsilon: ε > 0, in units of the cost.
    num_iters: most iterations of the solver, which stops when it has converged.

  Returns:
    Loss per response, [...], not reduced.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or `epsilon`, `num_iters` or a known share of
      `target` is out of range.

  References:
    Li et al., 2024, section 3.
    Frogner et al., "Learning with a Wasserstein loss", 2015.
  """
  logits, target = _checked(logits, target)
  probs = jax.nn.softmax(logits, axis=-1)
  return sinkhorn(
    probs, target, cost, epsilon=epsilon, num_iters=num_iters
  ).regularised_cost


def debiased_transport_loss(
  logits: jax.Array,
  target: jax.Array,
  cost: jax.Array,
  *,
  epsilon: float = 0.2,
  num_iters: int = 100,
) -> jax.Array:
  """Sinkhorn divergence of predicted from observed label shares.

    l = OT_ε(p, t) − ½ OT_ε(p, p) − ½ OT_ε(t, t),   p = softmax(logits)

  Least, and 0, at p = t for any ε. It costs three problems instead of one.

  Args:
    logits: unnormalised log-probabilities, float [..., d].
    target: t, shares of the labels, float [..., d], summing to 1.
    cost: C, symmetric finite float [d, d] or [..., d, d].
    epsilon: ε > 0, in units of the cost.
    num_iters: most iterations of the solver, which stops when it has converged.

  Returns:
    Loss per response in the unit of the cost, [...], not reduced.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or `epsilon`, `num_iters` or a known share of
      `target` is out of range.

  References:
    Feydy et al., "Interpolating between optimal transport and MMD using
    Sinkhorn divergences", 2019, eq. (3).
  """
  logits, target = _checked(logits, target)
  probs = jax.nn.softmax(logits, axis=-1)
  return sinkhorn_divergence(
    probs, target, cost, cost, cost, epsilon=epsilon, num_iters=num_iters
  )


def mixed_transport_loss(
  logits: jax.Array,
  target: jax.Array,
  cost: jax.Array,
  *,
  cross_entropy_weight: float = 0.1,
  epsilon: float = 0.2,
  num_iters: int = 100,
) -> jax.Array:
  """Transport loss with some cross-entropy, which revives labels at 0.

    l = optimal_transport_loss + γ · label_cross_entropy

  Args:
    logits: unnormalised log-probabilities, float [..., d].
    target: shares of the labels, float [..., d], summing to 1.
    cost: distance between labels, finite float [d, d] or [..., d, d].
    cross_entropy_weight: γ ≥ 0, in units of the cost per nat.
    epsilon: ε > 0, in units of the cost.
    num_iters: most iterations of the solver, which stops when it has converged.

  Returns:
    Loss per response, [...], not reduced.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or a number or a known share of `target` is
      out of range.
  """
  if not cross_entropy_weight >= 0:
    raise ValueError(
      f"cross_entropy_weight must not be negative, got {cross_entropy_weight}"
    )
  transport = optimal_transport_loss(
    logits, target, cost, epsilon=epsilon, num_iters=num_iters
  )
  return transport + cross_entropy_weight * label_cross_entropy(logits, target)


def wasserstein_1d_loss(
  logits: jax.Array,
  target: jax.Array,
  positions: jax.Array,
  *,
  power: int = 1,
) -> jax.Array:
  """Exact transport cost for labels on a line, as ratings are.

  Args:
    logits: unnormalised log-probabilities, float [..., d].
    target: shares of the labels, float [..., d], summing to 1.
    positions: place of each label, float [d] or [..., d], in any order.
    power: 1 for W₁, 2 for W₂².

  Returns:
    Loss per response in units of the positions to `power`, [...], not reduced.
    Its gradient jumps where distribution functions cross; there is no ε.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, `power` is neither 1 nor 2, or a known share
      of `target` is outside [0, 1].
  """
  logits, target = _checked(logits, target)
  probs = jax.nn.softmax(logits, axis=-1)
  return wasserstein_1d(probs, target, positions, power=power)


def _shaped_utilities(
  probs: jax.Array, utilities: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Both in one dtype, utilities [d] repeated over the batch."""
  checks.fraction(probs=probs)
  probs, utilities = checks.floating(probs=probs, utilities=utilities)
  if probs.ndim < 1 or utilities.shape not in (probs.shape, probs.shape[-1:]):
    raise ValueError(
      f"utilities must be [d] or the shape of probs, got utilities "
      f"{utilities.shape} for probs {probs.shape}"
    )
  missing = probs.ndim - utilities.ndim
  utilities = jnp.reshape(utilities, (1,) * missing + utilities.shape)
  return probs, jnp.broadcast_to(utilities, probs.shape)


def expected_utility(probs: jax.Array, utilities: jax.Array) -> jax.Array:
  """Mean utility of the predicted labels: the scalar reward of DPRM.

    r = Σ_i probs_i utilities_i

  Args:
    probs: label probabilities, float [..., d].
    utilities: reward of each label, float [d] or [..., d].

  Returns:
    Reward per response, [...].

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or a known probability is outside [0, 1].
  """
  probs, utilities = _shaped_utilities(probs, utilities)
  return jnp.sum(probs * utilities, axis=-1)


def cvar_utility(
  probs: jax.Array, utilities: jax.Array, *, alpha: float
) -> jax.Array:
  """Mean utility of the worst part of the crowd, a risk-averse reward.

    r = (1/α) Σ_i w_i utilities_i

  with w the α of the mass with the lowest utilities; the atom on the edge is
  split.

  Args:
    probs: label probabilities, float [..., d], summing to 1.
    utilities: reward of each label, float [d] or [..., d].
    alpha: α, share of the mass that counts, a Python float in (0, 1].

  Returns:
    Reward per response, [...]; α = 1 is `expected_utility`. Piecewise linear
    in the probabilities.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or `alpha` or a known probability is out of
      range.

  References:
    Rockafellar & Uryasev, "Conditional value-at-risk for general loss
    distributions", 2002, proposition 8.
  """
  if not 0.0 < alpha <= 1.0:
    raise ValueError(f"alpha must be in (0, 1], got {alpha}")
  probs, utilities = _shaped_utilities(probs, utilities)
  order = jnp.argsort(utilities, axis=-1)
  probs = jnp.take_along_axis(probs, order, axis=-1)
  utilities = jnp.take_along_axis(utilities, order, axis=-1)
  if alpha == 1.0:  # all of it, also when rounding leaves the sum above 1
    return jnp.sum(probs * utilities, axis=-1)
  before = jnp.cumsum(probs, axis=-1) - probs
  counted = jnp.clip(alpha - before, 0.0, probs)
  return jnp.sum(counted * utilities, axis=-1) / alpha
