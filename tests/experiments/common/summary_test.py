"""Last lines of the stages, and whether what they propose can be run."""

import ast
import pathlib

from absl.testing import absltest, parameterized

from jaxalign.experiments.common import summary
from tests import checkout, shipped

STAGES = sorted((checkout.ROOT / "jaxalign/experiments").glob("*.py"))
# A server has no end, and these answer with a table of their own.
OTHERS = ("compile", "first_hour", "hardware_check", "probe", "serve")


def commands(path: pathlib.Path) -> list[tuple[str, str, list[str]]]:
  """Stage, config and keys of each command that a file proposes."""
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call) and ast.unparse(node.func) == (
      "ending.command"
    ):
      stage, config, *flags = node.args
      begins = [flag.values[0].value for flag in flags]
      keys = [text.removeprefix("--config.").rstrip("=") for text in begins]
      found.append((stage.value, config.value, keys))
  return found


class EndingTest(parameterized.TestCase):
  @parameterized.named_parameters((path.stem, path) for path in STAGES)
  def test_what_a_stage_proposes_exists(self, path):
    source = path.read_text()
    if "cli.main(" in source and path.stem not in OTHERS:
      self.assertIn("summary.say(", source)
    for stage, config, keys in commands(path):
      self.assertTrue((path.parent / f"{stage}.py").exists(), stage)
      values = shipped.config(config)
      for key in keys:
        at = values
        for part in key.split("."):
          self.assertIn(part, at, key)
          at = at[part]

  def test_findings_files_and_what_is_next(self):
    with self.assertLogs("jaxalign") as logs:
      summary.say(
        ["a", "b", "c", "d", "e"],
        report="runs/r/report.html",
        then=summary.command(
          "evaluate", "evaluate", "--config.models=('my runs/model',)"
        ),
      )
    self.assertEqual(
      [record.getMessage() for record in logs.records],
      [
        "a",
        "b",
        "c",
        "and 2 more on the page",
        "report: runs/r/report.html",
        "next: python -m jaxalign.experiments.evaluate "
        "--config=configs/evaluate.py "
        """--config.models="('my runs/model',)" --workdir=...""",
      ],
    )

  def test_a_shell_takes_any_path(self):
    said = summary.command("score", "score", "--config.model=my $runs/model")
    self.assertIn("'--config.model=my $runs/model'", said)

  def test_a_step_of_a_pipeline_proposes_nothing(self):
    with self.assertLogs("jaxalign") as logs, summary.as_a_step():
      summary.say(["a"], then="python")
    self.assertLen(logs.records, 1)


if __name__ == "__main__":
  absltest.main()
