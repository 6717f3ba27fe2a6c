"""The shape of the tree: no long file, and a test beside every module."""

import ast

from absl.testing import absltest

from tests import checkout

MAX_LINES = 500
# A test goes through the whole list of CONTRIBUTING.md for one module.
MAX_TEST_LINES = 500
MIRRORED = (
  "ops",
  "losses",
  "metrics",
  "models",
  "data",
  "algorithms",
  "runtime",
)


def too_long(name: str, text: str) -> list[str]:
  """A complaint about a file that holds two ideas, or nothing."""
  lines = text.count("\n")
  allowed = MAX_TEST_LINES if name.startswith("tests/") else MAX_LINES
  if lines <= allowed:
    return []
  return [f"{name} has {lines} lines, allowed {allowed}"]


def lacks_test(path: str, tests: dict[str, str]) -> list[str]:
  """A complaint about a module whose test is missing or tests something else.

  Args:
    path: module below jaxalign/, e.g. "ops/masked.py".
    tests: text of each test file by its path below tests/.

  Returns:
    One line or nothing.
  """
  folder, _, name = path.rpartition("/")
  floor = folder.partition("/")[0]
  if floor not in MIRRORED or name == "__init__.py":
    return []
  wanted = f"{folder}/{name.removesuffix('.py')}_test.py"
  if wanted not in tests:
    return [f"jaxalign/{path}: no tests/{wanted}"]
  home = f"jaxalign.{floor}"
  for _, imported in checkout.imports(ast.parse(tests[wanted])):
    if imported == home or imported.startswith(f"{home}."):
      return []
  return [f"tests/{wanted}: imports nothing from {home}, so tests none of it"]


class ShapeTest(absltest.TestCase):
  def test_every_module_has_its_test(self):
    tests = {
      path.relative_to(checkout.ROOT / "tests").as_posix(): path.read_text()
      for path in checkout.files("tests/*_test.py")
    }
    found = []
    for path in checkout.library_files():
      found += lacks_test(path.relative_to(checkout.LIBRARY).as_posix(), tests)
    self.assertEmpty(found, "\n" + "\n".join(found))

  def test_a_missing_or_hollow_test_is_noticed(self):
    hollow = "def test_nothing():\n  import numpy"
    good = "from jaxalign import ops"
    for tests, complaint in (
      ({}, "no tests/ops/a_test.py"),
      ({"losses/a_test.py": good}, "no tests/ops/a_test.py"),
      ({"ops/a_test.py": hollow}, "imports nothing from jaxalign.ops"),
    ):
      self.assertIn(complaint, "".join(lacks_test("ops/a.py", tests)))
    self.assertEmpty(lacks_test("ops/a.py", {"ops/a_test.py": good}))

  def test_no_file_holds_two_ideas(self):
    found = []
    for path in checkout.files("*.py"):
      found += too_long(checkout.relative(path), path.read_text())
    self.assertEmpty(found, "\n" + "\n".join(found))

  def test_a_long_file_is_noticed(self):
    self.assertEmpty(too_long("a.py", "x\n" * MAX_LINES))
    self.assertLen(too_long("a.py", "x\n" * (MAX_LINES + 1)), 1)


if __name__ == "__main__":
  absltest.main()
