"""Code in strings and pages: what it imports of jaxalign exists.

A program that a test hands to another process, or a block of a page, is text to
every tool that checks imports.
"""

import ast
import importlib
import re
from collections.abc import Iterator

from absl.testing import absltest

from tests import checkout

IMPORT = re.compile(r"from (jaxalign[\w.]*) import ((?:\w[\w, ]*)|\([^)]*\))")
# Sources that tests/layering_test.py has refused, which need not exist.
MADE_UP = ("tests/layering_test.py", "tests/embedded_code_test.py")


def texts(name: str, source: str) -> Iterator[str]:
  """The strings of a module, or a page as a whole."""
  if not name.endswith(".py"):
    yield source
    return
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.value


def missing(text: str) -> list[str]:
  """The `module.name`s that a text imports and nobody has."""
  found = []
  for module, names in IMPORT.findall(text):
    for name in re.findall(r"(\w+)(?: as \w+)?", names):
      try:
        if hasattr(importlib.import_module(module), name):
          continue
        importlib.import_module(f"{module}.{name}")
      except ModuleNotFoundError:
        found.append(f"{module}.{name}")
  return found


class EmbeddedCodeTest(absltest.TestCase):
  def test_every_import_in_a_text_exists(self):
    found = []
    for path in checkout.files("*.py", "*.md", "*.sh", "*.yaml", "*.ipynb"):
      name = checkout.relative(path)
      if name in MADE_UP:
        continue
      for text in texts(name, path.read_text()):
        found += [f"{name}: {what}" for what in missing(text)]
    self.assertEmpty(found, "\n" + "\n".join(found))

  def test_a_missing_one_is_noticed(self):
    self.assertEqual(
      missing("from jaxalign.ops import masked, nothing as x"),
      ["jaxalign.ops.nothing"],
    )
    self.assertEmpty(
      missing("from jaxalign.losses import (\n  kl_estimate,\n)")
    )


if __name__ == "__main__":
  absltest.main()
