r"""Tabular welfare check: does gradient ascent reach the known optimum?

python -m jaxalign.experiments.tabular --config=configs/tabular_navigation.py \
    --workdir=runs/tabular_navigation

Groups that want to be in different cells of a grid, and one policy for all of
them: a softmax per step and cell, climbed with exact gradients. The optimum
comes from the convex dual over all paths, which shares no line with it.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from jaxalign import losses, metrics
from jaxalign.data.synthetic import gridworld
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import answer_table, pooled_table
from jaxalign.experiments.reports import tabular

log = logging.getLogger("jaxalign")

Evaluate = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
Objective = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class GridConfig:
  """Gridworlds to solve.

  Attributes:
    size: cells per side.
    horizon: moves per path; all 5^horizon of them are enumerated.
    num_starts: cells in which paths begin.
    shares: of each group in the crowd, sum 1; one goal per group.
  """

  size: int = 4
  horizon: int = 6
  num_starts: int = 3
  shares: tuple[float, ...] = (0.75, 0.25)

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    if not 1 <= self.horizon <= 8:
      raise ValueError(f"horizon must be in [1, 8], got {self.horizon}")
    if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
      raise ValueError(
        f"shares must be positive and sum to 1, got {self.shares}"
      )


@dataclasses.dataclass(frozen=True)
class ClimbConfig:
  """Gradient ascent on tabular policies.

  Attributes:
    num_steps: steps of Adam.
    learning_rate: at the start; it falls to 0 along a cosine.
  """

  num_steps: int = 2_000
  learning_rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `tabular` reads.

  Attributes:
    seeds: one world each.
    grid: the worlds.
    beta: reward units per nat of KL to the random walk.
    train: how policies are optimised.
    table: the learner of `train_policy` on a table of answers, or None.
    pooled: what one pooled reward model costs a minority, by its share and
      taste, beside the bounds on it; None for leaving that out.
  """

  seeds: tuple[int, ...]
  grid: GridConfig = GridConfig()
  beta: float = 0.05
  train: ClimbConfig = ClimbConfig()
  table: answer_table.TableConfig | None = None
  pooled: pooled_table.PooledConfig | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    if not self.seeds or self.beta <= 0:
      raise ValueError(
        "seeds must name at least one and beta must be > 0, got "
        f"{self.seeds} and {self.beta}"
      )


class Outcome(NamedTuple):
  """Utilities, KL and objective of one policy.

  Attributes:
    utilities: mean reward of each group, [K].
    kl: to the reference, in nats per path.
    objective: welfare − β · kl.
  """

  utilities: np.ndarray
  kl: float
  objective: float


