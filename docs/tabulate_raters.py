r"""Latent groups among raters: arguments, posts and replies of a chatbot.

    python docs/tabulate_features.py raters --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/raters --png=raters.png

The study of `tabulate_people` on people who did not choose what to vote on.
Workers said which of two arguments convinces more (convarg, 14 debates, "equal"
left out), raters from five countries whether a post is hate (crehate, "cannot
tell" left out), and 123 raters whether each of 304 replies of a chatbot is
unsafe (dices350). A post that a rater finds no hate is preferred to one that
they find hate, and so with replies: pairs of one person, in which how strict
they are does not count. No text of a person is in two pairs, and of each at
most 60 pairs are drawn, so the first pairs of a person say nothing of the later
ones but by their taste. People are placed by their first 0, 1, 2, 5, 10 or 20
pairs (crehate, where a rater saw 34 posts: up to 10) and scored on those after
the last of these, where they have at least five. Texts are known, people are
new. The layer is 18, that of a study of other people and texts, as a mean over
the text; ridge and number of groups are chosen on the training people. Known
groups are countries; of dices350 and convarg none is published.

Written down before the run. What is claimed to be found (Chakraborty et al.,
2024) are two groups of texts, no figure of people. Known from the audit and the
data's own descriptions: 15.1 % of the variation in convarg lies between
workers, of which chance makes 14.4 %; two raters of crehate agree on 70.3 % of
posts within a country and on 68.7 % across. Claimed here:

1. convarg: one taste in most seeds, and the mixture is within 0.005 of the
   pooled head after any number of pairs.
2. crehate: heads of countries are within 0.01 of the pooled head after ten
   pairs; the mixture is not below them.
3. dices350: with some 90 raters to learn from one taste in most seeds, as in
   conversations with fewer than 100 people.
4. Where two tastes are found in most seeds, twenty pairs (ten in crehate) place
   people better than five do, and the worst tenth gains; elsewhere nothing is
   gained and nothing lost.
5. The two families of personal rewards are no better than the mixture or the
   pooled head, whichever is better, by 0.01 after the most pairs.
6. In the controls, whose votes are drawn anew by a pooled head, one taste is
   chosen in most seeds and no method gains.

The smallest gain that can be shown, 2.8 standard errors over people, is
expected at 0.4 / √people: 0.03 with the 190 of convarg and the 230 of crehate
who can be scored in some of five seeds, and 0.04 with the 90 of dices350; the
table prints what it came to. Of webis_argquality no annotator is known, so it
has no row.
"""

import argparse
import gzip
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import people_tables
import tabulate_people
import tabulate_strength

from jaxalign.data.adapters import item_votes
from jaxalign.data.records import reader
from jaxalign.data.records.chat import text_of
from jaxalign.experiments.reward_model import latent_groups, user_assignment

ROWS = (
  "convarg", "crehate", "dices350", "crehate:control", "dices350:control",
)  # fmt: skip
SHOTS = {"crehate": (0, 1, 2, 5, 10)}
MOST = 60  # pairs of a person
Text = tuple[str, str]


def judged_of(
  pairs: Mapping[str, Sequence[tuple[Text, Text]]],
  groups: Mapping[str, str | None],
) -> latent_groups.Judged:
  """Pairs of people, the preferred text first, as numbers.

  Args:
    pairs: by person; of each at most `MOST` are kept, in an order by hash, and
      none with a text of an earlier one.
    groups: of people, None or left out for none.
  """
  texts: dict[Text, int] = {}
  sides, user = [], []
  people = sorted(pairs)
  for number, person in enumerate(people):
    order = item_votes.drawn(
      f"raters|{person}", len(pairs[person]), len(pairs[person])
    )
    told = [
      [texts.setdefault(text, len(texts)) for text in pairs[person][place]]
      for place in order
    ]
    said = user_assignment.first_said(
      np.zeros(len(told), int), np.array(told).reshape(-1, 2)
    )
    kept = [pair for pair, one in zip(told, said, strict=True) if one][:MOST]
    sides += kept
    user += [number] * len(kept)
  chosen, rejected = np.array(sides, np.int32).T
  return latent_groups.Judged(
    [*texts], chosen, rejected, np.array(user, np.int32), people,
    [groups.get(person) for person in people], 0,
  )  # fmt: skip


