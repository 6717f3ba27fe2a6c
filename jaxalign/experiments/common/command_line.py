"""Command-line parsing: config files, overrides, and errors of one line."""

import ast
import difflib
import functools
import inspect
import operator
import os
import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from jaxalign.experiments.common import (
  config,
  config_reference,
  shipped_configs,
  stage_help,
)
from jaxalign.runtime import user_errors

T = TypeVar("T")

CONFIGS = "configs"
NUM_NEAR = 3
_ABSENT = re.compile(r"flag --(\w+)=None: Flag .* other than None\.", re.S)


class _OrNone(flags.ArgumentParser):
  """A parser that takes `None` too: it switches a key off."""

  def __init__(self, parse: Callable[[str], Any], wanted: str):
    self._parse = parse
    self._wanted = wanted

  def parse(self, argument: Any) -> Any:
    """The value; ValueError says what is wanted."""
    if argument is None or argument == "None":
      return None
    try:
      return self._parse(argument)
    except (ValueError, TypeError, SyntaxError):
      raise ValueError(f"must be {self._wanted} or None") from None


def _section(text: Any) -> dict[str, Any]:
  # Defaults are parsed too.
  value = ast.literal_eval(text) if isinstance(text, str) else text
  if not config.is_mapping(value):
    raise ValueError(f"{text!r} is not a section")
  return {**value}


class _ConfigFile(flags.ArgumentParser):
  """Reads --config and fills in its stage's defaults.

  An override is then parsed by the type of its key, whether the file sets that
  key or leaves it at its default.
  """

  def __init__(self) -> None:
    self.kind: Any = None
    self.changes: list[tuple[str, str]] = []

  def parse(self, argument: Any) -> Any:
    """The config of FILE.py[:variant]; ValueError where it does not run."""
    path, _, variant = argument.partition(":")
    made = load_file(path, variant)
    return (
      made if self.kind is None else completed(self.kind, made, self.changes)
    )


def completed(
  kind: type[Any],
  made: ml_collections.ConfigDict,
  changes: Iterable[tuple[str, str]],
) -> ml_collections.ConfigDict:
  """A config with the defaults of its stage, before changes are made to it.

  Args:
    kind: the stage's config dataclass.
    made: what a config file gives.
    changes: dotted keys with what they will be set to. One that names another
      kind of section, such as `recipe.name`, decides which defaults it has.

  Returns:
    Another ConfigDict.
  """
  made = ml_collections.ConfigDict(made)
  for key, text in changes:
    section, _, last = key.rpartition(".")
    if last == "name" and is_reached(made, key) and section:
      functools.reduce(operator.getitem, section.split("."), made)[last] = text
  return config.completed(kind, made)


def define_config() -> None:
  """Defines --config and its overrides.

  A key that the file leaves at its default can be set as well; one that its
  stage does not have is an error of `config.to_dataclass`.
  """
  wanted = "a section such as \"{'name': 'value'}\""
  numbers = {
    int: _OrNone(flags.IntegerParser().parse, "a whole number"),
    float: _OrNone(flags.FloatParser().parse, "a number"),
  }
  sections = {
    # What a key without a section takes, and one in the place of another.
    dict: _OrNone(_section, wanted),
    ml_collections.ConfigDict: _OrNone(
      lambda text: ml_collections.ConfigDict(_section(text)), wanted
    ),
  }
  for kind, parser in (numbers | sections).items():
    config_flags.register_flag_parser_for_type(kind, parser)
  config_flags.DEFINE_config_file(
    "config",
    None,
    "the run's config, as FILE.py[:variant].",
    lock_config=False,
    accept_new_attributes=True,
  )
  flags.FLAGS["config"].parser = _ConfigFile()


