"""float64 NumPy of PCGrad, CAGrad and GradNorm, from the papers' formulas."""

import itertools

import numpy as np
import scipy.optimize


def pcgrad_direction(gradients, draws=None):
  """Yu et al., 2020, algorithm 1, over K: with random orders or all of them."""
  size = len(gradients)
  total = np.zeros(gradients.shape[1])
  for k in range(size):
    others = [j for j in range(size) if j != k]
    orders = list(itertools.permutations(others))
    if draws is not None:
      orders = [draws.permutation(others) for _ in range(2000)]
    for order in orders:
      v = gradients[k].copy()
      for j in order:
        if v @ gradients[j] < 0:
          v -= (v @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
      total += v / len(orders) / size
  return total


def cagrad_direction(gradients, radius):
  """Liu et al., 2021, eq. (2): the primal problem, by scipy."""
  average = gradients.mean(0)
  ball = radius * np.linalg.norm(average)
  # d and the worst ⟨g_k, d⟩ as the last variable.
  solution = scipy.optimize.minimize(
    lambda x: -x[-1],
    np.append(average, np.min(gradients @ average)),
    jac=lambda x: np.append(np.zeros(len(average)), -1.0),
    constraints=[
      {"type": "ineq", "fun": lambda x: gradients @ x[:-1] - x[-1]},
      {
        "type": "ineq",
        "fun": lambda x: ball**2 - np.sum((x[:-1] - average) ** 2),
      },
    ],
    method="SLSQP",
    options={"ftol": 1e-15, "maxiter": 1000},
  )
  return solution.x[:-1]


def gradnorm_loss(weights, norms, losses, first_losses, asymmetry):
  """Chen et al., 2018, equations (1) and (2): the loss and its gradient."""
  size = len(weights)
  reached = [losses[k] / first_losses[k] for k in range(size)]
  rates = [one / (sum(reached) / size) for one in reached]
  pulled = [weights[k] * norms[k] for k in range(size)]
  average = sum(pulled) / size
  total, gradient = 0.0, np.zeros(size)
  for k in range(size):
    away = pulled[k] - average * rates[k] ** asymmetry
    total += abs(away)
    gradient[k] = np.sign(away) * norms[k]
  return total, gradient


def gradnorm_weights(
  weights, norms, losses, first_losses, asymmetry, step_size
):
  """Algorithm 1 of the same, a plain step in units of the mean norm."""
  _, gradient = gradnorm_loss(weights, norms, losses, first_losses, asymmetry)
  moved = weights - step_size * gradient / np.mean(norms)
  moved = np.maximum(moved, 0)
  return moved / moved.sum()
