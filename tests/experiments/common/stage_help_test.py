"""Help of a stage, read off the table that is made of the dataclasses."""

import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest

from jaxalign.experiments.common import stage_help
from tests import checkout

SECTIONS = {
  "a.Config": ("All of it.", None, [("part", "", "", "one", ["b.A", "b.B"])]),
  "b.A": ("A part.", "a", [("size", "int", "3", "rows " * 20, [])]),
  "b.B": ("Another.", "b", [("rate", "float", "required", "a step", [])]),
}
WANTED = """\
What it does.

Flags:
--workdir
    where to

Keys of the config with type and default, set by --config.KEY=VALUE; the config
file sets at least what is required.

part
    one
part, with name='a'
    A part.
part.size: int = 3
    rows rows rows rows rows rows rows rows rows rows rows rows rows rows rows
    rows rows rows rows rows
part, with name='b'
    Another.
part.rate: float, required
    a step
"""


class StageHelpTest(absltest.TestCase):
  def test_the_page_of_a_table(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    stage, table = folder / "go.py", folder / "table.json"
    stage.write_text('"""What it does."""\n')
    flags = [("workdir", "where to")]
    stages = {"go": {"config": "a.Config", "flags": flags}}
    table.write_text(json.dumps({"stages": stages, "sections": SECTIONS}))
    with mock.patch.object(stage_help, "TABLE", table):
      self.assertEqual(stage_help.of_stage(stage), WANTED)
      self.assertIsNone(stage_help.of_stage(folder / "stay.py"))

  def test_a_page_without_keys(self):
    self.assertEqual(
      stage_help.page("Done.", [("x", "a number")], None),
      "Done.\n\nFlags:\n--x\n    a number\n",
    )

  def test_the_shipped_table_has_every_stage_with_a_config(self):
    """The rest have the keys of another stage, or none."""
    missing = []
    for path in checkout.files("jaxalign/experiments/*.py"):
      if path.parent == checkout.LIBRARY / "experiments":
        said = stage_help.of_stage(path)
        if said is None:
          missing.append(path.stem)
        else:
          self.assertIn("\nKeys of the config", said)
    old = ["__init__", "first_hour", "probe"]
    others = ["compile", "hardware_check", "mixture_sizes"]
    self.assertCountEqual(missing, [*others, *old])


if __name__ == "__main__":
  absltest.main()
