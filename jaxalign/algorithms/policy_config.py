"""Policy config: settings of a policy learner, checked before compilation."""

import dataclasses

from jaxalign.algorithms.group_weights import WelfareConfig
from jaxalign.algorithms.kl_control import KLConfig
from jaxalign.algorithms.reward_shaping import RewardConfig
from jaxalign.ops import checks

GROUP_RELATIVE = ("rloo", "grpo", "dr_grpo", "gdpo")
PAIRWISE = ("dpo", "group_dpo")
KINDS = ("ppo", *GROUP_RELATIVE, *PAIRWISE)
AGGREGATIONS = ("token_mean", "sequence_mean", "sequence_sum", "max_length")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Policy update: algorithm, clipping, epochs and minibatches.

  Attributes:
    kind: "ppo" (advantages from a critic); "rloo", "grpo" or "dr_grpo"
      (advantages over the other responses to a prompt); "gdpo" (the same for
      each group's reward by itself, then summed by the groups' weights and
      whitened over the responses of the batch); "dpo" (the best against
      the worst response to a prompt) or "group_dpo" (the same for each group,
      weighted by how badly it is fitted).
    clip_eps: range of the probability ratio, > 0; None with dpo. 0.2 is that of
      TRL, verl and OpenRLHF.
    clip_eps_high: range above 1, > 0; None for that of clip_eps. DAPO has 0.28
      ("clip-higher").
    dual_clip: bound on the loss of bad tokens, > 1, or None.
    entropy_coef: weight of the entropy bonus, > 0, or None.
    whiten: bring the advantages of the whole batch to mean 0, variance 1, as
      TRL and tunix do.
    aggregation: weight of a token: "token_mean" 1 / tokens of the batch,
      "sequence_mean" 1 / (responses · tokens of its response), "sequence_sum"
      1 / responses, "max_length" 1 / (responses · longest possible).
    importance_limit: largest weight that makes up for a sampler whose
      probabilities are not the learner's, or None for no correction.
    epochs: passes over an iteration's responses; TRL has 4.
    minibatches: optimiser steps per pass; divides the prompts. TRL has 1.
    stop_kl: mean KL per token from the policy that sampled, in nats, beyond
      which the rest of the iteration's steps change nothing; None is off.
    text_coef: weight, beside the policy's loss, of the mean negative
      log-likelihood per token of texts that come with each iteration, > 0
      (PPO-ptx; InstructGPT has 27.8); None for no texts.
  """

  kind: str = "ppo"
  clip_eps: float | None = 0.2
  clip_eps_high: float | None = None
  dual_clip: float | None = None
  entropy_coef: float | None = None
  whiten: bool = True
  aggregation: str = "token_mean"
  importance_limit: float | None = None
  epochs: int = 4
  minibatches: int = 1
  stop_kl: float | None = None
  text_coef: float | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(KINDS, kind=self.kind)
    checks.above(0, text_coef=self.text_coef)
    checks.one_of(AGGREGATIONS, aggregation=self.aggregation)
    checks.above(
      0,
      clip_eps=self.clip_eps,
      clip_eps_high=self.clip_eps_high,
      entropy_coef=self.entropy_coef,
      importance_limit=self.importance_limit,
      stop_kl=self.stop_kl,
    )
    if self.dual_clip is not None and not self.dual_clip > 1:
      raise ValueError(f"dual_clip must be > 1 or None, got {self.dual_clip}")
    checks.at_least(1, epochs=self.epochs, minibatches=self.minibatches)
    if self.kind == "gdpo" and self.whiten:
      raise ValueError(
        "whiten must be False with kind 'gdpo', which whitens by response"
      )
    if self.kind not in PAIRWISE and self.clip_eps is None:
      raise ValueError(f"kind {self.kind!r} needs clip_eps")
    if self.kind in PAIRWISE:
      for name in (
        "clip_eps",
        "clip_eps_high",
        "dual_clip",
        "entropy_coef",
        "importance_limit",
        "text_coef",
      ):
        if self.__dict__[name] is not None:
          raise ValueError(
            f"{name} must be None with kind {self.kind!r}, got "
            f"{self.__dict__[name]}"
          )
      if self.whiten:
        raise ValueError(f"whiten must be False with kind {self.kind!r}")


@dataclasses.dataclass(frozen=True)
class CriticConfig:
  """Critic: where it starts and what it predicts; None with kind "none".

  Attributes:
    kind: "separate" (a network of its own), "shared" (a head on the policy's
      trunk) or "none".
    init_from: folder that a separate critic starts from, of a language model or
      of a reward model with one output, whose head then predicts the return;
      None for the policy's.
    coef: weight of the value loss beside the policy's, of "shared" alone.
    clip: how far a value may move from its old one, in reward units, > 0; None
      is off, as it is with `num_atoms`.
    discount: γ in [0, 1].
    gae_lambda: λ in [0, 1]; 0.95 is that of TRL and tunix.
    num_atoms: returns over which a distributional critic spreads mass, whose
      mean is the value, >= 2; None predicts the mean alone.
    low: the least of them, in units of the return, which is what is left of the
      shaped scores and the KL penalties in the reward.
    high: the greatest of them; the rest lie evenly between.
    num_labels: of a source that predicts labels, whose shares are then the
      distribution of a finished answer's score, by the labels' values; None for
      a score that is its mean. With `num_atoms` alone.
    warmup_iterations: first iterations in which a separate critic learns alone:
      the policy, the coefficient of the KL and the groups' weights stay.
  """

  kind: str = "separate"
  init_from: str | None = None
  coef: float | None = None
  clip: float | None = 0.2
  discount: float | None = 1.0
  gae_lambda: float | None = 0.95
  num_atoms: int | None = None
  low: float | None = None
  high: float | None = None
  num_labels: int | None = None
  warmup_iterations: int = 0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value spare or out of range."""
    checks.one_of(("separate", "shared", "none"), kind=self.kind)
    checks.at_least(0, warmup_iterations=self.warmup_iterations)
    if self.warmup_iterations and self.kind != "separate":
      raise ValueError(
        "warmup_iterations must be 0 unless kind is 'separate', which can "
        f"learn alone, got {self.warmup_iterations} with {self.kind!r}"
      )
    readers = {
      "init_from": ("separate",),
      "coef": ("shared",),
      "clip": ("separate", "shared"),
      "discount": ("separate", "shared"),
      "gae_lambda": ("separate", "shared"),
      "num_atoms": ("separate", "shared"),
    }
    for name, kinds in readers.items():
      value = self.__dict__[name]
      if value is not None and self.kind not in kinds:
        raise ValueError(
          f"{name} must be None with kind {self.kind!r}, got {value!r}"
        )
    if self.kind == "shared" and self.coef is None:
      raise ValueError("kind 'shared' needs coef")
    checks.above(0, coef=self.coef, clip=self.clip)
    decay = {"discount": self.discount, "gae_lambda": self.gae_lambda}
    for name, value in decay.items():
      if self.kind != "none" and value is None:
        raise ValueError(f"{name} must be in [0, 1], got None")
    checks.within(0, 1, **decay)
    self._check_atoms()

  @property
  def span(self) -> tuple[float, float] | None:
    """The least and the greatest atom, None where the mean is predicted."""
    if self.low is None or self.high is None:
      return None
    return self.low, self.high

  def _check_atoms(self) -> None:
    """Raises ValueError unless atoms have a range and values no clip."""
    if len({self.num_atoms is None, self.low is None, self.high is None}) > 1:
      raise ValueError(
        "num_atoms, low and high are set together, got "
        f"{self.num_atoms}, {self.low} and {self.high}"
      )
    if self.num_atoms is None or self.span is None:
      if self.num_labels is not None:
        raise ValueError(
          "num_labels goes with num_atoms alone, which hold a distribution, "
          f"got {self.num_labels}"
        )
      return
    checks.at_least(2, num_labels=self.num_labels)
    if self.num_atoms < 2:
      raise ValueError(f"num_atoms must be >= 2 or None, got {self.num_atoms}")
    if not self.span[0] < self.span[1]:
      raise ValueError(f"low must be < high, got {self.low} and {self.high}")
    if self.clip is not None:
      raise ValueError(
        "clip must be None with num_atoms, which predict no single value, got "
        f"{self.clip}"
      )


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
  """All settings of a policy learner, checked across sections.

  Attributes:
    policy: what is learned.
    critic: who predicts the return.
    kl: the pull towards the reference.
    reward: scale and shaping of the score.
    welfare: whose score counts how much.
    groups: names of the K scores.
  """

  policy: PolicyConfig
  critic: CriticConfig
  kl: KLConfig
  reward: RewardConfig
  welfare: WelfareConfig
  groups: tuple[str, ...]

  def __post_init__(self) -> None:
    """Raises ValueError for sections that contradict each other."""
    kind = self.policy.kind
    if not self.groups or len(set(self.groups)) < len(self.groups):
      raise ValueError(
        f"groups must be one or more different names, got {self.groups}"
      )
    self.welfare.check_groups(len(self.groups))
    if (kind == "ppo") == (self.critic.kind == "none"):
      raise ValueError(
        "critic.kind must be 'none' exactly where policy.kind is not 'ppo', "
        f"got {self.critic.kind!r} with {kind!r}"
      )
    if kind in PAIRWISE and (
      self.kl.place != "loss"
      or self.kl.controller != "fixed"
      or not self.kl.coef
    ):
      raise ValueError(
        f"kind {kind!r} takes kl.coef as its beta: kl must have place='loss', "
        f"controller='fixed' and coef > 0, got {self.kl}"
      )
    if self.critic.num_labels is not None:
      self._check_labels()
    if kind == "gdpo":
      self._check_decoupled()
    if kind == "group_dpo" and self.welfare.kind != "exponentiated":
      raise ValueError(
        "kind 'group_dpo' moves the groups' weights by their losses: "
        f"welfare.kind must be 'exponentiated', got {self.welfare.kind!r}"
      )

  def _check_labels(self) -> None:
    """Raises ValueError unless the score is one, and linear in the reward."""
    if len(self.groups) > 1 or self.reward.clip is not None:
      raise ValueError(
        "critic.num_labels needs one reward and reward.clip None, as the "
        f"labels' values are those of one reward, got {len(self.groups)} "
        f"rewards and {self.reward.clip}"
      )

  def _check_decoupled(self) -> None:
    """Raises ValueError for what would need one reward per response."""
    needed = {
      "kl.place": (self.kl.place, "loss"),
      "reward.scale": (self.reward.scale, "none"),
      "reward.clip": (self.reward.clip, None),
    }
    for name, (got, wanted) in needed.items():
      if got != wanted:
        raise ValueError(
          f"{name} must be {wanted!r} with policy.kind 'gdpo', which "
          f"normalises each reward by itself, got {got!r}"
        )
    if self.welfare.kind == "sample_min":
      raise ValueError(
        "welfare.kind must not be 'sample_min' with policy.kind 'gdpo', which "
        "sums the rewards by the groups' weights"
      )

  @property
  def one_step(self) -> bool:
    """Whether an iteration's one step begins at the policy that sampled.

    And nothing before that step reads this policy's own log-probabilities: the
    forward pass of the step itself then gives them.
    """
    return (
      self.policy.kind in GROUP_RELATIVE
      and self.policy.epochs * self.policy.minibatches == 1
      and self.policy.importance_limit is None
      and self.kl.place == "loss"
      and self.kl.controller == "fixed"
    )

  def check_responses(self, number: int) -> None:
    """Raises ValueError unless `number` responses to a prompt are enough."""
    least = 1 if self.policy.kind == "ppo" else 2
    if number < least:
      raise ValueError(
        f"policy.kind {self.policy.kind!r} needs at least {least} responses to "
        f"a prompt, got {number}"
      )
