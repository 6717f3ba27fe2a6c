"""Config of `train_policy`, with checks across its sections."""

import dataclasses

from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms.group_weights import WelfareConfig
from jaxalign.algorithms.kl_control import KLConfig
from jaxalign.algorithms.policy_config import (
  CriticConfig,
  LearnerConfig,
  PolicyConfig,
)
from jaxalign.algorithms.reward_shaping import RewardConfig
from jaxalign.experiments.common import model
from jaxalign.experiments.datasets import prompts, sft
from jaxalign.experiments.policy import reward_source, sampling
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes


@dataclasses.dataclass(frozen=True)
class IterationConfig:
  """Iterations, batch size, evaluation and checkpoints of a policy run.

  Attributes:
    num_iterations: rounds of sampling, scoring and learning.
    num_prompts: prompts per iteration over all devices.
    accumulation: micro-batches per optimiser step; changes memory, not results.
    parallel: "jit" (sharded) or "pmap" (data parallel).
    eval_every: iterations between evaluations, None for the end only.
    eval_prompts: held-out prompts that are answered, None for all.
    checkpoint_every: iterations between checkpoints; the last always saves.
    keep_last: most recent checkpoints kept.
    max_bad_steps: optimiser steps in a row without finite gradient that stop
      the run.
    digests: whether a checkpoint has a SHA-256 of each file, checked before it
      is restored.
    trackers: "wandb", "trackio" or both, which show the run's metrics too.
  """

  num_iterations: int
  num_prompts: int = 64
  accumulation: int = 1
  parallel: str = "jit"
  eval_every: int | None = None
  eval_prompts: int | None = None
  checkpoint_every: int = 20
  keep_last: int = 2
  max_bad_steps: int = 8
  digests: bool = True
  trackers: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(("jit", "pmap"), parallel=self.parallel)
    checks.at_least(
      1,
      num_iterations=self.num_iterations,
      num_prompts=self.num_prompts,
      accumulation=self.accumulation,
      checkpoint_every=self.checkpoint_every,
      eval_every=self.eval_every,
      eval_prompts=self.eval_prompts,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextsConfig:
  """Texts whose likelihood the policy keeps while it is rewarded (PPO-ptx).

  Attributes:
    files: sources as in `data.train_files`; the first response of a record is
      learned, with the policy's tokenizer. Texts alone have no prompt.
    length: tokens per row; an iteration has a row of texts per prompt.
    layout: how texts share rows: "best_fit", "best_fit_split" or "wrapped".
  """

  files: tuple[str, ...]
  length: int = 512
  layout: str = "best_fit"

  def section(self, data: prompts.PromptConfig) -> sft.TextConfig:
    """The `data` section of these texts, beside that of the prompts."""
    return sft.TextConfig(
      train_files=self.files,
      tokenizer=data.tokenizer,
      on_bad_record=data.on_bad_record,
      extra_columns=data.extra_columns,
      crowd_seed=data.crowd_seed,
      prefetch=data.prefetch,
      length=self.length,
      layout=self.layout,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `train_policy` reads.

  Attributes:
    seed: of the initial weights, the order of the prompts and the samples.
    data: prompts and how they are tokenised.
    model: the policy at the start: a folder or the sizes of a new model.
    sampling: how the policy answers.
    source: where the rewards come from.
    policy: what is learned from the responses of an iteration, and how often.
    critic: who predicts the return.
    kl: the pull towards the reference policy.
    reward: scale and shaping of the rewards.
    welfare: how the groups' rewards become one.
    optimizer: AdamW and its schedule, of the policy.
    critic_optimizer: the same of a separate critic, else None.
    train: iterations, prompts, evaluations and checkpoints.
    mesh: devices per axis.
    judge: a second source, such as the true utilities of a synthetic crowd,
      that only evaluations ask: it shows whether the policy exploits its
      rewards. None for none.
    reference: folder of the policy that KL is measured from, such as the
      fine-tuned one that the first of several rounds started from; None for
      the policy at the start of this run.
    texts: what the policy keeps predicting, weighed by `policy.text_coef`; None
      for nothing.
  """

  seed: int = 0
  data: prompts.PromptConfig
  model: model.BackboneConfig
  sampling: sampling.SamplingConfig
  source: reward_source.RewardSourceConfig
  policy: PolicyConfig = PolicyConfig()
  critic: CriticConfig = CriticConfig()
  kl: KLConfig = KLConfig()
  reward: RewardConfig = RewardConfig()
  welfare: WelfareConfig = WelfareConfig()
  optimizer: optimizers.OptimizerConfig
  critic_optimizer: optimizers.OptimizerConfig | None = None
  train: IterationConfig
  mesh: meshes.MeshConfig = meshes.MeshConfig()
  judge: reward_source.RewardSourceConfig | None = None
  reference: str | None = None
  texts: TextsConfig | None = None

  def __post_init__(self) -> None:
    """Raises ValueError for sections that contradict each other."""
    if (self.critic_optimizer is None) == (self.critic.kind == "separate"):
      raise ValueError(
        "critic_optimizer must be set exactly where critic.kind is 'separate', "
        f"got {self.critic_optimizer} with {self.critic.kind!r}"
      )
    if not self.source.names:
      raise ValueError(
        "source.names must name the outputs of the source, such as the groups"
      )
    self.learner.check_responses(self.sampling.num_responses)
    if (self.texts is None) != (self.policy.text_coef is None):
      raise ValueError(
        "texts and policy.text_coef are set together, got "
        f"{self.texts} and {self.policy.text_coef}"
      )
    warmup = self.critic.warmup_iterations
    if warmup >= self.train.num_iterations:
      raise ValueError(
        "critic.warmup_iterations must be < train.num_iterations, got "
        f"{warmup} and {self.train.num_iterations}"
      )
    if self.texts is not None:
      self.texts.section(self.data)  # which has checks of its own

  @property
  def learner(self) -> LearnerConfig:
    """What the learner reads of it."""
    return LearnerConfig(
      policy=self.policy,
      critic=self.critic,
      kl=self.kl,
      reward=self.reward,
      welfare=self.welfare,
      groups=self.source.names,
    )
