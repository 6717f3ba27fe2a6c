"""Softmax tables climbed with the library's welfare against convex duals.

For every welfare W, concave and rising in the groups' utilities,

  max_π W(u(π)) − β KL(π) = min_λ β E_x log E_ref exp(Σ λ_k r_k / β) + W*(λ)

with W* the conjugate written out below; SciPy minimises the right side.
"""

import json
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import losses, metrics
from jaxalign.data.synthetic import gridworld
from jaxalign.experiments import tabular
from jaxalign.experiments.common import config as configuration
from tests import config_reads, shipped

BETA = 0.5
WEIGHTS = np.array([0.5, 0.3, 0.2])
ALPHA, TEMPERATURE = 0.6, 0.3


def entropy(x, weights=WEIGHTS):
  return np.sum(x * np.log(np.maximum(x, 1e-300) / weights))


# kind: options of `welfare`, conjugate, bounds of λ, whether λ sums to 1
KINDS = {
  "egalitarian": ({}, lambda x: 0.0, (1.0,) * 3, True),
  "utilitarian": (dict(weights=WEIGHTS), None, None, True),
  "cvar": (
    dict(weights=WEIGHTS, alpha=ALPHA),
    lambda x: 0.0,
    WEIGHTS / ALPHA,
    True,
  ),
  "soft_min": (
    dict(weights=WEIGHTS, temperature=TEMPERATURE),
    lambda x: TEMPERATURE * entropy(x),
    (1.0,) * 3,
    True,
  ),
  "nash": (
    dict(weights=WEIGHTS),
    lambda x: WEIGHTS @ np.log(WEIGHTS / np.maximum(x, 1e-300)) - 1,
    (50.0,) * 3,
    False,
  ),
  # W = -Σ w / u: its conjugate is -2 Σ sqrt(w λ).
  "alpha_fair": (
    dict(weights=WEIGHTS, order=2.0),
    lambda x: -2 * np.sum(np.sqrt(WEIGHTS * x)),
    (50.0,) * 3,
    False,
  ),
}


def problem(seed):
  """Reference [X, Y] and positive rewards [K, X, Y] at odds with each other."""
  rng = np.random.default_rng(seed)
  reference = rng.dirichlet(np.ones(6), size=4)
  return reference, rng.uniform(0.2, 3.0, size=(3, 4, 6))


def dual_optimum(kind, reference, rewards):
  """The least of the dual, in float64."""
  _, conjugate, upper, on_simplex = KINDS[kind]

  def dual(x):
    mixed = np.tensordot(x, rewards, axes=1) / BETA
    return BETA * np.mean(np.log(np.sum(reference * np.exp(mixed), axis=1)))

  if conjugate is None:
    return dual(WEIGHTS)
  found = scipy.optimize.minimize(
    lambda x: dual(x) + conjugate(x),
    WEIGHTS,
    method="SLSQP",
    bounds=[(1e-9, bound) for bound in upper],
    constraints=[{"type": "eq", "fun": lambda x: x.sum() - 1}]
    if on_simplex
    else [],
    options={"ftol": 1e-13, "maxiter": 1000},
  )
  assert found.success, found.message
  return found.fun


def table_evaluation(reference, rewards):
  def evaluate(logits):
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)
    kl = jnp.sum(probs * (log_probs - np.log(reference)), axis=-1).mean()
    return jnp.sum(probs[None] * rewards, axis=-1).mean(axis=1), kl

  return evaluate


class RandomTablesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.product(kind=(*KINDS,), seed=(0, 1))
  def test_every_welfare_reaches_its_optimum(self, kind, seed):
    reference, rewards = problem(seed)
    options = {
      k: jnp.asarray(v) if k == "weights" else v
      for k, v in KINDS[kind][0].items()
    }
    objective = lambda u, kl: (
      losses.welfare(u, kind=kind, **options) - BETA * kl
    )
    evaluate = table_evaluation(reference, rewards)
    start = jnp.log(reference)
    end = tabular.climb(
      evaluate, objective, start, tabular.ClimbConfig(1500, 0.05)
    )
    best = dual_optimum(kind, reference, rewards)
    walk = tabular.measure(evaluate, objective, start).objective
    reached = tabular.measure(evaluate, objective, end).objective
    self.assertLessEqual(reached, best + 1e-7)
    self.assertGreater((reached - walk) / (best - walk), 0.99)
    if kind == "egalitarian":
      exact = metrics.maxmin_policy(reference, rewards, beta=BETA)
      np.testing.assert_allclose(exact.value, best, rtol=1e-6)

  @parameterized.parameters("arg_min", "soft_min", "exponentiated")
  def test_weights_against_the_policy_find_the_worst_off_optimum(self, rule):
    # Algorithm 1: weights of the groups, then a step towards their sum.
    reference, rewards = problem(2)
    evaluate = table_evaluation(reference, rewards)
    steps, rate = 3000, 0.05

    @jax.jit
    def run(logits):
      def step(carry, t):
        logits, weights = carry
        utilities, _ = evaluate(logits)
        if rule == "arg_min":
          weights = losses.maxmin_weights(utilities)
        elif rule == "soft_min":
          weights = losses.soft_min_weights(utilities, temperature=0.01)
        else:
          weights = losses.exponentiated_weights(
            weights, utilities, step_size=0.05
          )

        def objective(logits):
          utilities, kl = evaluate(logits)
          return weights @ utilities - BETA * kl

        decay = rate * (1 - t / steps)
        logits = logits + decay * 4 * jax.grad(objective)(logits)
        return (logits, weights), None

      carry = (logits, jnp.full(3, 1 / 3))
      carry, _ = jax.lax.scan(step, carry, jnp.arange(steps))
      return carry[0]

    worst = lambda u, kl: losses.welfare(u, kind="egalitarian") - BETA * kl
    start = jnp.log(reference)
    walk = tabular.measure(evaluate, worst, start).objective
    reached = tabular.measure(evaluate, worst, run(start)).objective
    best = metrics.maxmin_policy(reference, rewards, beta=BETA).value
    self.assertLessEqual(reached, best + 1e-7)
    # The soft minimum is below the minimum by up to τ log K.
    slack = 0.01 * np.log(3) if rule == "soft_min" else 0.0
    self.assertGreater((reached + slack - walk) / (best - walk), 0.99)


class NavigationTest(parameterized.TestCase):
  def test_utilities_are_those_of_all_paths(self):
    grid = gridworld.draw_grid(size=3, num_groups=2, num_starts=2, seed=0)
    horizon = 3
    logits = np.random.default_rng(0).normal(size=(horizon, 9, 5))
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    path = np.arange(5**horizon)
    cell = np.repeat(grid.starts[:, None], len(path), axis=1)
    total = np.zeros(cell.shape)
    for step in range(horizon):
      move = path // 5**step % 5
      total += log_probs[step, cell, move]
      cell = grid.next_cell[cell, move]
    probs = np.exp(total)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    rewards = gridworld.path_rewards(grid, horizon)
    utilities, kl = tabular.grid_evaluation(grid)(jnp.asarray(logits))
    np.testing.assert_allclose(
      utilities, (probs * rewards).sum(axis=2).mean(axis=1), rtol=1e-5
    )
    expected = (probs * (total + horizon * np.log(5))).sum(axis=1).mean()
    np.testing.assert_allclose(kl, expected, rtol=1e-5)

  def test_smoke_reaches_the_optimum_and_shows_it(self):
    config = configuration.to_dataclass(
      tabular.Config, shipped.config("tabular_navigation", "smoke")
    )
    workdir = epath.Path(tempfile.mkdtemp())
    with config_reads.recorded(config) as unread:
      tabular.run(config, workdir)
    self.assertEqual(unread, set())
    (world,) = json.loads((workdir / "eval.json").read_text()).values()
    for name, found in world.items():
      self.assertGreater(found["share"], 0.99, name)
      self.assertLess(found["share"], 1 + 1e-4, name)
    worst = {name: min(found["utilities"]) for name, found in world.items()}
    self.assertGreater(worst["maxmin"], worst["mean"])
    self.assertGreater(worst["mean"], worst["single"])
    page = (workdir / "report.html").read_text()
    self.assertIn("25 % of the crowd", page)
    (crowd,) = json.loads((workdir / "pooled.json").read_text())
    self.assertGreater(crowd["gap"], crowd["gap_majority"])
    self.assertIn("One pooled reward for two tastes", page)

  @parameterized.parameters(
    (dict(grid=dict(horizon=9)), r"horizon must be in \[1, 8\], got 9"),
    (dict(grid=dict(shares=(0.5, 0.2))), "shares must be positive and sum to"),
    (dict(beta=0.0), "beta must be > 0, got .* and 0.0"),
    (dict(seeds=()), "seeds must name at least one"),
  )
  def test_values_out_of_range(self, changes, message):
    cfg = shipped.config("tabular_navigation", "smoke")
    cfg.grid.update(changes.pop("grid", {}))
    cfg.update(changes)
    with self.assertRaisesRegex(ValueError, message):
      configuration.to_dataclass(tabular.Config, cfg)


if __name__ == "__main__":
  absltest.main()
