"""Synthetic annotator crowd whose groups want different things, from a seed.

Records can also come as unlabelled candidates, with a second judge who knows
the truth, or with a label distribution per response.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxalign.data.records.record import Record
from jaxalign.data.synthetic import habits, texts
from jaxalign.data.synthetic.config import CrowdConfig, with_knobs
from jaxalign.data.synthetic.votes import label_probs as label_probs
from jaxalign.data.synthetic.votes import label_shares as label_shares
from jaxalign.data.synthetic.votes import utilities as utilities
from jaxalign.data.synthetic.votes import vote_probs as vote_probs
from jaxalign.ops import checks

SPLITS = ("train", "test")

PRESETS: dict[str, CrowdConfig] = {
  "two_groups": CrowdConfig(),
  # The control: the same people and groups, one taste.
  "one_taste": CrowdConfig(tastes=("warmth", "warmth")),
  "noise_group": CrowdConfig(
    groups=("warm", "brief", "noise"),
    tastes=("warmth", "brevity", "none"),
    shares=(0.6, 0.2, 0.2),
  ),
  "three_groups": CrowdConfig(
    groups=("warm", "brief", "exact"),
    tastes=("warmth", "brevity", "topic"),
    shares=(0.5, 0.3, 0.2),
    overlap=0.0,
  ),
  # The majority of the last sitting no longer wants what it wanted at first.
  "drift": CrowdConfig(drift=1.0),
  "votes": CrowdConfig(votes_per_pair=10, aggregate=True),
  # Two groups that label one and the same response differently.
  "labels": CrowdConfig(
    shares=(0.6, 0.4), temperature=1.0, labels=True, label_votes=10
  ),
  # Signed sums of two qualities, and of one.
  "eight_groups": CrowdConfig(
    groups=(
      "warm",
      "cold",
      "brief",
      "long",
      "friends",
      "fans",
      "clerks",
      "critics",
    ),
    tastes=(
      "warmth",
      "-warmth",
      "brevity",
      "-brevity",
      "warmth+brevity",
      "warmth-brevity",
      "brevity-warmth",
      "-warmth-brevity",
    ),
    shares=(0.125,) * 8,
    num_annotators=400,
    num_test_annotators=80,
  ),  # fmt: skip
}


def preset(name: str, *, seed: int = 0) -> CrowdConfig:
  """The crowd called `name`, drawn from `seed`."""
  checks.one_of(PRESETS, preset=name)
  return dataclasses.replace(PRESETS[name], seed=seed)


def records_of(spec: str, *, seed: int) -> list[Record]:
  """The records of NAME[,KNOB=VALUE...][:split], by default of "train".

  A knob is a number or true or false, or one word or number per group joined
  by slashes: `two_groups,overlap=0.5,shares=0.9/0.1:test`. The splits
  "train_candidates" and "test_candidates" hold unlabelled responses.

  Args:
    spec: a preset's name, changes to it and the split.
    seed: of texts, people and votes.

  Returns:
    See `draw_records` and `crowd_candidates`.

  Raises:
    ValueError: an unknown preset, knob or split, or a value out of range.
  """
  name, _, split = spec.partition(":")
  people, candidates, rest = split.partition("_candidates")
  if candidates and not rest and people in SPLITS:
    return draw_candidates(crowd_of(name, seed=seed).seed, people)
  return draw_records(crowd_of(name, seed=seed), split=split or "train")


def crowd_of(spec: str, *, seed: int) -> CrowdConfig:
  """The crowd NAME[,KNOB=VALUE...], see `records_of`.

  Raises:
    ValueError: an unknown preset or knob, or a value out of range.
  """
  name, *knobs = spec.split(",")
  return with_knobs(preset(name, seed=seed), knobs)


def draw_records(config: CrowdConfig, *, split: str) -> list[Record]:
  """Preferences of a crowd.

  Args:
    config: the crowd.
    split: "train" or "test": other people about other things.

  Returns:
    One record per vote with its annotator, group, source (the group's name) and
    the position at which the chosen response was shown; with `aggregate` one
    per pair with its votes and source "crowd". They come in the order of
    `record_times`. With `labels` each response also has the labels that other
    people, the same for all records of a pair, gave it. With `judge` each
    has the noise-free probability of its preference.
  """
  checks.one_of(SPLITS, split=split)
  rng = np.random.default_rng([config.seed, SPLITS.index(split)])
  num_people = _num_people(config, split)
  group_of = rng.permutation(_group_of(config.shares, num_people))
  everybody = habits.draw_people(config, group_of, split=SPLITS.index(split))
  shifts = {}
  if split == "test":
    shifts["prompt_shift"] = config.prompt_shift
    shifts["response_shift"] = config.response_shift
  records = []
  for sitting, time in enumerate(_sitting_times(config, split)):
    panels = rng.permutation(num_people).reshape(-1, config.votes_per_pair)
    for number, people in enumerate(panels, sitting * len(panels)):
      prompt, *responses = texts.draw_pair(rng, split, **shifts)
      first_wins = habits.vote_probs(
        config,
        habits.People(*(column[people] for column in everybody)),
        group_of[people],
        (prompt, *responses),
        functools.partial(vote_probs, config, time=time),
      )
      wins = rng.random(len(people)) < first_wins
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
            position=0 if win else 1,
            id=f"{name}-{person:04d}",
          )
        )
  times = record_times(config, split=split)
  if config.judge:
    records = with_judge(config, records, times)
  if not config.labels:
    return records
  # A stream of its own: asking for labels changes no vote.
  return with_labels(
    config,
    records,
    times,
    np.random.default_rng([config.seed, SPLITS.index(split), 2]),
  )


def record_times(config: CrowdConfig, *, split: str) -> np.ndarray:
  """When each of `draw_records` was asked, float64 [N] in [0, 1]."""
  times = _sitting_times(config, split)
  num_people = _num_people(config, split)
  per_sitting = (
    num_people // config.votes_per_pair if config.aggregate else num_people
  )
  return np.repeat(times, per_sitting)


def _sitting_times(config: CrowdConfig, split: str) -> np.ndarray:
  """The training split runs from 0 to 1; the test split is asked at the end."""
  checks.one_of(SPLITS, split=split)
  number = config.pairs_per_annotator
  return np.linspace(0, 1, number) if split == "train" else np.ones(number)


def _num_people(config: CrowdConfig, split: str) -> int:
  if split == "train":
    return config.num_annotators
  return config.num_test_annotators


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


PROMPTS, RESPONSES = 512, 5


def draw_candidates(seed: int, split: str) -> list[Record]:
  """Prompts with different responses of every quality, in no order.

  They have not been compared. They are for what learns without labels, such as
  the meta step of MetaRM, and would be false rankings to anything else.

  Args:
    seed: of the crowd.
    split: "train" or "test", the things that prompts are about.

  Returns:
    `PROMPTS` records of `RESPONSES` responses each, from a stream of its own:
    asking for candidates changes no vote.
  """
  rng = np.random.default_rng([seed, ("train", "test").index(split), 2])
  records = []
  for number in range(PROMPTS):
    prompt, responses = texts.draw_responses(rng, split, RESPONSES)
    records.append(
      Record(
        prompt=prompt,
        responses=responses,
        source="candidates",
        id=f"{split}-candidates-{number:04d}",
      )
    )
  return records


def with_judge(
  config: CrowdConfig,
  records: Sequence[Record],
  times: Sequence[float] | np.ndarray,
) -> list[Record]:
  """The records with `judge_prob`, what they say without label noise.

  Args:
    config: the crowd.
    records: pairs in the order drawn.
    times: when each was asked.

  Returns:
    The same records; one that names its group has that group's probability, one
    of pooled votes the whole crowd's.
  """
  clear = dataclasses.replace(config, label_noise=0.0)
  found = []
  for record, time in zip(records, times, strict=True):
    probs = vote_probs(clear, record.prompt, *record.responses, time=time)
    if record.group is None:
      prob = float(np.asarray(config.shares) @ probs)
    else:
      prob = float(probs[config.groups.index(record.group)])
    found.append(dataclasses.replace(record, judge_prob=prob))
  return found


def with_labels(
  config: CrowdConfig,
  records: Sequence[Record],
  times: Sequence[float] | np.ndarray,
  rng: np.random.Generator,
) -> list[Record]:
  """The records, each response labelled by people of the crowd.

  Args:
    config: `label_votes` people, of all groups, label each response; with 0
      `labels` is what the whole crowd would say, the truth of all estimates.
    records: in the order drawn; those of one pair share their labels.
    times: when each was asked.
    rng: source of the votes.

  Returns:
    The same records with `labels`, and with `label_votes` where people voted.
  """
  known: dict[tuple[str, str], np.ndarray] = {}
  found = []
  for record, time in zip(records, times, strict=True):
    prompt = str(record.prompt)
    # By name: which response was preferred must not decide who is asked first.
    for text in sorted(map(str, record.responses)):
      if (prompt, text) not in known:
        shares = label_shares(config, prompt, text, time=time)
        known[prompt, text] = (
          rng.multinomial(config.label_votes, shares)
          if config.label_votes
          else shares
        )
    rows = [known[prompt, str(text)] for text in record.responses]
    labels = tuple(tuple((row / row.sum()).tolist()) for row in rows)
    votes = None
    if config.label_votes:
      votes = tuple(tuple(row.tolist()) for row in rows)
    found.append(dataclasses.replace(record, labels=labels, label_votes=votes))
  return found