def launch(
  start: Callable[[list[str]], int | None],
  *,
  kind_of: Callable[[Sequence[str]], Any] = lambda argv: None,
  known_only: bool = False,
) -> None:
  """Parses the flags and runs; a user error is one line and exit status 2.

  Args:
    start: takes the arguments that are no flags, gives the exit status.
    kind_of: takes the arguments, gives the stage's config dataclass: its
      defaults, and near names of keys; None where no config is read.
    known_only: leave flags that are not defined among the arguments.
  """
  flags.DEFINE_bool("verbose", False, "Show the traceback of every error.")

  def guarded(argv: list[str]) -> int | None:
    try:
      return start(argv)
    except Exception as error:
      if not user_errors.is_users(error):
        raise
      return user_errors.report(error, verbose=flags.FLAGS.verbose)

  def parse(argv: list[str]) -> list[str]:
    if any(argument in stage_help.ASKED for argument in argv[1:]):
      sys.stdout.write(help_text(kind_of(argv)))
      raise SystemExit(0)
    argv = with_shipped(argv)
    path, _ = config_file(argv)
    try:
      check_file(path)
      if "config" in flags.FLAGS:
        parser = flags.FLAGS["config"].parser
        parser.kind, parser.changes = kind_of(argv), _changes(argv)
      return flags.FLAGS(argv, known_only=known_only)
    except Exception as error:
      mistake = ValueError(_reason(argv, error, kind_of(argv)))
      mistake.__cause__ = error
      status = user_errors.report(mistake, verbose="--verbose" in argv)
      raise SystemExit(status) from error

  app.run(guarded, flags_parser=parse)


def help_text(kind: Any) -> str:
  """What --help prints: the program, its flags, and the keys of its config.

  Args:
    kind: the stage's config dataclass, or None.
  """
  doc = inspect.cleandoc(sys.modules["__main__"].__doc__ or "")
  keys = None if kind is None else config_reference.help_text(kind)
  return stage_help.page(doc, own_flags(), keys)


def own_flags() -> list[stage_help.Flag]:
  """The flags that are defined, but for those of libraries, with defaults."""
  found = []
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if "jaxalign" in module or any(flag.name == "config" for flag in defined):
      for flag in defined:
        default = "" if flag.default is None else f" (default {flag.default})"
        found.append((flag.name, f"{flag.help}{default}"))
  return found


def read_config(kind: type[T]) -> T:
  """The dataclass of --config with its overrides.

  Args:
    kind: the stage's config dataclass.

  Returns:
    An instance of it.

  Raises:
    ValueError: as `config.to_dataclass`, or a config of another stage.
    TypeError: a value of the wrong type.
  """
  try:
    return config.to_dataclass(kind, flags.FLAGS.config)
  except ValueError as error:
    path = flags.FLAGS["config"].config_filename.partition(":")[0]
    raise ValueError(with_stage(str(error), path, kind)) from error


def with_shipped(argv: Sequence[str]) -> list[str]:
  """The arguments with a shipped config's --config made a path of its file."""
  path, variant = config_file(argv)
  if path is None:
    return [*argv]
  given = f"{path}:{variant}" if variant else path
  file = shipped_configs.find(path)
  found = f"{file}:{variant}" if variant else file
  changed = {given: found} | {
    f"{dash}config={given}": f"{dash}config={found}" for dash in ("-", "--")
  }
  return [changed.get(argument, argument) for argument in argv]


def config_file(argv: Sequence[str]) -> tuple[str | None, str]:
  """Path and variant of --config among arguments; None without one."""
  value = value_of(argv, "config")
  if value is None:
    return None, ""
  path, _, variant = value.partition(":")
  return path, variant


def value_of(argv: Sequence[str], flag: str) -> str | None:
  """What a flag is given among arguments that are not yet parsed, or None."""
  for i, argument in enumerate(argv):
    name, equals, value = argument.partition("=")
    if name in (f"--{flag}", f"-{flag}"):
      return value if equals else "".join(argv[i + 1 : i + 2])
  return None


def _changes(argv: Sequence[str]) -> list[tuple[str, str]]:
  """The overrides of keys, each with its text."""
  names = (re.match(r"--?config\.([\w.]+)", text) for text in argv)
  keys = [match.group(1) for match in names if match is not None]
  return [(key, value_of(argv, f"config.{key}") or "") for key in keys]


def check_file(path: str | None) -> None:
  """Raises ValueError, with near names, for a config that is not a file."""
  if path is None or os.path.isfile(path):
    return
  folder = os.path.dirname(path)
  if not os.path.isdir(folder):
    folder = CONFIGS
    if not os.path.isdir(folder):
      folder = os.fspath(shipped_configs.folder() or CONFIGS)
  stem = lambda name: pathlib.Path(name).stem
  like = {
    name.as_posix(): difflib.SequenceMatcher(
      None, stem(path), stem(name)
    ).ratio()
    for name in sorted(pathlib.Path(folder).glob("*.py"))
  }
  nearest = sorted(like, key=like.__getitem__, reverse=True)[:NUM_NEAR]
  near = [name for name in nearest if like[name] > 0.6]
  if near:
    hint = f"did you mean {' or '.join(near)}?"
  elif nearest:
    hint = f"{folder} holds {len(like)}, such as {', '.join(nearest)}"
  else:
    hint = "give the path of a Python file with a function get_config"
  raise ValueError(f"there is no config file {path}; {hint}")


