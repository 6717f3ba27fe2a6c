"""Unknown columns of a file, and which known column each may stand for."""

import difflib
from collections.abc import Collection

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# A header that holds one of these is one of preferences.
_PLAIN = frozenset({"prompt", "chosen", "rejected", "responses"})


def hint(name: str, given: Collection[str], allowed: Collection[str]) -> str:
  """What to say behind an unknown column: a format, or the nearest name.

  Args:
    name: the unknown column.
    given: all columns of the row.
    allowed: those that are known.

  Returns:
    A clause, or "".
  """
  if "completion" in given and "label" in given:
    return (
      "; completion and label are KTO's form, of one response that was wanted "
      "or not, which train_dpo with recipe 'kto' learns from; a preference "
      "needs two responses to one prompt: put a wanted and an unwanted "
      "completion of it into chosen and rejected"
    )
  if name == "completion":
    return "; did you mean 'responses', a list with one text for sft?"
  near = difflib.get_close_matches(name.lower(), allowed, 1, cutoff=0.7)
  return f"; did you mean {near[0]!r}?" if near else ""


def check_separator(header: str) -> None:
  """Raises ValueError for a header whose names other marks than commas part.

  Args:
    header: the only cell of a header that was split at commas.
  """
  for mark, name in SEPARATORS.items():
    parts = {part.strip("\"' ") for part in header.split(mark)}
    if len(parts) > 1 and parts & _PLAIN:
      raise ValueError(
        f"cells are parted by {name} ({mark!r}); a CSV file here has commas: "
        "write it again with sep=',', or as JSONL"
      )
