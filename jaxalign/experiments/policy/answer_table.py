"""Policy that is a table of answers: how well the learner finds a saddle point.

One prompt, a few answers of one token, a reward of each answer to each group,
and the learner of `train_policy` with leave-one-out advantages. The optimum is
known from the convex dual.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxalign import metrics
from jaxalign.algorithms import policy_config, ppo, ppo_batch
from jaxalign.algorithms.group_weights import WelfareConfig
from jaxalign.algorithms.kl_control import KLConfig
from jaxalign.algorithms.reward_shaping import RewardConfig
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class TableConfig:
  """Groups and answers, and how often the policy is learned.

  Attributes:
    num_groups: groups, K.
    num_answers: answers of one token, A.
    step_sizes: η of exponentiated weights, a run each.
    temperature: τ that damps them, beside a run without for each η.
    num_iterations: iterations of a run.
    num_prompts: rows of an iteration, all of the one prompt.
    num_responses: answers to each.
    learning_rate: of Adam.
    beta: reward units per nat of KL to the uniform policy.
    seed: of the rewards, uniform in [0, 1], and of sampling.
  """

  num_groups: int = 3
  num_answers: int = 6
  step_sizes: tuple[float, ...] = (0.02, 0.1, 0.3)
  temperature: float = 0.1
  num_iterations: int = 600
  num_prompts: int = 64
  num_responses: int = 4
  learning_rate: float = 0.03
  beta: float = 0.05
  seed: int = 5

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values out of range."""
    checks.at_least(2, num_groups=self.num_groups, num_answers=self.num_answers)
    checks.at_least(2, num_responses=self.num_responses)
    checks.above(0, temperature=self.temperature, beta=self.beta)


def rewards_of(config: TableConfig) -> np.ndarray:
  """Rewards of each answer to each group, float64 [K, A]."""
  rng = np.random.default_rng(config.seed)
  return rng.uniform(size=(config.num_groups, config.num_answers))


def optimum(config: TableConfig) -> float:
  """The best that a policy can do for the worst-off group less β KL."""
  rewards = rewards_of(config)[:, None]  # one prompt
  reference = np.full(rewards.shape[1:], 1 / config.num_answers)
  found: float = metrics.maxmin_policy(
    reference, rewards, beta=config.beta
  ).value
  return found


def value(config: TableConfig, logits: np.ndarray) -> float:
  """Worst-off group's utility of a policy less β KL to the uniform one."""
  log_probs = logits - np.log(np.sum(np.exp(logits - logits.max())))
  log_probs = log_probs - logits.max()
  probs = np.exp(log_probs)
  kl = probs @ (log_probs + np.log(config.num_answers))
  return float(np.min(rewards_of(config) @ probs) - config.beta * kl)


def _networks(num_answers: int) -> ppo_batch.Networks:
  """A policy of logits [A], which the last token of a row is drawn from."""

  def read(logits: jax.Array, batch: Any) -> ppo_batch.PolicyOutputs:
    picked = jax.nn.log_softmax(logits)[batch["tokens"][..., -1:]]
    return ppo_batch.PolicyOutputs(picked, picked, None, None)

  uniform = jnp.zeros(num_answers)
  return ppo_batch.Networks(
    actor=lambda params, frozen, batch: read(params["logits"], batch),
    reference=lambda frozen, batch: read(uniform, batch).log_probs,
    critic=None,
  )


def learned(config: TableConfig, welfare: WelfareConfig) -> np.ndarray:
  """Logits after each iteration of the learner, float32 [iterations, A].

  Args:
    config: the table and the runs.
    welfare: whose reward counts.

  Returns:
    The logits.
  """
  settings = policy_config.LearnerConfig(
    policy=policy_config.PolicyConfig(kind="rloo", whiten=False, epochs=1),
    critic=policy_config.CriticConfig(
      kind="none", clip=None, discount=None, gae_lambda=None
    ),
    kl=KLConfig(place="reward", estimator="k1", coef=config.beta),
    reward=RewardConfig(missing_eos=None),
    welfare=welfare,
    groups=tuple(f"group_{k}" for k in range(config.num_groups)),
  )
  chain = ppo.Optimizers(optax.adam(config.learning_rate), None)
  learn = ppo.make_learn(_networks(config.num_answers), chain, settings)
  rewards = jnp.asarray(rewards_of(config).T, jnp.float32)
  shape = config.num_prompts, config.num_responses
  rows = jnp.arange(config.num_prompts, dtype=jnp.int32)

  def iteration(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
    draw, order = jax.random.split(key)
    logits = state.actor.params["logits"]
    answers = jax.random.categorical(draw, logits, shape=shape)
    answers = answers.astype(jnp.int32)
    batch = {
      "tokens": jnp.stack([jnp.zeros_like(answers), answers], axis=-1),
      "mask": jnp.ones((*shape, 2), jnp.bool_),
      "sampler_log_probs": jax.nn.log_softmax(logits)[answers][..., None],
      "ended": jnp.ones(shape, jnp.bool_),
      "scores": rewards[answers],
      "group": jnp.full(config.num_prompts, -1, jnp.int32),
      "where": jnp.ones(config.num_prompts, jnp.bool_),
      "row": rows,
    }
    state, _ = learn(state, (), batch, order)
    return state, state.actor.params["logits"]

  start = ppo.init_policy_state(
    {"logits": jnp.zeros(config.num_answers)}, None, chain, settings
  )
  keys = jax.random.split(jax.random.key(config.seed), config.num_iterations)
  _, logits = jax.jit(lambda s, k: jax.lax.scan(iteration, s, k))(start, keys)
  return np.asarray(logits)


def run(config: TableConfig) -> dict[str, Any]:
  """The last policy of each run against the optimum.

  Args:
    config: the table and the runs.

  Returns:
    JSON values: `optimum`; `maxmin`, `exponentiated` and `damped`, where the
    latter two are by η: `last`, the value of the last policy, and `worst`, the
    least of the last tenth of the iterations.
  """

  def of(welfare: WelfareConfig) -> dict[str, float]:
    logits = learned(config, welfare)
    tail = logits[-max(1, len(logits) // 10) :]
    values = [value(config, row.astype(np.float64)) for row in tail]
    return {"last": values[-1], "worst": min(values)}

  weighted = lambda step_size, temperature: of(
    WelfareConfig(
      kind="exponentiated", step_size=step_size, temperature=temperature
    )
  )
  return {
    "optimum": optimum(config),
    "maxmin": of(WelfareConfig(kind="maxmin")),
    "exponentiated": {str(s): weighted(s, None) for s in config.step_sizes},
    "damped": {
      str(s): weighted(s, config.temperature) for s in config.step_sizes
    },
  }
