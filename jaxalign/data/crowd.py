"""A synthetic crowd whose groups want different things, from a seed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.data import textworld
from jaxalign.data.record import Record
from jaxalign.ops import checks

TASTES = ("warmth", "brevity", "none")
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class CrowdConfig:
  """Who votes on what.

  A member of group g prefers response a to b with probability
    (1 - label_noise) sigmoid((u_g(a) - u_g(b)) / temperature)
      + label_noise / 2
    u_g = scale ((1 - overlap) taste_g + overlap topic)
  with the qualities of `textworld`; taste "none" votes by a fair coin.

  Attributes:
    groups: names.
    tastes: what each group wants: "warmth", "brevity" or "none".
    shares: of each group among annotators, sum 1.
    scale: utility per unit of quality.
    temperature: of the votes, > 0.
    overlap: weight in [0, 1] of what all groups agree on, staying on topic.
    label_noise: share in [0, 1) of votes replaced by a fair coin.
    num_annotators: people in the training split.
    num_test_annotators: other people, in the test split.
    pairs_per_annotator: votes each of them casts.
    votes_per_pair: people, of any group, shown the same pair.
    aggregate: one record per pair with its votes, instead of one per vote.
    seed: of texts, people and votes.
  """

  groups: tuple[str, ...] = ("warm", "brief")
  tastes: tuple[str, ...] = ("warmth", "brevity")
  shares: tuple[float, ...] = (0.8, 0.2)
  scale: float = 4.0
  temperature: float = 0.5
  overlap: float = 0.2
  label_noise: float = 0.0
  num_annotators: int = 200
  num_test_annotators: int = 50
  pairs_per_annotator: int = 20
  votes_per_pair: int = 1
  aggregate: bool = False
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
    if not 0.0 <= self.overlap <= 1.0:
      raise ValueError(f"overlap must be in [0, 1], got {self.overlap}")
    if not 0.0 <= self.label_noise < 1.0:
      raise ValueError(f"label_noise must be in [0, 1), got {self.label_noise}")
    for name in ("pairs_per_annotator", "votes_per_pair"):
      if self.__getattribute__(name) < 1:
        raise ValueError(
          f"{name} must be >= 1, got {self.__getattribute__(name)}"
        )
    for name in ("num_annotators", "num_test_annotators"):
      number = self.__getattribute__(name)
      if number % self.votes_per_pair or number < len(self.groups):
        raise ValueError(
          f"{name} must be divisible by votes_per_pair and at least the number "
          f"of groups, got {number}, {self.votes_per_pair} and "
          f"{len(self.groups)}"
        )


PRESETS: dict[str, CrowdConfig] = {
  "two_groups": CrowdConfig(),
  # The control: the same people and groups, one taste.
  "one_taste": CrowdConfig(tastes=("warmth", "warmth")),
  "noise_group": CrowdConfig(
    groups=("warm", "brief", "noise"),
    tastes=("warmth", "brevity", "none"),
    shares=(0.6, 0.2, 0.2),
  ),
  "votes": CrowdConfig(votes_per_pair=10, aggregate=True),
}


def preset(name: str, *, seed: int = 0) -> CrowdConfig:
  """The crowd called `name`, drawn from `seed`."""
  checks.one_of(PRESETS, preset=name)
  return dataclasses.replace(PRESETS[name], seed=seed)


def records_of(spec: str, *, seed: int) -> list[Record]:
  """The records of NAME[:split], by default the training split."""
  name, _, split = spec.partition(":")
  return draw_records(preset(name, seed=seed), split=split or "train")


def draw_records(config: CrowdConfig, *, split: str) -> list[Record]:
  """Preferences of a crowd.

  Args:
    config: the crowd.
    split: "train" or "test": other people about other things.

  Returns:
    One record per vote with its annotator, group and source (the group's name);
    with `aggregate` one per pair with its votes and source "crowd".
  """
  checks.one_of(SPLITS, split=split)
  rng = np.random.default_rng([config.seed, SPLITS.index(split)])
  num_people = (
    config.num_annotators if split == "train" else config.num_test_annotators
  )
  group_of = rng.permutation(_group_of(config.shares, num_people))
  records = []
  for sitting in range(config.pairs_per_annotator):
    panels = rng.permutation(num_people).reshape(-1, config.votes_per_pair)
    for number, people in enumerate(panels, sitting * len(panels)):
      prompt, *responses = textworld.draw_pair(rng, split)
      first_wins = vote_probs(config, prompt, responses[0], responses[1])
      wins = rng.random(len(people)) < first_wins[group_of[people]]
      name = f"{split}-{number:06d}"
      if config.aggregate:
        records.append(_counted(name, prompt, responses, wins))
        continue
      for person, win in zip(people, wins, strict=True):
        group = config.groups[group_of[person]]
        chosen, rejected = responses if win else responses[::-1]
        records.append(
          Record(
            prompt=prompt,
            responses=(chosen, rejected),
            source=group,
            annotator=f"{split}-{person:04d}",
            group=group,
            id=f"{name}-{person:04d}",
          )
        )
  return records


def _group_of(shares: Sequence[float], num_people: int) -> np.ndarray:
  """Group per person: rounded shares, one person per group at least."""
  quota = np.asarray(shares) * num_people
  counts = np.maximum(np.floor(quota).astype(int), 1)
  for group in np.argsort(counts - quota, kind="stable"):
    if counts.sum() < num_people:
      counts[group] += 1
  while counts.sum() > num_people:
    counts[np.argmax(counts)] -= 1
  return np.repeat(np.arange(len(shares)), counts)


def _counted(
  name: str, prompt: str, responses: Sequence[str], wins: np.ndarray
) -> Record:
  """One pair with its votes, the majority's choice first."""
  votes = int(wins.sum()), int((~wins).sum())
  order = (0, 1) if votes[0] >= votes[1] else (1, 0)
  return Record(
    prompt=prompt,
    responses=tuple(responses[i] for i in order),
    votes_chosen=votes[order[0]],
    votes_rejected=votes[order[1]],
    n_votes=len(wins),
    source="crowd",
    id=name,
  )


def utilities(config: CrowdConfig, prompt: str, response: str) -> np.ndarray:
  """Utility of a response to each group, float64 [K]; 0 for taste "none"."""
  quality = dict(
    zip(textworld.QUALITIES, textworld.qualities(prompt, response), strict=True)
  )
  own = np.array([quality.get(taste, 0.0) for taste in config.tastes])
  mixed = (1 - config.overlap) * own + config.overlap * quality["topic"]
  votes = np.array([taste != "none" for taste in config.tastes])
  return np.where(votes, config.scale * mixed, 0.0)


def vote_probs(
  config: CrowdConfig, prompt: str, first: str, second: str
) -> np.ndarray:
  """Probability that a member of each group prefers `first`, float64 [K]."""
  gap = utilities(config, prompt, first) - utilities(config, prompt, second)
  clear = 1 / (1 + np.exp(-gap / config.temperature))
  return (1 - config.label_noise) * clear + config.label_noise / 2
