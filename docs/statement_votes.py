"""Votes on statements: who thinks what of which, and pairs that follow."""

import collections
import csv
import gzip
import json
from typing import NamedTuple

import numpy as np

from jaxalign.data.adapters import base, item_votes
from jaxalign.data.adapters.local_votes import dialogue
from jaxalign.experiments.reward_model import latent_groups

MISSING = -2  # in place of a vote: 1 agrees, -1 disagrees, 0 passes
BLOCK = 4096  # pairs; whole blocks, so that seeds share compiled programs
LEAST = 5  # people of a group that is looked at


class Votes(NamedTuple):
  """One conversation.

  Attributes:
    texts: (prompt, statement), [I].
    people: names, [U].
    value: of each person's vote on each statement, int8 [U, I].
    group: as published, −1 for none; 0 is the largest, int [U].
  """

  texts: list[tuple[str, str]]
  people: list[str]
  value: np.ndarray
  group: np.ndarray


def read(folder: str, conversation: str) -> Votes:
  """The votes of one conversation, passes too.

  Args:
    folder: with `statements.jsonl.gz`, `conversations.json`, `votes.csv.gz`.
    conversation: its name.

  Returns:
    People by name, statements in the order of the file, each text once.
  """
  with open(f"{folder}/conversations.json", encoding="utf-8") as file:
    topic = json.load(file)[conversation]["topic"]
  prompt = dialogue(f"{topic}\n{item_votes.QUESTION}")
  texts: dict[str, int] = {}
  number = {}
  with gzip.open(f"{folder}/statements.jsonl.gz", "rt", encoding="utf-8") as f:
    for line in f:
      row = json.loads(line)
      if row["conversation"] == conversation:
        text = row["text"].strip()
        number[str(row["id"])] = texts.setdefault(text, len(texts))
  found: dict[str, dict[int, int]] = collections.defaultdict(dict)
  groups = {}
  with gzip.open(f"{folder}/votes.csv.gz", "rt", encoding="utf-8") as file:
    for row in csv.DictReader(file):
      if row["conversation"] == conversation:
        who = row["participant"]
        found[who].setdefault(number[row["statement"]], int(row["vote"]))
        groups[who] = row["group"]
  people = sorted(found)
  value = np.full((len(people), len(texts)), MISSING, np.int8)
  for u, who in enumerate(people):
    value[u, [*found[who]]] = [*found[who].values()]
  named = collections.Counter(group for group in groups.values() if group)
  place = {group: n for n, (group, _) in enumerate(named.most_common())}
  group = np.array([place.get(groups[who], -1) for who in people])
  return Votes(
    [(prompt, f" {text}") for text in texts],
    [f"{conversation}/{who}" for who in people],
    value,
    group,
  )


def pairs(
  votes: Votes, new: np.ndarray, seed: int, most: int = 20
) -> latent_groups.Judged:
  """What each person agreed with against what they disagreed with.

  Args:
    votes: the conversation.
    new: the side of a split that each statement is on, bool [I]; both
      statements of a pair are on one side.
    seed: of the draw.
    most: pairs of a person on each side.

  Returns:
    The pairs, as the adapter of such votes makes them, and after them pairs of
    nobody, of user −1, to the end of a block.
  """
  side = {text[1:]: int(new[i]) for i, (_, text) in enumerate(votes.texts)}
  number = {text: i for i, (_, text) in enumerate(votes.texts)}
  items = [
    item_votes.Item(str(i), text[1:], prompt)
    for i, (prompt, text) in enumerate(votes.texts)
  ]
  cast = (
    item_votes.Vote("", who, items[i], int(votes.value[u, i]), {})
    for u, who in enumerate(votes.people)
    for i in np.flatnonzero(votes.value[u] != MISSING)
  )
  draw = base.Draw(most, seed, side.__getitem__)
  user = {who: u for u, who in enumerate(votes.people)}
  rows = [row for _, row in item_votes.pairs(cast, draw)]
  rest = -len(rows) % BLOCK
  column = lambda name, of, fill=0: np.array(
    [of[row[name]] for row in rows] + rest * [fill], np.int32
  )
  return latent_groups.Judged(
    votes.texts,
    column("chosen", number),
    column("rejected", number),
    column("annotator", user, -1),
    votes.people,
    [str(group) if group >= 0 else None for group in votes.group],
    0,
  )