def matched(
  person: str, endorsed: Sequence[Text], rejected: Sequence[Text]
) -> list[tuple[Text, Text]]:
  """Pairs of what a person endorsed and what they rejected, each text once.

  Args:
    person: who decides the order, with a hash.
    endorsed: texts.
    rejected: texts.

  Returns:
    As many as the fewer of them.
  """
  some = [
    [one[place] for place in item_votes.drawn(
      f"raters|{person}|{side}", len(one), len(one)
    )]
    for side, one in (("endorsed", endorsed), ("rejected", rejected))
  ]  # fmt: skip
  return [*zip(*some, strict=False)]


def read(folder: str, name: str) -> latent_groups.Judged:
  """Pairs of a source by name, "convarg", "crehate" or "dices350".

  Args:
    folder: of the data.
    name: of the source.
  """
  if name == "convarg":
    found: dict[str, list[tuple[Text, Text]]] = {}
    for record in reader.RecordStream([f"{folder}/convarg/votes_*"]):
      if not record.tie:
        prompt = text_of(record.prompt)
        better, worse = ((prompt, text_of(one)) for one in record.responses[:2])
        found.setdefault(str(record.annotator), []).append((better, worse))
    return judged_of(found, {})
  votes: dict[str, tuple[list[Text], list[Text]]] = {}
  groups: dict[str, str | None] = {}
  read_votes = _crehate if name == "crehate" else _dices
  for person, group, text, rejects in read_votes(folder):
    votes.setdefault(person, ([], []))[rejects].append(text)
    groups[person] = group
  return judged_of(
    {person: matched(person, *sides) for person, sides in votes.items()}, groups
  )


def _crehate(folder: str) -> list[tuple[str, str | None, Text, bool]]:
  """Person, country, post, and whether it is hate to them."""
  found = []
  for record in reader.RecordStream([f"{folder}/crehate/ratings_*"]):
    none, hate, _ = (record.label_votes or ((0, 0, 1),))[0]
    if none or hate:
      text = text_of(record.prompt), text_of(record.responses[0])
      found.append((str(record.annotator), record.group, text, bool(hate)))
  return found


def _dices(folder: str) -> list[tuple[str, str | None, Text, bool]]:
  """Person, no group, reply, and whether it is unsafe to them.

  A rater is a place in `ratings`, the same one in every line.
  """
  file = f"{folder}/dices/dices350.jsonl.gz"
  with gzip.open(file, "rt", encoding="utf-8") as lines:
    ratings = {
      str(row["item_id"]): row["ratings"] for row in map(json.loads, lines)
    }
  found: list[tuple[str, str | None, Text, bool]] = []
  for record in reader.RecordStream([file]):
    text = text_of(record.prompt), text_of(record.responses[0])
    for place, letter in enumerate(ratings[str(record.id)]):
      if letter in "YN":
        found.append((f"rater {place:03d}", None, text, letter == "Y"))
  return found


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a source, with features of its texts."""
  name, _, kind = row.partition(":")
  judged = read(named.data, name)
  study = tabulate_people.Study(
    judged,
    {
      tabulate_strength.LAYER: tabulate_strength.features_of(
        named, judged.texts
      )
    },
    tabulate_people.CONFIG.dimensions,
    SHOTS.get(name, people_tables.MORE_SHOTS),
  )
  return lambda seed: study.seed(seed, control=kind == "control")


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables and draws the picture."""
  found = {row: people_tables.summary(of_row) for row, of_row in runs.items()}
  for table in (
    people_tables.lines(found, mean=False),
    people_tables.others(found, mean=False),
    people_tables.by_pairs(found),
  ):
    sys.stdout.write("\n".join(table) + "\n\n")
  if png is not None:
    people_tables.draw(
      {row: one for row, one in found.items() if ":" not in row}, png
    )
