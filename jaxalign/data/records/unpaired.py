"""Unpaired responses: each beside a mismatched one, or beside itself."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxalign.data.records import chat
from jaxalign.data.records.record import Record, pairs_of

RATING = "desirable"  # what TRL's column `label` becomes


def of_completion(row: Mapping[str, Any]) -> Mapping[str, Any]:
  """TRL's unpaired form, of `completion` and `label`, as a rated response.

  Args:
    row: column to JSON value.

  Returns:
    The row with `responses` and `ratings`; as it is without `completion`.

  Raises:
    ValueError: there is a completion whose label is not true or false.
  """
  if row.get("completion") is None:
    return row
  label = row.get("label")
  if not isinstance(label, bool):
    raise ValueError(
      f"a completion needs a label that is true or false, got {label!r}"
    )
  rest = {k: v for k, v in row.items() if k not in ("completion", "label")}
  return {
    **rest,
    "responses": [row["completion"]],
    "ratings": {RATING: [float(label)]},
  }


@dataclasses.dataclass(eq=False)
class UnpairedStream:
  """Every response of some records with one to another prompt, read again.

  A row is a record of two responses, of which the first is labelled: its
  `chosen_prob` is the probability that it is wanted. The second is the last
  response to the prompt before; of the first prompt, the first of the next.

  Attributes:
    records: what is read.
    rating: attribute of `ratings` that labels a single response.
    threshold: ratings from it on are wanted.
  """

  records: Iterable[Record]
  rating: str = RATING
  threshold: float = 0.5

  def __iter__(self) -> Iterator[Record]:
    """The rows.

    Raises:
      ValueError: a single response lacks the rating; all prompts are the same.
    """
    waiting: list[Record] = []  # of the first prompt, until there is another
    other: chat.Text | None = None  # of the prompt before
    prompt, last = None, None
    for record in self.records:
      text = chat.text_of(record.prompt)
      for row in self._labelled(record):
        (response,) = row.responses
        if prompt is not None and text != prompt:
          other = last
          for early in waiting:
            yield _beside(early, response)
          waiting = []
        prompt, last = text, response
        if other is None:
          waiting.append(row)
        else:
          yield _beside(row, other)
    if waiting:
      raise ValueError(
        "recipe 'kto' compares responses with one to another prompt: two "
        f"prompts or more are needed, got {len(waiting)} responses to one"
      )

  def _labelled(self, record: Record) -> Iterator[Record]:
    """Single responses with the probability that each is wanted."""
    if len(record.responses) == 2:
      share = record.target_prob
      shares = [share, 1 - share]
    else:
      rated = (record.ratings or {}).get(self.rating)
      if rated is None or len(rated) != len(record.responses):
        raise ValueError(
          f"{record.place()}: {len(record.responses)} response(s) without a "
          f"rating {self.rating!r} each; a pair needs none, nor do TRL's "
          "completion and label; recipe.rating names it"
        )
      shares = [float(value >= self.threshold) for value in rated]
    for side, (response, share) in enumerate(
      zip(record.responses, shares, strict=True)
    ):
      yield Record(
        record.prompt,
        (response,),
        chosen_prob=share,
        source=record.source,
        annotator=record.annotator,
        group=record.group,
        id=None if record.id is None else f"{record.id}-{side}",
        where=record.where,
      )


def _beside(row: Record, other: chat.Text) -> Record:
  return dataclasses.replace(row, responses=(row.responses[0], other))


@dataclasses.dataclass(eq=False)
class TwinStream:
  """Pairs of some records, single responses beside themselves, read again.

  What is said of a single response, such as its labels, is said of the first
  side alone, so that it is learned from once. The row is a tie.

  Attributes:
    records: what is read; rankings are taken apart.
  """

  records: Iterable[Record]

  def __iter__(self) -> Iterator[Record]:
    """The rows, in the order of the records."""
    for record in self.records:
      if len(record.responses) != 1:
        yield from pairs_of(record)
        continue
      (response,) = record.responses
      yield dataclasses.replace(
        record, responses=(response, response), num_ranked=None, tie=True
      )
