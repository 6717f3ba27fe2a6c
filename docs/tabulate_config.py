r"""The reference of config keys, docs/config.md, from the dataclasses.

    python docs/tabulate_config.py

It writes the table that `jaxalign STAGE --help` reads, too. Tests fail where
page or table is not what this writes.
"""

import importlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from absl import flags

from jaxalign.experiments.common import (
  command_line,
  config_reference,
  stage_help,
)

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs/config.md"
HEAD = """# Config reference

Every key of every stage, with its type, its default and what it means. A config
file sets what differs from the defaults and what is required; the command line
sets any key with `--config.KEY=VALUE`, such as
`--config.optimizer.learning_rate=1e-4`, and `None` switches off what may be
None. `config.json` in the workdir holds all of them as the run had them.
`jaxalign STAGE --help` prints the part of one stage, and `jaxalign configs`
lists the configs that come with jaxalign.

This page is made by `python docs/tabulate_config.py` of the docstrings.
"""


def stages() -> dict[str, Any]:
  """The config dataclass of each stage that has one, by name of the stage."""
  found = {}
  for path in sorted((ROOT / "jaxalign/experiments").glob("*.py")):
    if path.stem != "__init__":
      module = importlib.import_module(f"jaxalign.experiments.{path.stem}")
      if hasattr(module, "Config"):
        found[path.stem] = module.Config
  return found


def sections(kinds: list[Any]) -> list[Any]:
  """The dataclasses of all sections, in the order they are met."""
  found: list[Any] = []
  for kind in kinds:
    inner = [s for key in config_reference.keys(kind) for s in key.sections]
    for one in [*inner, *sections(inner)]:
      if one not in found:
        found.append(one)
  return found


def title(kind: Any) -> str:
  """A name that no other section has."""
  return f"{kind.__module__.rpartition('.')[2]}.{kind.__qualname__}"


def link(kind: Any) -> str:
  """A link to the table of a section."""
  anchor = title(kind).lower().replace(".", "")
  return f"[{title(kind)}](#{anchor})"


def rows(kind: Any) -> Iterator[str]:
  """Lines of a section's table."""
  yield "| key | type | default | meaning |"
  yield "|---|---|---|---|"
  for key in config_reference.keys(kind):
    kinds = ", ".join(map(link, key.sections)) or f"`{key.type}`"
    default = f"`{key.default}`" if key.default else ""
    if key.default == stage_help.REQUIRED:
      default = key.default
    cells = [f"`{key.name}`", kinds, default, key.meaning]
    row = " | ".join(cell.replace("|", "\\|") for cell in cells)
    yield f"| {row} |"


def page() -> str:
  """The text of the page."""
  kinds = stages()
  lines = [HEAD, "## Stages"]
  for name, kind in kinds.items():
    lines += ["", f"### {name}", "", *rows(kind)]
  lines += ["", "## Sections"]
  for kind in sections([*kinds.values()]):
    lines += ["", f"### {title(kind)}", "", config_reference.summary(kind), ""]
    lines += rows(kind)
  return "\n".join(lines) + "\n"


def flags_of(stage: str) -> list[stage_help.Flag]:
  """The flags of a stage: it defines them, and does nothing else."""
  module = importlib.import_module(f"jaxalign.experiments.{stage}")
  kept = dict(flags.FLAGS.__dict__)
  try:
    flags.FLAGS.__init__()  # type: ignore[misc]
    with mock.patch.object(command_line.app, "run"):
      module.main()
    return command_line.own_flags()
  finally:
    flags.FLAGS.__dict__.clear()
    flags.FLAGS.__dict__.update(kept)


def help_table() -> str:
  """The table that help is printed from, JSON with a section a line."""
  kinds = stages()
  every = [*kinds.values(), *sections([*kinds.values()])]

  def plain(kind: Any) -> list[Any]:
    summary, choice, keys = config_reference.section(kind)
    named = [(*key[:-1], [*map(title, key.sections)]) for key in keys]
    return [summary, choice, named]

  parts = {
    "stages": {
      name: {"config": title(kind), "flags": flags_of(name)}
      for name, kind in kinds.items()
    },
    "sections": {title(kind): plain(kind) for kind in every},
  }
  lines = [
    f'"{part}": {{\n'
    + ",\n".join(f'"{name}": {json.dumps(x)}' for name, x in content.items())
    + "\n}"
    for part, content in parts.items()
  ]
  return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
  PAGE.write_text(page(), encoding="utf-8")
  stage_help.TABLE.write_text(help_table(), encoding="utf-8")
