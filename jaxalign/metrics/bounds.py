"""Cost of a single pooled reward model to a minority: bounds and exact gaps.

A group k has the rewards r_k and gains from a policy
F_k(π) = E_π[r_k] − β KL(π ‖ π_ref); policies and rewards are tables.
"""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks

_CONSTANTS = ("paper", "tight")


def _beta(beta: float) -> None:
  if not beta > 0.0:
    raise ValueError(f"beta must be positive, got {beta}")


def optimal_policy(
  reference_probs: jax.Array, rewards: jax.Array, *, beta: float
) -> jax.Array:
  """The optimal policy of a KL-regularised reward.

    π* ∝ π_ref exp(r / β)

  Args:
    reference_probs: π_ref over responses, float [..., Y].
    rewards: r, float [..., Y].
    beta: β > 0, reward units per nat, Python float.

  Returns:
    Probabilities, [..., Y]; 0 where the reference is 0.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or beta is not positive.
  """
  return jnp.exp(_log_optimal(reference_probs, rewards, beta))


def _log_optimal(
  reference_probs: jax.Array, rewards: jax.Array, beta: float
) -> jax.Array:
  _beta(beta)
  checks.same_shape(reference_probs=reference_probs, rewards=rewards)
  reference, rewards = checks.floating(
    reference_probs=reference_probs, rewards=rewards
  )
  possible = reference > 0
  logits = jnp.log(jnp.where(possible, reference, 1.0)) + rewards / beta
  return jax.nn.log_softmax(jnp.where(possible, logits, -jnp.inf), axis=-1)


def _expected(probs: jax.Array, values: jax.Array) -> jax.Array:
  """Σ p·v over the last axis, where 0 · ±inf is 0."""
  possible = probs > 0
  return jnp.sum(
    jnp.where(possible, probs * jnp.where(possible, values, 0.0), 0.0), axis=-1
  )


def _entropy_term(probs: jax.Array) -> jax.Array:
  return jnp.log(jnp.where(probs > 0, probs, 1.0))


def regularised_utility(
  policy_probs: jax.Array,
  reference_probs: jax.Array,
  rewards: jax.Array,
  *,
  beta: float,
) -> jax.Array:
  """What a group gains from a policy, in reward units.

    F(π) = Σ_y π(y) r(y) − β KL(π ‖ π_ref)

  Args:
    policy_probs: π over responses, float [..., Y].
    reference_probs: π_ref, float [..., Y].
    rewards: r of the group, float [..., Y].
    beta: β > 0, reward units per nat, Python float.

  Returns:
    F per prompt, [...]; −inf where the policy leaves the reference's support.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or beta is not positive.
  """
  _beta(beta)
  arrays = dict(
    policy_probs=policy_probs, reference_probs=reference_probs, rewards=rewards
  )
  checks.same_shape(**arrays)
  policy, reference, rewards = checks.floating(**arrays)
  divergence = _expected(policy, _entropy_term(policy) - jnp.log(reference))
  return _expected(policy, rewards) - beta * divergence


def alignment_gap(
  policy_probs: jax.Array,
  reference_probs: jax.Array,
  rewards: jax.Array,
  *,
  beta: float,
) -> jax.Array:
  """Alignment gap: a group's loss against its own best policy, reward units.

    max F − F(π) = β KL(π ‖ π*),   π* ∝ π_ref exp(r / β)

  an identity, not a bound.

  Args:
    policy_probs: π over responses, float [..., Y].
    reference_probs: π_ref, float [..., Y].
    rewards: r of the group, float [..., Y].
    beta: β > 0, reward units per nat, Python float.

  Returns:
    Gap per prompt, [...], never negative but for rounding; inf where the
    policy leaves the reference's support.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or beta is not positive.

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024: the gap that theorem 1 bounds.
  """
  checks.same_shape(policy_probs=policy_probs, rewards=rewards)
  best = _log_optimal(reference_probs, rewards, beta)
  policy, best = checks.floating(policy_probs=policy_probs, best=best)
  return beta * _expected(policy, _entropy_term(policy) - best)


