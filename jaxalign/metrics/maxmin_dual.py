"""Optimal MaxMin policy of a table, solved exactly by its convex dual.

    max_π min_k F_k(π) = min_{λ ∈ Δ} β E_x log E_{π_ref} exp(Σ_k λ_k r_k / β)

The left side is concave in π, the right convex and smooth in K weights only,
so Newton's method finds it to rounding; what a trained policy reaches can be
held against the number. float64 NumPy on the host, not for use under jit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Table = NDArray[np.float64]


class MaxMinSolution(NamedTuple):
  """Saddle point of the max-min problem, in float64."""

  policy: Table  # π ∝ π_ref exp(Σ_k λ_k r_k / β), [..., Y]
  weights: Table  # λ, [K]
  utilities: Table  # F_k of the policy, averaged over prompts, [K]
  value: float  # largest possible min_k F_k, in reward units
  gap: float  # dual value − min_k F_k, which bounds the error of `value`


class _Dual(NamedTuple):
  """The dual function and its derivatives at one λ."""

  value: float
  gradient: Table
  hessian: Table
  policy: Table


def _dual(
  weights: Table, log_ref: Table, rewards: Table, prompts: Table, beta: float
) -> _Dual:
  """Value, gradient E_π[r] and Hessian Cov_π[r] / β; rewards [K, X, Y]."""
  logits = log_ref + np.tensordot(weights, rewards, axes=1) / beta
  peak = logits.max(axis=1, keepdims=True)
  unnormalised = np.exp(logits - peak)
  total = unnormalised.sum(axis=1, keepdims=True)
  policy = unnormalised / total
  value = beta * float(prompts @ (np.log(total) + peak)[:, 0])
  mean = (policy * rewards).sum(axis=2)
  centred = (rewards - mean[..., None]).reshape(len(weights), -1)
  joint = (prompts[:, None] * policy).reshape(-1)
  return _Dual(
    value, mean @ prompts, (centred * joint) @ centred.T / beta, policy
  )


def _newton_step(weights: Table, at: _Dual, barrier: float) -> Table:
  """Relative step s, Σ λ_k s_k = 0, of f(λ) − barrier · Σ log λ.

  In relative steps the barrier's Hessian is a multiple of the identity, so
  the system stays well conditioned as weights go to zero.
  """
  size = len(weights)
  system = np.zeros((size + 1, size + 1))
  system[:size, :size] = weights[:, None] * at.hessian * weights
  system[:size, :size] += barrier * np.eye(size)
  system[:size, size] = system[size, :size] = weights
  right = np.append(barrier - weights * at.gradient, 0.0)
  return np.asarray(np.linalg.solve(system, right)[:size], np.float64)


def maxmin_policy(
  reference_probs: ArrayLike,
  rewards: ArrayLike,
  *,
  beta: float,
  prompt_probs: ArrayLike | None = None,
) -> MaxMinSolution:
  """Solves the KL-regularised max-min problem for tabular policies.

  An interior-point method on the dual; its error is certified by `gap`.

  Args:
    reference_probs: π_ref, positive, rows summing to 1, [..., Y].
    rewards: r, [K, ..., Y].
    beta: β > 0, reward units per nat.
    prompt_probs: how often each prompt is met, summing to 1, [...]; uniform
      by default.

  Returns:
    The saddle point: the policy [..., Y], the weights [K] and what they reach.

  Raises:
    ValueError: shapes do not fit, beta is not positive, a table is not
      finite, or probabilities are not positive or do not sum to 1.

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024, section 4: the primal problem.
    Boyd & Vandenberghe, "Convex optimization", 2004, chapter 11.
  """
  reference = np.asarray(reference_probs, np.float64)
  tables = np.asarray(rewards, np.float64)
  prompts = _checked(reference, tables, beta, prompt_probs)
  size, responses = len(tables), reference.shape[-1]
  log_ref = np.log(reference).reshape(-1, responses)
  tables = tables.reshape(size, -1, responses)
  weights = np.full(size, 1 / size)
  spread = float(np.max(np.ptp(tables, axis=2)))
  barrier, smallest = spread / size, 1e-13 * spread / size
  at = _dual(weights, log_ref, tables, prompts, beta)
  while barrier > smallest:
    for _ in range(50):
      step = _newton_step(weights, at, barrier)
      slope = float(step @ (weights * at.gradient - barrier))
      if -slope <= 1e-3 * barrier:
        break
      length = min(1.0, 0.99 / max(float(np.max(-step)), 1e-300))
      merit = at.value - barrier * np.log(weights).sum()
      for _ in range(40):
        trial = weights * (1 + length * step)
        trial /= trial.sum()
        there = _dual(trial, log_ref, tables, prompts, beta)
        reached = there.value - barrier * np.log(trial).sum()
        if reached <= merit + 1e-4 * length * slope:
          break
        length *= 0.5
      else:
        break  # rounding: no point along the step is measurably better
      weights, at = trial, there
    barrier *= 0.1
  policy = at.policy.reshape(reference.shape)
  divergence = float(
    prompts @ (at.policy * (_log(at.policy) - log_ref)).sum(axis=1)
  )
  utilities = at.gradient - beta * divergence
  return MaxMinSolution(
    policy=policy,
    weights=weights,
    utilities=utilities,
    value=at.value,
    gap=at.value - float(np.min(utilities)),
  )


def _log(probs: Table) -> Table:
  """The log of p, 0 where p has underflowed to 0."""
  return np.asarray(np.log(np.where(probs > 0, probs, 1.0)), np.float64)


def _checked(
  reference: Table,
  rewards: Table,
  beta: float,
  prompt_probs: ArrayLike | None,
) -> Table:
  """The prompts' probabilities, [X], once every input has been accepted."""
  if not beta > 0.0:
    raise ValueError(f"beta must be positive, got {beta}")
  if reference.ndim < 1 or rewards.shape[1:] != reference.shape:
    raise ValueError(
      f"rewards must be [K, ..., Y] for reference_probs [..., Y], got "
      f"{rewards.shape} for {reference.shape}"
    )
  if not np.all(np.isfinite(rewards)):
    raise ValueError("rewards must be finite")
  if not np.all(reference > 0) or not np.allclose(reference.sum(-1), 1.0):
    raise ValueError("reference_probs must be positive and sum to 1")
  if prompt_probs is None:
    count = reference[..., 0].size
    return np.full(count, 1 / count)
  prompts = np.asarray(prompt_probs, np.float64)
  if prompts.shape != reference.shape[:-1]:
    raise ValueError(
      f"prompt_probs must be {reference.shape[:-1]}, got {prompts.shape}"
    )
  if np.any(prompts < 0) or not np.isclose(prompts.sum(), 1.0):
    raise ValueError("prompt_probs must not be negative and sum to 1")
  return prompts.reshape(-1)
