"""HTML report: a headline, then tables, figures and sample texts on one page.

A stage gives data, the writer draws and formats it. The page loads nothing from
anywhere, so it can be mailed, archived and read without a network. Text is
escaped, whatever it contains.
"""

import base64
import collections
import contextlib
import contextvars
import dataclasses
import numbers
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from etils import epath

from jaxalign.runtime.io import filesystem
from jaxalign.runtime.plots import panels as plots

NAME = "report.html"
ONE_SEED = (
  "One seed: another one moves these numbers by more than the intervals say."
)
MAX_CHARACTERS = 600  # of a sample text
_LONG = 40  # characters from which a cell may not be squeezed
_PIXELS = 1.44  # of a picture per pixel of the page: sharp, and two abreast
_NUMERIC = re.compile(r"[-–\d][-–\d.,\s%[\]]*")  # also with an interval
_PNG = b"\x89PNG\r\n\x1a\n"
# The page that a stage's page belongs to, as a link's text and folder.
_whole: contextvars.ContextVar[tuple[str, epath.Path] | None] = (
  contextvars.ContextVar("whole", default=None)
)


class Link(NamedTuple):
  """A cell, or a line at the top, that leads to another page."""

  text: str
  href: str  # relative to the page


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows under named columns.

  Floats are shown with four significant digits, large ones as whole numbers,
  counts with thousands separators, None as a dash; for another form pass a
  string.
  """

  title: str  # what the table shows, with its unit
  columns: Sequence[str]
  rows: Sequence[Sequence[Any]]
  note: str = ""  # below it
  folded: bool = False  # detail that a reader unfolds

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
  """Pictures, side by side where there is room: panels, or PNG bytes."""

  title: str
  pictures: plots.Picture | bytes | Sequence[plots.Picture | bytes]
  caption: str = ""  # how to read them
  folded: bool = False

  def files(self) -> list[bytes]:
    """The PNG files; raises ValueError for bytes that are none."""
    given = self.pictures
    several = given if isinstance(given, list | tuple) else [given]
    files = [p if isinstance(p, bytes) else p.png() for p in several]
    for png in files:
      if not png.startswith(_PNG):
        raise ValueError(f"figure {self.title!r}: the bytes are not a PNG file")
    return files


@dataclasses.dataclass(frozen=True)
class Texts:
  """Sample texts: what was asked, and what each side answered."""

  title: str
  samples: Sequence[tuple[str, Mapping[str, str]]]  # prompt, texts by label
  note: str = ""
  folded: bool = False
  code: bool = False  # whether the texts are commands


Section = Table | Figure | Texts
Result = Mapping[str, Any]  # content of a stage's eval.json


def percent(value: float | None, digits: int = 1) -> str:
  """A share in per cent; a dash for None."""
  return "–" if value is None else f"{100 * value:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
  """A number; a dash for None, and no minus before a zero."""
  return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def interval(score: Mapping[str, Any], digits: int = 3) -> str:
  """A score with its 95 % interval: `value`, `low` and `high`."""
  low, high = decimal(score["low"], digits), decimal(score["high"], digits)
  return f"{decimal(score['value'], digits)} [{low}, {high}]"


def percent_interval(share: Mapping[str, Any]) -> str:
  """A share with its 95 % interval, in per cent; a dash without a value."""
  if share["value"] is None:
    return "–"
  low, high = 100 * share["low"], 100 * share["high"]
  return f"{percent(share['value'])} [{low:.1f}, {high:.1f}]"


def word(key: str) -> str:
  """The name of a JSON key on a page."""
  return key.replace("_", " ")


@contextlib.contextmanager
def part_of(title: str, folder: epath.Path) -> Iterator[None]:
  """Within the block every page links to the page in `folder`, by `title`."""
  token = _whole.set((title, folder))
  try:
    yield
  finally:
    _whole.reset(token)


def links_to(
  workdir: epath.Path, folders: Iterable[str | os.PathLike[str]]
) -> list[Link]:
  """Links from the page in `workdir` to the pages that folders hold.

  Args:
    workdir: of the page.
    folders: of runs, or `model/` folders in them; those without a page are left
      out.

  Returns:
    The links, by the runs' names.
  """
  found = {}
  for folder in map(epath.Path, folders):
    run = folder.parent if folder.name == "model" else folder
    if (run / NAME).exists():
      href = os.path.relpath(os.fspath(run / NAME), os.fspath(workdir))
      found[href] = Link(run.name, href)
  return [*found.values()]


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _cell(value: Any) -> str:
  if value is None:
    return "–"
  if isinstance(value, Link):
    return value.text
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
  if given and all(_is_number(v) or _NUMERIC.fullmatch(str(v)) for v in given):
    return "number"
  return "long" if any(len(_cell(v)) > _LONG for v in given) else ""


def _paragraphs(text: str) -> list[str]:
  return [p.strip() for p in re.split(r"\n\s*\n", text) if p.strip()]


def beginning(text: str) -> str:
  """The first characters of a text, for a sample."""
  cut = len(text) > MAX_CHARACTERS
  return f"{text[:MAX_CHARACTERS]} …" if cut else text


def ending(text: str) -> str:
  """The last characters of a prompt, for a sample."""
  cut = len(text) > MAX_CHARACTERS
  return f"… {text[-MAX_CHARACTERS:]}" if cut else text


def _content(section: Section) -> dict[str, Any]:
  """What the template needs to know of one section."""
  match section:
    case Table():
      columns = range(len(section.columns))
      aligned = [_align([row[i] for row in section.rows]) for i in columns]
      cells = lambda row: [
        (_cell(value), kind, value.href if isinstance(value, Link) else None)
        for value, kind in zip(row, aligned, strict=True)
      ]
      return {
        "kind": "table",
        "head": list(zip(map(str, section.columns), aligned, strict=True)),
        "rows": [cells(row) for row in section.rows],
        "note": section.note,
      }
    case Figure():
      images = [
        # A PNG's width stands at a fixed place of its header.
        (
          base64.b64encode(png).decode(),
          round(int.from_bytes(png[16:20]) / _PIXELS),
        )
        for png in section.files()
      ]
      return {"kind": "figure", "images": images, "note": section.caption}
    case Texts():
      samples = [
        (
          ending(prompt.strip()),
          [(k, beginning(v.strip())) for k, v in texts.items()],
        )
        for prompt, texts in section.samples
      ]
      return {
        "kind": "texts",
        "samples": samples,
        "note": section.note,
        "code": section.code,
      }
  raise TypeError(
    f"sections must be Table, Figure or Texts, got {type(section).__name__}"
  )


def write_report(
  path: epath.PathLike,
  *,
  title: str,
  headline: str,
  sections: Sequence[Section],
  basis: str = "",
  warnings: Sequence[str] = (),
  links: Sequence[Link] = (),
) -> None:
  """Writes the page; a reader sees the old one or the whole new one.

  Args:
    path: the HTML file; its folder must exist.
    title: the page's heading.
    headline: the answer against its baseline in a sentence or two; further
      paragraphs, separated by empty lines, are set smaller.
    sections: the rest, in order.
    basis: what the numbers rest on, such as how many prompts and seeds.
    warnings: what to mind before believing it, above everything else.
    links: to other pages.

  Raises:
    TypeError: a section is none of the three kinds.
    ValueError: two sections have one title.
  """
  contents = [_content(section) for section in sections]
  counts = collections.Counter(section.title for section in sections)
  twice = [name for name, count in counts.items() if count > 1]
  if twice:
    raise ValueError(f"sections need titles of their own, got twice: {twice}")
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxalign.runtime", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
  )
  whole, above = _whole.get(), []
  if whole is not None:
    folder = os.fspath(epath.Path(path).parent)
    href = os.path.relpath(os.fspath(whole[1] / NAME), folder)
    above = [Link(whole[0], href)]
  page = environment.get_template("report.html.jinja").render(
    title=title,
    # A number and its sign stay on one line.
    headline=_paragraphs(headline.replace(" %", "\N{NO-BREAK SPACE}%")),
    basis=basis,
    warnings=warnings,
    links=[*above, *links],
    sections=[
      {"title": section.title, "folded": section.folded, **content}
      for section, content in zip(sections, contents, strict=True)
    ],
  )
  # Lone surrogates, which broken text may hold, have no UTF-8.
  filesystem.write_atomically(path, page.encode("utf-8", "replace"))
