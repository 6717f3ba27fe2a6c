"""Settings of the documentation site: `sphinx-build -W docs site`."""

import re
import runpy
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
with mock.patch("setuptools.setup"):
  SETUP = runpy.run_path(str(ROOT / "setup.py"))

project = "jaxalign"
release = SETUP["VERSION"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["images"]
myst_heading_anchors = 4  # pages link to headings as a code host shows them
autodoc_typehints_format = "short"
highlight_language = "none"  # of blocks without a language

html_theme = "furo"
html_title = f"jaxalign {release}"
html_show_copyright = False


def as_written(app, what, name, obj, options, lines) -> None:
  """Keeps docstrings as they stand: aligned formulas are no markup."""
  first, rest = "".join(lines[:1]), lines[1:]
  lines[:] = [re.sub(r"([*_`|\\])", r"\\\1", first), ""]
  if any(rest):
    lines += ["::", "", *(f"  {line}" for line in rest), ""]


def without_fields(app, what, name, obj, skip, options) -> bool | None:
  """Leaves out fields of named tuples, which the signature shows."""
  return True if type(obj).__name__ == "_tuplegetter" else None


def with_readme(app, docname: str, content: list[str]) -> None:
  """Puts README on the first page, with links as they are from docs/."""
  if docname == "index":
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ("CHANGELOG", "CONTRIBUTING"):
      text = text.replace(f"]({page}.md", f"](docs/{page.lower()}.md")
    text = re.sub(r"\]\((?!https?:|#|docs/)", "](../", text)
    content[0] = text.replace("](docs/", "](") + content[0]


def setup(app) -> dict[str, bool]:
  """Connects the functions above."""
  app.connect("autodoc-process-docstring", as_written)
  app.connect("autodoc-skip-member", without_fields)
  app.connect("source-read", with_readme)
  return {"parallel_read_safe": True}
