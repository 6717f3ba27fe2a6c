"""Item votes: pairs of what a person endorsed against what they rejected.

A row is one person's vote on one item. A person who endorses A and rejects B
prefers A to B; such pairs of one person are dependent, so a few are drawn of
each. A pass is no preference.
"""

import collections
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxalign.data.adapters import base, local_ratings
from jaxalign.data.adapters.local_votes import dialogue, find, rows_by
from jaxalign.data.records.files import Row

WORDS = {"agree": 1, "disagree": -1, "pass": 0}
QUESTION = "Give one statement that you agree with."
SAFE = "Give a conversation that ends in a safe reply."
REJECTED = "-1"  # a statement that moderators took out, in an export of Polis
# Columns of `participants-votes.csv` beside one column per statement.
PARTICIPANT = ("participant", "xid", "group-id", "n-comments", "n-votes")
PARTICIPANT += ("n-agree", "n-disagree")


class Item(NamedTuple):
  """What was voted on.

  Attributes:
    name: its id.
    text: of the response.
    prompt: what it answers, text or chat turns; a pair is made of items with
      one prompt.
  """

  name: str
  text: str
  prompt: str | list[Any]

  @property
  def asked(self) -> str:
    """The prompt as one text, the same for the same prompt alone."""
    if isinstance(self.prompt, str):
      return self.prompt
    return json.dumps(self.prompt, sort_keys=True)

  @property
  def answer(self) -> str:
    """The text behind its prompt; a chat template parts them by itself."""
    return f" {self.text}" if isinstance(self.prompt, str) else self.text


class Vote(NamedTuple):
  """One person's vote on one item.

  Attributes:
    where: FILE:LINE.
    person: name, the same for all votes of one person.
    item: what it is about.
    sign: 1 for endorsed, -1 for rejected, 0 for neither.
    columns: further columns of the person's pairs, such as `group`.
  """

  where: str
  person: str
  item: Item
  sign: int
  columns: Mapping[str, Any]


def sign_of(name: str, value: Any) -> int:
  """1, -1 or 0 of a number, of its text, or of agree, disagree and pass.

  Raises:
    ValueError: anything else.
  """
  word = value.strip().lower() if isinstance(value, str) else value
  if isinstance(word, str) and word in WORDS:
    return WORDS[word]
  try:
    number = float(word) if not isinstance(word, bool) else float("nan")
  except (TypeError, ValueError):
    number = float("nan")
  if not abs(number) < float("inf"):
    raise ValueError(
      f"{name} must be a number, above 0 for an item that was endorsed and "
      f"below 0 for one that was rejected, or one of {', '.join(WORDS)}, got "
      f"{str(value)[:40]!r}"
    )
  return (number > 0) - (number < 0)


def pairs(votes: Iterable[Vote | Row], draw: base.Draw) -> Iterator[Row]:
  """At most `draw.per_person` pairs of each person and side of a split.

  Neither the order of the votes nor other people decide which pairs are drawn,
  nor their order.

  Args:
    votes: of any number of people in any order, with rows that are errors.
    draw: how many, by which seed and on which side of a split.

  Yields:
    `(where, row)`, person after person by name; a row that was an error first.
  """
  people: dict[str, dict[str, Vote]] = collections.defaultdict(dict)
  for vote in votes:
    if not isinstance(vote, Vote):
      yield vote
      continue
    earlier = people[vote.person].setdefault(vote.item.name, vote)
    if earlier.sign != vote.sign:
      yield (
        vote.where,
        ValueError(
          f"{vote.person} votes {vote.sign} on {vote.item.name}, and "
          f"{earlier.sign} at {earlier.where}: keep one vote per person and "
          "item"
        ),
      )
  for name in sorted(people):
    yield from _pairs_of(name, people[name], draw)


