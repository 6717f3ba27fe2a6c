"""Config of the synthetic crowd, checked before anyone votes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxalign.ops import checks

TASTES = ("warmth", "brevity", "topic", "none")


@dataclasses.dataclass(frozen=True)
class CrowdConfig:
  """Config of a synthetic crowd: groups, preferences, people and noise.

  A member of group g prefers response a to b with probability
    (1 - label_noise) sigmoid((u_g(a) - u_g(b)) / temperature)
      + label_noise / 2
    u_g = scale ((1 - overlap) own_g + overlap topic)
    own_g = (1 - drift t) taste_g + drift t taste_(g+1)
  with the qualities of `texts`; taste "none" votes by a fair coin. Time t
  runs from 0 to 1 over the training split, the test split is asked at 1, and
  the group after the last is the first.

  Attributes:
    groups: names.
    tastes: what each group wants: "warmth", "brevity", "topic" or "none".
    shares: of each group among annotators, sum 1.
    scale: utility per unit of quality.
    temperature: of the votes, > 0.
    overlap: weight in [0, 1] of what all groups agree on, staying on topic.
    label_noise: share in [0, 1) of votes replaced by a fair coin.
    drift: share in [0, 1] by which each group has taken over the next group's
      taste when the training split ends.
    num_annotators: people in the training split.
    num_test_annotators: other people, in the test split.
    pairs_per_annotator: votes each of them casts.
    votes_per_pair: people, of any group, shown the same pair.
    aggregate: one record per pair with its votes, instead of one per vote.
    judge: whether records have a `judge_prob`, how likely their group prefers
      the first response when no vote is replaced by a coin.
    labels: whether responses are labelled as well, helpful and harmless or not;
      see `votes.label_probs`.
    label_votes: people who label each response; 0 for the whole crowd.
    seed: of texts, people and votes.
  """

  groups: tuple[str, ...] = ("warm", "brief")
  tastes: tuple[str, ...] = ("warmth", "brevity")
  shares: tuple[float, ...] = (0.8, 0.2)
  scale: float = 4.0
  temperature: float = 0.5
  overlap: float = 0.2
  label_noise: float = 0.0
  drift: float = 0.0
  num_annotators: int = 200
  num_test_annotators: int = 50
  pairs_per_annotator: int = 20
  votes_per_pair: int = 1
  aggregate: bool = False
  judge: bool = False
  labels: bool = False
  label_votes: int = 0
  seed: int = 0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for knobs out of range."""
    if not len(self.groups) == len(self.tastes) == len(self.shares) > 0:
      raise ValueError(
        "groups, tastes and shares must have one entry per group, got "
        f"{len(self.groups)}, {len(self.tastes)} and {len(self.shares)}"
      )
    for taste in self.tastes:
      checks.one_of(TASTES, tastes=taste)
    if min(self.shares) <= 0.0 or abs(sum(self.shares) - 1.0) > 1e-6:
      raise ValueError(
        f"shares must be positive and sum to 1, got {self.shares}"
      )
    if self.temperature <= 0.0 or self.scale <= 0.0:
      raise ValueError(
        "temperature and scale must be > 0, got "
        f"{self.temperature} and {self.scale}"
      )
    checks.within(0, 1, overlap=self.overlap, drift=self.drift)
    if not 0.0 <= self.label_noise < 1.0:
      raise ValueError(f"label_noise must be in [0, 1), got {self.label_noise}")
    checks.at_least(
      1,
      pairs_per_annotator=self.pairs_per_annotator,
      votes_per_pair=self.votes_per_pair,
    )
    if self.label_votes < 0 or (self.label_votes and not self.labels):
      raise ValueError(
        "label_votes must be >= 0, and 0 without labels, got "
        f"{self.label_votes} with labels={self.labels}"
      )
    for name, number in (
      ("num_annotators", self.num_annotators),
      ("num_test_annotators", self.num_test_annotators),
    ):
      if number % self.votes_per_pair or number < len(self.groups):
        raise ValueError(
          f"{name} must be divisible by votes_per_pair and at least the number "
          f"of groups, got {number}, {self.votes_per_pair} and "
          f"{len(self.groups)}"
        )


def with_knobs(config: CrowdConfig, knobs: Sequence[str]) -> CrowdConfig:
  """A crowd config with some fields replaced.

  Args:
    config: the crowd to begin with.
    knobs: KNOB=VALUE each; one value per group is joined by slashes.

  Returns:
    The changed crowd.

  Raises:
    ValueError: an unknown knob, or a value that is not of its kind or range.
  """
  changes: dict[str, Any] = {}
  for knob in knobs:
    name, equals, text = knob.partition("=")
    checks.one_of([f.name for f in dataclasses.fields(config)], knob=name)
    if not equals or name in changes:
      raise ValueError(f"knobs are KNOB=VALUE, each once, got {knob!r}")
    changes[name] = _parse(name, text, config.__getattribute__(name))
  return dataclasses.replace(config, **changes)


def _parse(name: str, text: str, old: Any) -> Any:
  """`text` as a value of the kind of `old`."""
  if isinstance(old, tuple):
    return tuple(_parse(name, part, old[0]) for part in text.split("/"))
  if isinstance(old, str):
    return text
  if isinstance(old, bool):
    if text not in ("true", "false"):
      raise ValueError(f"{name} must be true or false, got {text!r}")
    return text == "true"
  try:
    return type(old)(text)
  except ValueError:
    kind = "a whole number" if isinstance(old, int) else "a number"
    raise ValueError(f"{name} must be {kind}, got {text!r}") from None
