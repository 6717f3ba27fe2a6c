"""The table of what papers claim: figures, links and commands are there."""

import re
import runpy
import sys
import unittest.mock

from absl.testing import absltest, parameterized

from tests import checkout, shipped

DOCS = checkout.ROOT / "docs"
PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
HEAD = "| paper | claim | its figure | here | verdict | command |\n"
VERDICTS = ("holds", "does not hold", "cannot be told")
PAPERS = ("MaxMin-RLHF", "MORE", "DPRM", "Secrets II", "together")
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(#([\w-]+)\)")
FIGURE = re.compile(r"[-−+]?\d+\.\d+ (?:± \d+\.\d+|\[[^\]]+\])|\d+\.\d+")


def rows() -> list[list[str]]:
  """The cells of each claim."""
  table = PAGE.partition(HEAD)[2].partition("\n\n")[0].splitlines()[1:]
  return [line.strip("| ").split(" | ") for line in table]


def padded() -> list[list[str]]:
  """The same, with the paper in every row."""
  found = []
  for cells in rows():
    if len(cells) == 5:  # its paper is that of the row above
      cells = [found[-1][0], *cells]
    found.append(cells)
  return found


def sections() -> dict[str, str]:
  """Text below each heading, by its anchor."""
  parts = re.split(r"^#{2,} (.*)$", PAGE, flags=re.M)
  anchor = lambda title: re.sub(r"[^\w\- ]", "", title.lower()).replace(
    " ", "-"
  )
  return {
    anchor(title): " ".join(text.split())
    for title, text in zip(parts[1::2], parts[2::2], strict=True)
  }


ROWS, SECTIONS = padded(), sections()


class ClaimsTest(parameterized.TestCase):
  def test_every_paper_has_claims(self):
    self.assertGreater(len(ROWS), 18)
    self.assertEqual([*dict.fromkeys(row[0] for row in ROWS)], [*PAPERS])

  @parameterized.parameters(*range(len(ROWS)))
  def test_figures_are_those_of_the_section_that_is_linked(self, n):
    _, claim, _, here, verdict, _ = ROWS[n]
    self.assertStartsWith(verdict, VERDICTS)
    links = LINK.findall(here)
    self.assertNotEmpty(links, claim)
    plain = lambda text: text.replace("−", "-").replace("+", "")
    for said, anchor in links:
      self.assertIn(anchor, SECTIONS)
      for figure in FIGURE.findall(said):
        self.assertIn(
          plain(figure), plain(SECTIONS[anchor]), f"{claim}: {figure}"
        )

  @parameterized.parameters(*range(len(ROWS)))
  def test_commands_are_there(self, n):
    commands = re.findall(r"`([^`]+)`", ROWS[n][-1])
    self.assertNotEmpty(commands, ROWS[n])
    with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
      tables = runpy.run_path(str(DOCS / "tabulate_features.py"))["TABLES"]
    for command in commands:
      config = re.fullmatch(r"configs/(\w+)\.py(?::(\w+))?", command)
      if config:
        shipped.config(config[1], config[2] or "full")
        continue
      table, *some = command.split()
      self.assertIn(table, tables)
      self.assertContainsSubset(some, tables[table].rows)
      self.assertIn(
        f"`{table}", SECTIONS["tables-from-frozen-features-made-again"]
      )


if __name__ == "__main__":
  absltest.main()