def _pairs_of(
  person: str, votes: Mapping[str, Vote], draw: base.Draw
) -> Iterator[Row]:
  """The pairs of one person, in the order in which they were drawn."""
  sides = collections.defaultdict(lambda: ([], []))
  for name in sorted(votes):
    vote = votes[name]
    if vote.sign:
      key = (vote.item.asked, draw.side(vote.item.text))
      sides[key][vote.sign < 0].append(vote)
  for (prompt, side), (endorsed, rejected) in sorted(sides.items()):
    size = len(endorsed) * len(rejected)
    label = f"{draw.seed}|{person}|{prompt}|{side}"
    for place in drawn(label, size, draw.per_person):
      best, worst = (
        endorsed[place % len(endorsed)],
        rejected[place // len(endorsed)],
      )
      yield (
        best.where,
        {
          "prompt": best.item.prompt,
          "chosen": best.item.answer,
          "rejected": worst.item.answer,
          "annotator": person,
          "id": f"{person}-{best.item.name}-{worst.item.name}",
          **best.columns,
        },
      )


def drawn(label: str, size: int, number: int) -> list[int]:
  """Up to `number` different ones of `range(size)`, in an order by hash.

  Args:
    label: what the draw depends on, beside the size.
    size: of the range.
    number: at most how many.

  Returns:
    Places in a random order that every machine and version repeats.
  """
  if size <= 4 * number:
    return sorted(range(size), key=lambda i: _hash(f"{label}|{i}"))[:number]
  found: dict[int, None] = {}
  count = 0
  while len(found) < number:
    found.setdefault(_hash(f"{label}|draw {count}") % size)
    count += 1
  return [*found]


def _hash(text: str) -> int:
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _folder(where: str) -> str:
  """Name of the folder that a row's file lies in."""
  path = where.rpartition(":")[0]
  return os.path.basename(os.path.dirname(os.path.abspath(path)))


def _each(found: Iterable[Row], convert: Any) -> Iterator[Vote | Row]:
  """Votes of each row, or the error of one that cannot be read."""
  for where, row in found:
    if isinstance(row, ValueError):
      yield where, row
      continue
    try:
      made = convert(where, row)
    except ValueError as error:
      yield where, error
      continue
    yield from made


def _given(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
  """Columns of a row that hold something."""
  return {name: row[name] for name in names if row.get(name) is not None}


def _rows(
  found: Iterable[Row], tables: base.Tables, draw: base.Draw
) -> Iterator[Row]:
  """One vote a line, with the item's text or its name in the file `items`."""
  table = None
  if "items" in tables:
    table = rows_by(tables, "items", ("item",), ("text",))

  def convert(where: str, row: Mapping[str, Any]) -> list[Vote]:
    name = base.need_label(row, "item")
    item = row if table is None else find(table, "item", name)
    question = row.get("prompt") or item.get("prompt") or dialogue(QUESTION)
    return [
      Vote(
        where,
        base.need_label(row, "person"),
        Item(name, base.need_text(item, "text").strip(), question),
        sign_of("vote", base.need(row, "vote")),
        _given(row, "group", "source"),
      )
    ]

  return pairs(_each(found, convert), draw)


def _polis(
  found: Iterable[Row], tables: base.Tables, draw: base.Draw
) -> Iterator[Row]:
  """Several conversations, each a source; the group is Polis's own."""
  statements = rows_by(tables, "statements", ("conversation", "id"), ("text",))
  topics = rows_by(tables, "conversations", ("key",), ("topic",))

  def convert(where: str, row: Mapping[str, Any]) -> list[Vote]:
    conversation = base.need_label(row, "conversation")
    name = base.need_label(row, "statement")
    topic = find(topics, "conversation", conversation)["topic"]
    text = find(statements, "statement", conversation, name)["text"]
    return [
      Vote(
        where,
        f"{conversation}/{base.need_label(row, 'participant')}",
        Item(name, text.strip(), dialogue(f"{topic}\n{QUESTION}")),
        sign_of("vote", base.need(row, "vote")),
        {"source": conversation, **_given(row, "group")},
      )
    ]

  return pairs(_each(found, convert), draw)


def _polis_export(
  found: Iterable[Row], tables: base.Tables, draw: base.Draw
) -> Iterator[Row]:
  """A participant a line, a statement a column; the group is Polis's own.

  Statements that moderators rejected are left out.
  """
  comments = rows_by(tables, "comments", ("comment-id",), ("comment-body",))

  def convert(where: str, row: Mapping[str, Any]) -> list[Vote]:
    source = _folder(where)
    person = f"{source}/{base.need_label(row, 'participant')}"
    columns: dict[str, Any] = {"source": source}
    if row.get("group-id") is not None:
      columns["group"] = base.need_label(row, "group-id")
    votes = []
    for name, value in row.items():
      if name in PARTICIPANT or value is None:
        continue
      if not name.isdecimal():
        raise ValueError(
          f"unknown column {name!r}; an export of Polis has "
          f"{', '.join(PARTICIPANT)} and a number for each statement"
        )
      comment = find(comments, "comment", name)
      text = comment["comment-body"].strip()
      if str(comment.get("moderated")) == REJECTED or not text:
        continue
      item = Item(name, text, dialogue(QUESTION))
      votes.append(Vote(where, person, item, sign_of(name, value), columns))
    return votes

  return pairs(_each(found, convert), draw)


def _dices(
  found: Iterable[Row], tables: base.Tables, draw: base.Draw
) -> Iterator[Row]:
  """DICES: conversations whose last reply a rater found safe, or unsafe."""
  del tables
  signs = {"No": 1, "Unsure": 0, "Yes": -1}  # is it unsafe?

  def convert(where: str, row: Mapping[str, Any]) -> list[Vote]:
    context = base.need_text(row, "context").strip()
    text = f"{context}\nLAMDA: {base.need_text(row, 'response').strip()}"
    columns: dict[str, Any] = {"source": "dices"}
    if (group := local_ratings.rater_group(row)) is not None:
      columns["group"] = group
    return [
      Vote(
        where,
        base.need_label(row, "rater_id"),
        Item(base.need_label(row, "item_id"), text, dialogue(SAFE)),
        signs[local_ratings.unsafe_answer(row)],
        columns,
      )
    ]

  return pairs(_each(found, convert), draw)


ADAPTERS: dict[str, base.Adapter] = {
  "dices_votes": base.Adapter(**local_ratings.DICES_RATER, votes=_dices),
  "item_votes": base.Adapter(
    reads=("person", "item", "vote", "text", "prompt", "group", "source"),
    votes=_rows,
  ),
  "item_votes_by_name": base.Adapter(
    reads=("person", "item", "vote", "prompt", "group", "source"),
    beside=("items",),
    votes=_rows,
  ),
  "polis/votes": base.Adapter(
    ignore=("person_split",),
    reads=("conversation", "participant", "statement", "vote", "group"),
    beside=("statements", "conversations"),
    votes=_polis,
  ),
  # By the file's name in whatever folder.
  "participants-votes": base.Adapter(beside=("comments",), votes=_polis_export),
}
