"""Shipped configs as a stage has them before anything is changed.

A config file says what differs from the defaults of its stage; here every key
is there, as it is when overrides of the command line are parsed.
"""

import ast
import functools
import importlib
import re
import types

import ml_collections

from jaxalign.experiments.common import command_line
from tests import checkout

COMMAND = re.compile(r"python -m jaxalign\.experiments\.(\w+)\b([^`]*)")


@functools.cache
def stage_of(name: str) -> types.ModuleType:
  """The stage module that a config's docstring runs.

  Args:
    name: such as "rm_bt_crowd".
  """
  source = (checkout.ROOT / f"configs/{name}.py").read_text()
  found = COMMAND.search(ast.get_docstring(ast.parse(source)) or "")
  return importlib.import_module(f"jaxalign.experiments.{found.group(1)}")


def config(name: str, variant: str = "") -> ml_collections.ConfigDict:
  """A shipped config with the defaults of its stage.

  Args:
    name: such as "rm_bt_crowd".
    variant: "" for the file's own.
  """
  path = checkout.ROOT / f"configs/{name}.py"
  made = command_line.load_file(str(path), variant)
  return command_line.completed(stage_of(name).Config, made, ())
