"""Log lines about input: rows read, rows lost, progress."""

from collections.abc import Iterable, Mapping

import jax

from jaxalign.data.records.record import Record
from jaxalign.runtime.io import progress_bar


def in_words(counts: Mapping[str, int]) -> str:
  """What was counted: "3 truncated prompts, 1 skipped", or "nothing"."""
  said = [
    f"{number:,} {name.replace('_', ' ')}"
    for name, number in counts.items()
    if number
  ]
  return ", ".join(said) if said else "nothing"


def watched(
  records: Iterable[Record], total: int | None, what: str
) -> Iterable[Record]:
  """Records with a bar for the pass over them.

  Args:
    records: to be read once by one process, again and again by several, which
      then get them as they are.
    total: how many there are, None if unknown.
    what: what is done with them.
  """
  if jax.process_count() > 1:
    return records
  return progress_bar.watched(records, total=total, what=what)
