"""The list of slow tests names tests that there are."""

import ast

from absl.testing import absltest

from tests import checkout


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


if __name__ == "__main__":
  absltest.main()
