"""Data warnings: leaked or missing held-out rows, chats without a template."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator

from jaxalign.data.records import splits
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer

log = logging.getLogger("jaxalign")

NOT_HELD_OUT = (
  "no {rows} are held out, so nothing says how well this does on new ones: set "
  "data.eval_files{fraction}"
)


class Cautions:
  """Collects data warnings while records stream by: a hash of each."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    *,
    rows: str = "pairs",
    unit: str = "pair",
  ):
    """Nothing noted yet.

    Args:
      tokenizer: that the records go through.
      rows: what they are called.
      unit: what held-out records should not share with training, as
        `data.split_by` has it.
    """
    self._bare = tokenizer.fast.chat_template is None
    self._rows, self._unit = rows, unit
    self._keys: dict[bool, list[int]] = {True: [], False: []}
    self._chats = {True: 0, False: 0}

  def passing(
    self, records: Iterable[Record], *, held_out: bool
  ) -> Iterable[Record]:
    """The same records, noted whenever they are read.

    Args:
      records: read as often as the result is.
      held_out: whether they are.
    """
    return _Passing(self, records, held_out)

  def note(self, records: Iterable[Record], *, held_out: bool) -> None:
    """Reads records to the end."""
    for _ in self.passing(records, held_out=held_out):
      pass

  def noted(
    self, records: Iterable[Record], held_out: bool
  ) -> Iterator[Record]:
    """One pass of `passing`."""
    self._keys[held_out], self._chats[held_out] = [], 0
    for record in records:
      self._chats[held_out] += self._bare and _is_chat(record)
      self._keys[held_out].append(splits.number_of(record, self._unit))
      yield record

  def found(
    self, *, holds_out: bool, fraction: bool = False
  ) -> tuple[str, ...]:
    """Logs the warnings.

    Args:
      holds_out: whether the config names rows that are held out.
      fraction: whether `data.eval_fraction` is another way to hold rows out.

    Returns:
      One sentence each, for the page.
    """
    said, held_out = [], self._keys[True]
    if not holds_out:
      other = ", or data.split_by and data.eval_fraction" if fraction else ""
      said.append(NOT_HELD_OUT.format(rows=self._rows, fraction=other))
    train = {*self._keys[False]}
    shared = sum(key in train for key in held_out)
    if shared:
      said.append(
        f"{shared:,} of {len(held_out):,} held-out {self._rows} also train, so "
        "scores on them are better than on new ones"
      )
    if any(self._chats.values()):
      said.append(
        f"{sum(self._chats.values()):,} {self._rows} are chats and the "
        "tokenizer has no chat template, so their turns become paragraphs "
        "'Human: ...' and 'Assistant: ...'"
      )
    for one in said:
      log.warning("%s", one)
    return tuple(said)


def of_records(
  tokenizer: Tokenizer,
  train: Iterable[Record],
  held_out: Iterable[Record],
  *,
  holds_out: bool = True,
  fraction: bool = False,
) -> tuple[str, ...]:
  """Logs the warnings about pairs that are there.

  Args:
    tokenizer: that they go through.
    train: training records; none where only others are read.
    held_out: the others.
    holds_out: see `Cautions.found`.
    fraction: see there.

  Returns:
    One sentence each.
  """
  noted = Cautions(tokenizer)
  noted.note(train, held_out=False)
  noted.note(held_out, held_out=True)
  return noted.found(holds_out=holds_out, fraction=fraction)


@dataclasses.dataclass(frozen=True, eq=False)
class _Passing:
  """Records that are noted whenever they are read."""

  cautions: Cautions
  records: Iterable[Record]
  held_out: bool

  def __iter__(self) -> Iterator[Record]:
    return self.cautions.noted(self.records, self.held_out)


def _is_chat(record: Record) -> bool:
  texts = (record.prompt, *record.responses)
  return not all(isinstance(text, str) for text in texts)
