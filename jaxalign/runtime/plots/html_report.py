"""One HTML page that holds everything it shows: tables, figures, text.

The page loads nothing from anywhere, so it can be mailed, archived and read
without a network. Text is escaped, whatever it contains.
"""

import base64
import dataclasses
import numbers
import re
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from etils import epath

from jaxalign.runtime.io import filesystem
from jaxalign.runtime.plots.curves import training_curves as training_curves
from jaxalign.runtime.plots.rewards import gap_histogram as gap_histogram
from jaxalign.runtime.plots.rewards import group_intervals as group_intervals
from jaxalign.runtime.plots.rewards import (
  reliability_diagram as reliability_diagram,
)
from jaxalign.runtime.plots.rewards import (
  reward_histograms as reward_histograms,
)

_LONG = 40  # characters from which a cell may not be squeezed
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows under named columns.

  Attributes:
    title: what the table shows, with its unit.
    columns: one heading per column.
    rows: cells. Floats are shown with four significant digits, large ones as
      whole numbers, counts with thousands separators, None as a dash; for
      another form pass a string.
    note: a sentence below the table, or "".
  """

  title: str
  columns: Sequence[str]
  rows: Sequence[Sequence[Any]]
  note: str = ""

  def __post_init__(self) -> None:
    """Raises ValueError where a row does not fit the columns."""
    for number, row in enumerate(self.rows):
      if len(row) != len(self.columns):
        raise ValueError(
          f"table {self.title!r}: row {number} has {len(row)} cells for "
          f"{len(self.columns)} columns"
        )


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture.

  Attributes:
    title: what it shows.
    png: the PNG file's bytes, as the drawing functions return them.
    caption: how to read it, or "".
  """

  title: str
  png: bytes
  caption: str = ""

  def __post_init__(self) -> None:
    """Raises ValueError where the bytes are no PNG."""
    if not self.png.startswith(_PNG):
      raise ValueError(f"figure {self.title!r}: the bytes are not a PNG file")


@dataclasses.dataclass(frozen=True)
class Text:
  """Paragraphs, separated by empty lines.

  Attributes:
    title: the heading.
    body: plain text; line breaks are kept, markup is shown as it is.
  """

  title: str
  body: str


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _cell(value: Any) -> str:
  if value is None:
    return "–"
  if isinstance(value, bool | np.bool_):
    return "yes" if value else "no"
  if isinstance(value, numbers.Integral):
    return f"{int(value):,}"
  if isinstance(value, numbers.Real):
    value = float(value)
    # Four digits of a large number would need an exponent.
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
  return str(value)


def _align(values: Sequence[Any]) -> str:
  """How the cells of one column are set."""
  given = [value for value in values if value is not None]
  if given and all(_is_number(value) for value in given):
    return "number"
  return "long" if any(len(_cell(v)) > _LONG for v in given) else ""


def _paragraphs(text: str) -> list[str]:
  return [p.strip() for p in re.split(r"\n\s*\n", text) if p.strip()]


def _section(section: Table | Figure | Text) -> dict[str, Any]:
  """What the template needs to know of one section."""
  match section:
    case Table():
      aligned = [
        _align([row[i] for row in section.rows])
        for i in range(len(section.columns))
      ]
      return {
        "kind": "table",
        "title": section.title,
        "head": list(zip(map(str, section.columns), aligned, strict=True)),
        "rows": [
          list(zip(map(_cell, row), aligned, strict=True))
          for row in section.rows
        ],
        "note": section.note,
      }
    case Figure():
      return {
        "kind": "figure",
        "title": section.title,
        "image": base64.b64encode(section.png).decode(),
        "note": section.caption,
      }
    case Text():
      return {
        "kind": "text",
        "title": section.title,
        "paragraphs": _paragraphs(section.body),
      }
  raise TypeError(
    f"sections must be Table, Figure or Text, got {type(section).__name__}"
  )


def write_report(
  path: epath.PathLike,
  *,
  title: str,
  summary: str,
  sections: Sequence[Table | Figure | Text],
  warnings: Sequence[str] = (),
) -> None:
  """Writes the page; a reader sees the old one or the whole new one.

  Args:
    path: the HTML file; its folder must exist.
    title: the page's heading.
    summary: what a reader in a hurry must know; paragraphs are separated by
      empty lines.
    sections: the rest, in order.
    warnings: what to mind before believing it, above everything else.

  Raises:
    TypeError: a section is none of the three kinds.
  """
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxalign.runtime", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
  )
  page = environment.get_template("report.html.jinja").render(
    title=title,
    summary=_paragraphs(summary),
    warnings=warnings,
    sections=[_section(section) for section in sections],
  )
  # Lone surrogates, which broken text may hold, have no UTF-8.
  filesystem.write_atomically(path, page.encode("utf-8", "replace"))
