r"""Command line of jaxalign: stages, shipped configs and the version.

    jaxalign train_reward --config=configs/rm_bt_crowd.py --workdir=runs/rm
    jaxalign train_reward --help
    jaxalign configs

`python -m jaxalign` is the same, and so is `python -m
jaxalign.experiments.train_reward` of one stage. Nothing but the standard
library is loaded before a stage is chosen.
"""

import ast
import difflib
import importlib.util
import pathlib
import runpy
import sys
import textwrap

import jaxalign
from jaxalign.experiments.common import (
  host_memory,
  shipped_configs,
  stage_help,
)

STAGES = pathlib.Path(__file__).parent / "experiments"
WIDTH = 80
# Packages that stages import, by the extra of setup.py that brings them.
EXTRAS = {
  "train": (
    "absl datasets etils flax fsspec grain httpx huggingface_hub jinja2 "
    "matplotlib ml_collections optax orbax rich safetensors tokenizers "
    "transformers"
  ).split(),
  "serve": ["starlette", "uvicorn"],
  "parity": ["torch"],
}
# What a stage needs beside "train".
NEEDS = {"serve": ("serve",), "verify": ("parity",)}


def stages() -> dict[str, str]:
  """The first line of each stage's docstring, by name of the stage."""
  found = {}
  for path in sorted(STAGES.glob("*.py")):
    if path.stem != "__init__":
      doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
      found[path.stem] = doc.partition("\n")[0]
  return found


def missing(stage: str) -> dict[str, list[str]]:
  """Packages that a stage needs and that are not installed, by their extra."""
  found = {}
  for extra in ("train", *NEEDS.get(stage, ())):
    absent = [
      name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None
    ]
    if absent:
      found[extra] = absent
  return found


def help_text() -> str:
  """What `jaxalign --help` prints."""
  lines = [
    "jaxalign STAGE --config=FILE[:VARIANT] --workdir=FOLDER [--config.KEY=V]",
    "",
    "Stages; `jaxalign STAGE --help` lists flags and keys of the config:",
    "",
    *(f"  {name:<16} {said}" for name, said in stages().items()),
    "",
    "Beside them:",
    "",
    "  configs          The configs that come with it, and their variants.",
    "  --version        The version.",
    "  --help           This.",
  ]
  return "\n".join(lines) + "\n"


def configs_text() -> str:
  """What `jaxalign configs` prints: question, stage and variants of each."""
  folder = shipped_configs.folder()
  lines = []
  for path in sorted(folder.glob("*.py")) if folder is not None else ():
    variants = shipped_configs.variants(path)
    if variants:  # an earlier name of another config has none
      lines += [
        f"configs/{path.name}",
        f"  {shipped_configs.question(path)}",
        textwrap.fill(
          f"{shipped_configs.stage(path)}: {', '.join(variants)}",
          WIDTH,
          initial_indent="  ",
          subsequent_indent="    ",
          break_on_hyphens=False,
        ),
      ]
  return "\n".join(lines) + "\n"


def _asks_help() -> bool:
  """Whether the arguments ask for the help of a stage."""
  return any(argument in stage_help.ASKED for argument in sys.argv[2:])


def run(stage: str) -> int:
  """Runs a stage with the arguments after its name; 2 where that cannot be."""
  known = stages()
  if stage not in known:
    near = difflib.get_close_matches(stage, [*known, "configs"], 1)
    hint = f"did you mean {near[0]}?" if near else "see jaxalign --help"
    sys.stderr.write(f"error: there is no stage {stage}; {hint}\n")
    return 2
  lacking = missing(stage)
  if lacking:
    names = ", ".join(name for absent in lacking.values() for name in absent)
    extras = ",".join(lacking)
    sys.stderr.write(
      f"error: {stage} needs the extra {extras}: pip install "
      f"'jaxalign[{extras}]' (missing: {names})\n"
    )
    return 2
  said = stage_help.of_stage(STAGES / f"{stage}.py") if _asks_help() else None
  if said is not None:
    sys.stdout.write(said)
    return 0
  del sys.argv[1]
  runpy.run_module(
    f"jaxalign.experiments.{stage}", run_name="__main__", alter_sys=True
  )
  return 0


def main() -> int:
  """Does what the first argument says.

  Returns:
    The exit status.
  """
  match sys.argv[1:]:
    case [] | ["--help" | "-h" | "help", *_]:
      sys.stdout.write(help_text())
    case ["--version", *_]:
      sys.stdout.write(f"jaxalign {jaxalign.__version__}\n")
    case ["configs", *_]:
      sys.stdout.write(configs_text())
    case [stage, *_]:
      return run(stage)
  return 0


def command() -> int:
  """`main` in a process whose allocator keeps what a step leaves.

  Returns:
    The exit status.
  """
  runs = len(sys.argv) > 1 and sys.argv[1] in stages()
  if runs and not _asks_help():
    try:
      host_memory.start_again()
    except ValueError as error:
      sys.stderr.write(f"error: {error}\n")
      return 2
  return main()


if __name__ == "__main__":
  sys.exit(command())
