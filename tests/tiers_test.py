"""The list of slow tests names tests that there are."""

import ast
import os
from unittest import mock

import jax
from absl.testing import absltest

from tests import checkout, tier


def stale(nodeid: str) -> bool:
  """Whether there is no such test; parameters append to a method's name."""
  path, *names = nodeid.split("::")
  file = checkout.ROOT / path
  if not file.exists():
    return True
  methods = [
    node.name
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef)
  ]
  test = names[-1].partition("[")[0]
  return not any(test.startswith(method) for method in methods)


class SlowTest(absltest.TestCase):
  def test_every_listed_test_exists_once_and_in_order(self):
    listed = (checkout.ROOT / "tests/slow.txt").read_text().split()
    self.assertEqual(listed, sorted({*listed}))
    self.assertEmpty([nodeid for nodeid in listed if stale(nodeid)])

  def test_a_stale_name_is_noticed(self):
    here = "tests/tiers_test.py::SlowTest::"
    self.assertFalse(stale(f"{here}test_a_stale_name_is_noticed0"))
    self.assertTrue(stale(f"{here}test_of_old"))
    self.assertTrue(stale("tests/no_test.py::A::test_a_stale_name"))


class CompilationTest(absltest.TestCase):
  def test_other_tiers_compile_as_users_do(self):
    with mock.patch.object(tier, "full", True):
      self.assertEqual(tier.xla_flags(), "")

  def test_xla_knows_the_flags_and_has_them(self):
    with mock.patch.object(tier, "full", False):
      flags = tier.xla_flags()
    self.assertNotEmpty(flags)
    if not tier.full:
      self.assertIn(flags, os.environ["XLA_FLAGS"])
    options = {}
    for flag in flags.split():
      name, value = flag.removeprefix("--").split("=")
      options[name] = (
        value == "true" if value in ("true", "false") else int(value)
      )
    compiled = jax.jit(lambda x: x + 1).lower(1.0).compile(options)
    self.assertEqual(compiled(1.0), 2.0)


def lost_marks(source: str) -> list[int]:
  """Lines of pytest marks above `parameterized`, whose tests never see them."""
  lost = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef):
      names = [ast.unparse(one) for one in node.decorator_list]
      last = max(
        (i for i, name in enumerate(names) if "parameterized" in name),
        default=0,
      )
      lost += [
        one.lineno
        for one, name in zip(node.decorator_list[:last], names, strict=False)
        if name.startswith("pytest.mark")
      ]
  return lost


class MarksTest(absltest.TestCase):
  def test_no_mark_is_lost(self):
    found = {
      checkout.relative(path): lost_marks(path.read_text(encoding="utf-8"))
      for path in checkout.files("tests/*_test.py")
    }
    self.assertEqual({k: v for k, v in found.items() if v}, {})

  def test_a_lost_mark_is_noticed(self):
    mark, many = "@pytest.mark.slow\n", "@parameterized.parameters(1, 2)\n"
    self.assertEqual(lost_marks(f"{mark}{many}def test(x): x"), [1])
    self.assertEqual(lost_marks(f"{many}{mark}def test(x): x"), [])


if __name__ == "__main__":
  absltest.main()
