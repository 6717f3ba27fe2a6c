"""Breaks are breaks: each changes what one line says, and parses."""

import ast

from absl.testing import absltest

from tests import broken_lines

SOURCE = '''"""Not 1 + 1 here."""

def f(x: int = 3, *, flag: bool = True) -> int:
  if x < 2 and not flag:
    raise ValueError(f"{x + 1} is too much")
  é = -x * (x +
    2.0)
  return é
'''


class BreaksTest(absltest.TestCase):
  def test_all_that_it_knows_and_nothing_else(self):
    found = broken_lines.breaks("a.py", SOURCE)
    self.assertCountEqual(
      [(one.line, one.was, one.now) for one in found],
      [
        (3, "3", "4"),
        (3, "True", "False"),
        (4, "<", "<="),
        (4, "2", "3"),
        (4, "and", "or"),
        (4, "not ", ""),
        (6, "-", ""),
        (6, "*", "/"),
        (6, "+", "-"),
        (7, "2.0", "3.125"),
      ],
    )

  def test_each_changes_its_line_alone_and_parses(self):
    lines = SOURCE.splitlines()
    for one in broken_lines.breaks("a.py", SOURCE):
      after = one.applied(SOURCE)
      ast.parse(after)
      differ = [
        number
        for number, (a, b) in enumerate(
          zip(lines, after.splitlines(), strict=True), 1
        )
        if a != b
      ]
      self.assertEqual(differ, [one.line])

  def test_a_seed_draws_the_same_lines_of_every_floor(self):
    drawn = broken_lines.drawn(0, 14)
    self.assertEqual(drawn, broken_lines.drawn(0, 14))
    self.assertNotEqual(drawn, broken_lines.drawn(1, 14))
    floors = [one.path.split("/")[1] for one in drawn]
    self.assertEqual(floors, [f for f in broken_lines.FLOORS for _ in range(2)])

  def test_the_nearest_tests_run_first(self):
    rounds = broken_lines.rounds("jaxalign/losses/pairwise.py", nearest=False)
    self.assertEqual(
      rounds[0][1], ["--tier=fast", "tests/losses/pairwise_test.py"]
    )
    self.assertEqual(rounds[-1][1][0], "--tier=slow")
    self.assertIn("tests/algorithms/denoised_test.py", rounds[1][1])
    nearest = broken_lines.rounds("jaxalign/losses/pairwise.py", nearest=True)
    self.assertEqual(nearest, rounds[:2])


if __name__ == "__main__":
  absltest.main()