def other_stage(path: str, kind: Any) -> str | None:
  """The stage that a config's docstring is for, if that is another one.

  Args:
    path: the config file.
    kind: the dataclass of the stage that was given it.

  Returns:
    A module of `jaxalign.experiments`, or None.
  """
  stage = shipped_configs.stage(pathlib.Path(path))
  return None if stage == _stage_of(kind) else stage


def _stage_of(kind: Any) -> str:
  """The stage whose config a dataclass is, wherever that is defined."""
  stages = [
    module
    for name, module in sys.modules.items()
    # A stage that is run as a module has the name __main__.
    if name == "__main__" or re.fullmatch(r"jaxalign\.experiments\.\w+", name)
    if vars(module).get("Config") is kind
  ]
  owner = stages[0] if stages else sys.modules[kind.__module__]
  return pathlib.Path(owner.__file__ or "").stem


def _a(stage: str) -> str:
  return f"{'an' if stage[0] in 'aeiou' else 'a'} {stage}"


def with_stage(text: str, path: str, kind: Any) -> str:
  """What is wrong with a config's keys, and whether it is another stage's."""
  theirs = other_stage(path, kind)
  if theirs is None:
    return text
  return (
    f"{path}: this is {_a(theirs)} config, for python -m "
    f"jaxalign.experiments.{theirs}, and not {_a(_stage_of(kind))} config: "
    f"{text}"
  )


def _reason(argv: Sequence[str], error: Exception, kind: Any) -> str:
  """What is wrong with the flags."""
  path, variant = config_file(argv)
  if path is not None and os.path.isfile(path):
    try:
      made = load_file(path, variant)
    except ValueError as fault:
      return str(fault)
    for argument in argv if kind is not None else ():
      key = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
      if key is not None and not is_reached(
        completed(kind, made, _changes(argv)), key.group(1)
      ):
        return with_stage(unreached(key.group(1), path, kind), path, kind)
  absent = _ABSENT.fullmatch(str(error))
  if absent is not None:
    name = absent.group(1)
    return f"--{name} is missing: {flags.FLAGS[name].help}"
  return str(error).removeprefix("flag ")


def load_file(path: str, variant: str) -> ml_collections.ConfigDict:
  """Runs a config file.

  Args:
    path: FILE.py with a function `get_config`, or a shipped config's name.
    variant: its argument, "" for none.

  Returns:
    What it returns.

  Raises:
    ValueError: it does not run, by file and line.
  """
  path = shipped_configs.find(path)
  check_file(path)
  try:
    get_config = runpy.run_path(path)["get_config"]
    return get_config(variant) if variant else get_config()
  except Exception as fault:
    raise ValueError(_fault_of_file(path, fault)) from fault


def _fault_of_file(path: str, fault: Exception) -> str:
  """What is wrong with a config file that does not run."""
  if isinstance(fault, SyntaxError):
    return f"{fault.filename}:{fault.lineno}: {fault.msg}"
  if isinstance(fault, ValueError):  # such as an unknown variant
    return f"{path}: {fault}"
  if isinstance(fault, KeyError) and fault.args == ("get_config",):
    return f"{path} has no function get_config"
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(fault.__traceback__)
    if frame.filename == path
  ]
  at = f"{path}:{lines[-1]}" if lines else path
  return f"{at}: {type(fault).__name__}: {fault}"


def is_reached(made: Any, key: str) -> bool:
  """Whether a config has the sections that lead to a dotted key."""
  for name in key.split(".")[:-1]:
    if not config.is_mapping(made) or name not in made:
      return False
    made = made[name]
  return config.is_mapping(made)


def unreached(key: str, path: str, kind: Any) -> str:
  """What to say of a dotted key in a section that a config does not have.

  Args:
    key: without the name of the config.
    path: the config's file.
    kind: the stage's config dataclass.
  """
  if key in config.paths(kind):
    section = key.rpartition(".")[0]
    return (
      f"config.{key}: {path} has no {section}; set all of it, as "
      f"config.{section}=\"{{'key': value}}\""
    )
  near = config.nearest(kind, key)
  hint = f"; did you mean {' or '.join(near)}?" if near else ""
  return f"unknown key config.{key}{hint}"