def distinctiveness(diversity: jax.Array, *, group: int) -> jax.Array:
  """How much farther a group is from its opposite than any other group is.

    ε_u = d(u, j) − max_{k ≠ u} d(k, j),   j = the group farthest from u

  Args:
    diversity: d, total variation between the groups' preferences, symmetric
      with a zero diagonal, float [K, K].
    group: u, Python int.

  Returns:
    ε, a scalar; not positive if another group is as far from j, and then the
    bounds below say nothing.

  Raises:
    TypeError: diversity is not floating point.
    ValueError: diversity is not square with K ≥ 2, or group is out of range.

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024, section 3.
  """
  checks.rank(2, diversity=diversity)
  size = jnp.shape(diversity)[0]
  if size < 2 or jnp.shape(diversity) != (size, size):
    raise ValueError(
      f"diversity must be [K, K] with K >= 2, got {jnp.shape(diversity)}"
    )
  if not 0 <= group < size:
    raise ValueError(f"group must be in [0, {size}), got {group}")
  (diversity,) = checks.floating(diversity=diversity)
  opposite = jnp.argmax(diversity[group])
  column = jnp.take(diversity, opposite, axis=1)
  others = jnp.where(jnp.arange(size) == group, -jnp.inf, column)
  return column[group] - jnp.max(others)


def reward_mismatch_bound(
  distinctiveness: jax.Array,
  share: jax.Array,
  *,
  feature_bound: float,
  constant: str = "paper",
) -> jax.Array:
  """Distance from the parameters of a pooled reward to a group's own.

    ‖φ − φ_u‖ ≥ c ε (1 − η_u) / D,   c = 1/4 (paper) or 2 (tight)

  for linear rewards ⟨φ, ψ⟩ with ‖ψ‖ ≤ D and crowd preferences that are
  themselves Bradley-Terry. The tight constant uses |σ(a) − σ(b)| ≤ |a − b|/4
  and ‖ψ_1 − ψ_2‖ ≤ 2D.

  Args:
    distinctiveness: ε of the group, float [...].
    share: η of the group in the population, float [...].
    feature_bound: D > 0, Python float.
    constant: "paper" or "tight".

  Returns:
    Lower bound in units of φ, [...].

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, an unknown constant, or a bound not positive.

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024, lemma 1.
  """
  checks.one_of(_CONSTANTS, constant=constant)
  if not feature_bound > 0.0:
    raise ValueError(f"feature_bound must be positive, got {feature_bound}")
  checks.same_shape(distinctiveness=distinctiveness, share=share)
  epsilon, share = checks.floating(distinctiveness=distinctiveness, share=share)
  factor = 0.25 if constant == "paper" else 2.0
  return factor * epsilon * (1 - share) / feature_bound


def alignment_gap_bound(
  distinctiveness: jax.Array,
  share: jax.Array,
  *,
  min_eigenvalue: float,
  beta: float,
  lipschitz: float,
  feature_bound: float,
) -> jax.Array:
  """What a group must lose to a policy trained on a single pooled reward.

    gap ≥ λ [ε (1 − η_u)]² / (64 β² L D²)

  The gap is quadratic in the parameters' mismatch, so the mismatch bound
  enters squared: 64 D² = 4 · (4 D)². A form linear in ε could not hold.

  For policies π_φ ∝ π_ref exp(⟨φ, ψ⟩ / β) the gap is at least
  c ‖φ − φ_u‖² / 2β, where c is the least eigenvalue of the covariance of ψ
  under any policy between the pooled and the group's own. So this is a bound
  where λ ≤ 2 β L c, and not where either policy is nearly certain, as c is 0
  then. Take two answers with ψ = ±1, groups of φ = 3 and 0.3 that are as
  large, β = 0.05, λ = 1 and L = 2 / β: it says 0.0048 of the first group, which
  loses 2e-13.

  Args:
    distinctiveness: ε ≥ 0 of the group, float [...].
    share: η of the group in the population, float [...].
    min_eigenvalue: λ ≥ 0, least eigenvalue of the features' Gram matrix.
    beta: β > 0, reward units per nat.
    lipschitz: L > 0, Lipschitz constant of log π in the parameters.
    feature_bound: D > 0, bound on the features' norm.

  Returns:
    Lower bound in reward units, [...].

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or a constant is out of range.

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024, theorem 1.
  """
  _beta(beta)
  if not min_eigenvalue >= 0.0:
    raise ValueError(
      f"min_eigenvalue must not be negative, got {min_eigenvalue}"
    )
  if not lipschitz > 0.0:
    raise ValueError(f"lipschitz must be positive, got {lipschitz}")
  mismatch = reward_mismatch_bound(
    distinctiveness, share, feature_bound=feature_bound
  )
  return min_eigenvalue * jnp.square(mismatch) / (4 * beta**2 * lipschitz)
