"""Config of the synthetic crowd, checked before anyone votes."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from jaxalign.ops import checks

QUALITIES = ("warmth", "brevity", "topic")
# Of people, in the order in which they are dealt out.
HABITS = ("careless", "by_length", "by_position", "in_two_groups")


def taste_weights(taste: str) -> tuple[float, ...] | None:
  """How much a taste values each of `QUALITIES`, a vector of length 1.

  Args:
    taste: a quality, or several with their signs, such as "warmth-brevity" or
      "-topic"; or "none".

  Returns:
    The weights; None for "none".

  Raises:
    ValueError: an unknown quality, or one twice.
  """
  if taste == "none":
    return None
  terms = re.findall(r"([+-]?)([^+-]+)", taste)
  names = [name for _, name in terms]
  whole = "".join(sign + name for sign, name in terms)
  if whole != taste or not names or len({*names}) < len(names):
    raise ValueError(
      f"tastes must be qualities with signs, each once, got {taste!r}"
    )
  for name in names:
    checks.one_of((*QUALITIES, "none"), tastes=name)
  if "none" in names:
    raise ValueError(f"taste 'none' stands alone, got {taste!r}")
  signs = {name: -1.0 if sign == "-" else 1.0 for sign, name in terms}
  length = len(signs) ** 0.5
  return tuple(signs.get(name, 0.0) / length for name in QUALITIES)


@dataclasses.dataclass(frozen=True)
class CrowdConfig:
  """Config of a synthetic crowd: groups, preferences, people and noise.

  A member of group g prefers response a to b with probability
    (1 - label_noise) sigmoid((u_g(a) - u_g(b)) / temperature)
      + label_noise / 2
    u_g = scale ((1 - overlap) own_g + overlap topic)
    own_g = (1 - drift t) taste_g + drift t taste_(g+1)
  with the qualities of `texts`; taste "none" votes by a fair coin, and a taste
  of several qualities, "warmth-brevity", is their signed sum over the root of
  their number. Time t runs from 0 to 1 over the training split, the test split
  is asked at 1, and the group after the last is the first.

  Attributes:
    groups: names.
    tastes: what each group wants: "warmth", "brevity", "topic", signed sums of
      these such as "-warmth" or "warmth-brevity", or "none".
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
    careless: share of people who read the beginning of a response alone; this
      share and the next three are of different people, see `habits`.
    by_length: share of people who prefer what is longer.
    by_position: share of people who prefer what is shown first.
    in_two_groups: share of people who vote as often by the taste of another
      group as by that of their own, which their records name.
    prompt_shift: share in [0, 1] of the test split's prompts that ask for what
      no training prompt does.
    response_shift: how far in [0, 1] the responses of the test split have moved
      from those of training to what a policy writes that has found out that
      warmth is rewarded; see `texts`.
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
  careless: float = 0.0
  by_length: float = 0.0
  by_position: float = 0.0
  in_two_groups: float = 0.0
  prompt_shift: float = 0.0
  response_shift: float = 0.0
  seed: int = 0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for knobs out of range."""
    if not len(self.groups) == len(self.tastes) == len(self.shares) > 0:
      raise ValueError(
        "groups, tastes and shares must have one entry per group, got "
        f"{len(self.groups)}, {len(self.tastes)} and {len(self.shares)}"
      )
    for taste in self.tastes:
      taste_weights(taste)
    if min(self.shares) <= 0.0 or abs(sum(self.shares) - 1.0) > 1e-6:
      raise ValueError(
        f"shares must be positive and sum to 1, got {self.shares}"
      )
    if self.temperature <= 0.0 or self.scale <= 0.0:
      raise ValueError(
        "temperature and scale must be > 0, got "
        f"{self.temperature} and {self.scale}"
      )
    checks.within(
      0,
      1,
      overlap=self.overlap,
      drift=self.drift,
      prompt_shift=self.prompt_shift,
      response_shift=self.response_shift,
      **{name: self.share_of(name) for name in HABITS},
    )
    if sum(map(self.share_of, HABITS)) > 1 + 1e-9:
      raise ValueError(
        f"{', '.join(HABITS)} are shares of different people and must sum to 1 "
        f"at most, got {[*map(self.share_of, HABITS)]}"
      )
    if self.in_two_groups and len(self.groups) < 2:
      raise ValueError("in_two_groups needs two groups, got one")
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

  def share_of(self, habit: str) -> float:
    """The share of people with one of `HABITS`."""
    return float(self.__dict__[habit])


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
