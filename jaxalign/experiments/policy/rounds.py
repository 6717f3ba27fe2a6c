"""Rounds of policy training, each from the last: utility after every round.

Every round logs what its answers to the same held-out prompts are truly worth
to each group, and what the reward of that round says of them. Where the reward
gains and the truth does not, the policy has outlearned the reward.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxalign.experiments.policy import fairness

REWARD = "eval/mean_utility"  # what the round's own reward says


@dataclasses.dataclass(frozen=True)
class RoundsConfig:
  """Policy runs that are rounds of one training.

  Attributes:
    policies: steps of stage `train_policy`, each starting from the one before,
      all with one reference.
    prefix: of the metrics that hold each group's true utility.
  """

  policies: tuple[str, ...]
  prefix: str = "eval/judge/"

  def __post_init__(self) -> None:
    """Raises ValueError unless there are different policies."""
    if not self.policies or len({*self.policies}) < len(self.policies):
      raise ValueError(
        f"policies must be one or more different steps, got {self.policies}"
      )


def trace(workdir: epath.Path, config: RoundsConfig) -> dict[str, Any]:
  """Utilities, KL and reward before and after each round.

  Args:
    workdir: of the pipeline.
    config: which policies, and the metrics' names.

  Returns:
    `groups`, and `rounds` in their order: `policy`, `curve` {"kl": [...],
    "reward": [...], "utilities": {group: [...]}}, and `start` and `end` {"kl",
    "reward", "utilities": {group: ...}, "worst": the least of them}.

  Raises:
    ValueError: a policy logged no utilities, or others than the first one.
  """
  rounds: list[dict[str, Any]] = []
  groups: list[str] = []
  for name in config.policies:
    path = workdir / name / "metrics.jsonl"
    utilities = fairness.curve_of(path, config.prefix)
    distance = utilities.pop("kl")
    found = [*utilities]
    if groups and found != groups:
      raise ValueError(
        f"{path} has utilities of {', '.join(found)}, the first round of "
        f"{', '.join(groups)}"
      )
    groups = found
    curve = {
      "kl": distance.tolist(),
      "reward": fairness.column_of(path, REWARD).tolist(),
      "utilities": {g: column.tolist() for g, column in utilities.items()},
    }
    rounds.append(
      {
        "policy": name,
        "curve": curve,
        "start": _at(curve, 0),
        "end": _at(curve, -1),
      }
    )
  return {"groups": groups, "rounds": rounds}


def _at(curve: Mapping[str, Any], place: int) -> dict[str, Any]:
  """One evaluation."""
  utilities = {g: column[place] for g, column in curve["utilities"].items()}
  return {
    "kl": curve["kl"][place],
    "reward": curve["reward"][place],
    "utilities": utilities,
    "worst": min(utilities.values()),
  }