def grid_evaluation(grid: gridworld.Grid) -> Evaluate:
  """Exact utilities of a policy by the cells it is in at each step.

  Args:
    grid: the world.

  Returns:
    `logits [horizon, S, A] -> (mean reward per step of each group [K], KL to
    the uniform walk in nats per path)`, differentiable.
  """
  cells, moves = grid.next_cell.shape
  start = np.bincount(grid.starts, minlength=cells) / len(grid.starts)

  def evaluate(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    def step(here: jax.Array, at: jax.Array) -> Any:
      log_probs = jax.nn.log_softmax(at)
      probs = jnp.exp(log_probs)
      kl = here @ jnp.sum(probs * (log_probs + np.log(moves)), axis=-1)
      there = jax.ops.segment_sum(
        (here[:, None] * probs).reshape(-1),
        grid.next_cell.reshape(-1),
        num_segments=cells,
      )
      return there, (grid.rewards.astype(there.dtype) @ there, kl)

    _, (rewards, kl) = jax.lax.scan(
      step, jnp.asarray(start, logits.dtype), logits
    )
    return rewards.mean(axis=0), kl.sum()

  return evaluate


def climb(
  evaluate: Evaluate,
  objective: Objective,
  logits: jax.Array,
  config: ClimbConfig,
) -> jax.Array:
  """The logits after gradient ascent on a policy's objective.

  Args:
    evaluate: `logits -> (utilities [K], kl)`.
    objective: `(utilities, kl) -> scalar` to be maximised.
    logits: to begin with.
    config: steps.

  Returns:
    The logits of the last step.
  """
  optimizer = optax.adam(
    optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
  )

  @jax.jit
  def climbed(logits: jax.Array) -> jax.Array:
    def step(carry: Any, _: None) -> Any:
      logits, state = carry
      gradient = jax.grad(lambda x: -objective(*evaluate(x)))(logits)
      updates, state = optimizer.update(gradient, state)
      return (optax.apply_updates(logits, updates), state), None

    carry = (logits, optimizer.init(logits))
    (logits, _), _ = jax.lax.scan(step, carry, length=config.num_steps)
    return logits

  return climbed(logits)


def objectives(config: Config) -> dict[str, Objective]:
  """Objectives by the name that tables give them.

  Args:
    config: shares and beta.

  Returns:
    "single": the crowd's mean, so groups by their shares; "mean": every group
    the same; "maxmin": the worst-off group.
  """
  shares = jnp.asarray(config.grid.shares)
  welfares: dict[str, Callable[[jax.Array], jax.Array]] = {
    "single": lambda u: losses.welfare(u, kind="utilitarian", weights=shares),
    "mean": lambda u: losses.welfare(u, kind="utilitarian"),
    "maxmin": lambda u: losses.welfare(u, kind="egalitarian"),
  }
  return {
    name: lambda u, kl, of=of: of(u) - config.beta * kl
    for name, of in welfares.items()
  }


def optima(config: Config, rewards: np.ndarray) -> dict[str, float]:
  """The best that any policy over paths can reach, per objective.

  Args:
    config: shares and beta.
    rewards: of every path, float64 [K, X, Y].

  Returns:
    name -> value, in float64.
  """
  size = len(rewards)
  beta = config.beta
  reference = np.full(rewards.shape[1:], 1 / rewards.shape[2])

  def of_weights(weights: np.ndarray) -> float:
    # For fixed weights the optimum is known in closed form.
    mixed = np.tensordot(weights, rewards, axes=1) / beta
    peak = mixed.max(axis=1, keepdims=True)
    means = np.exp(mixed - peak).mean(axis=1)
    return float(beta * np.mean(np.log(means) + peak[:, 0]))

  return {
    "single": of_weights(np.asarray(config.grid.shares)),
    "mean": of_weights(np.full(size, 1 / size)),
    "maxmin": metrics.maxmin_policy(reference, rewards, beta=beta).value,
  }


def run_world(config: Config, seed: int) -> dict[str, Any]:
  """All objectives on one world.

  Args:
    config: the resolved config.
    seed: of the places of goals and starts.

  Returns:
    Per objective `utilities`, `kl`, `value`, `optimum` and `share`, the share
    of the attainable gain over the random walk that was reached.
  """
  grid = gridworld.draw_grid(
    size=config.grid.size,
    num_groups=len(config.grid.shares),
    num_starts=config.grid.num_starts,
    seed=seed,
  )
  best = optima(config, gridworld.path_rewards(grid, config.grid.horizon))
  evaluate = grid_evaluation(grid)
  start = jnp.zeros((config.grid.horizon, *grid.next_cell.shape))
  result: dict[str, Any] = {}
  for name, objective in objectives(config).items():
    outcomes = [
      measure(evaluate, objective, logits)
      for logits in (start, climb(evaluate, objective, start, config.train))
    ]
    walk, reached = outcomes
    result[name] = {
      "utilities": reached.utilities.tolist(),
      "kl": reached.kl,
      "value": reached.objective,
      "optimum": best[name],
      "share": (reached.objective - walk.objective)
      / (best[name] - walk.objective),
    }
  return result


def measure(
  evaluate: Evaluate, objective: Objective, logits: jax.Array
) -> Outcome:
  """What a policy is worth, on the host."""
  utilities, kl = evaluate(logits)
  value = objective(utilities, kl)
  return Outcome(np.asarray(utilities), float(kl), float(value))


def run(config: Config, workdir: epath.Path) -> None:
  """Optimises every objective on every world and compares with the optimum.

  Args:
    config: the resolved config.
    workdir: gets eval.json, utilities.png, report.html and, of the tables of
      answers, table.json and pooled.json.
  """
  result: dict[str, Any] = {}
  for seed in config.seeds:
    result[str(seed)] = run_world(config, seed)
    log.info("world %d: %s", seed, tabular.in_words(result[str(seed)]))
  configuration.write_json(workdir / "eval.json", result)
  table = None
  if config.table is not None:
    table = answer_table.run(config.table)
    configuration.write_json(workdir / "table.json", table)
  pooled = None
  if config.pooled is not None:
    pooled = pooled_table.run(config.pooled)
    configuration.write_json(workdir / "pooled.json", pooled)
  tabular.write(workdir, result, config.grid.shares, table, pooled)
  summary.say([tabular.headline(result)], report=workdir / "report.html")


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
