"""The command that makes tables from features: what is kept, and its commit."""

import contextlib
import io
import pathlib
import runpy
import sys
import tempfile
import types
import unittest.mock

import numpy as np
from absl.testing import absltest

from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_features.py"))


class TableTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.loaded, self.shown = [], {}

    def load(named, row):
      self.loaded.append(row)
      return lambda seed: {"value": np.full(2, seed), "row": row}

    study = types.SimpleNamespace(
      load=load, show=lambda runs, png: self.shown.update(runs)
    )
    table = SCRIPT["Table"](study, ("one", "one:control"))
    self.enter_context(
      unittest.mock.patch.dict(SCRIPT["TABLES"], {"toy": table})
    )

  def run_it(self, *words, commit="abc1234"):
    given = ["--model=m", "--data=d", f"--workdir={self.folder}", *words]
    out = io.StringIO()
    main = SCRIPT["main"]
    with (
      unittest.mock.patch.dict(main.__globals__, {"commit": lambda: commit}),
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      main(["toy", *given])
    return out.getvalue()

  def test_seeds_that_are_there_do_not_run_again_and_name_their_commit(self):
    printed = self.run_it("--seeds=2")
    self.assertEqual(self.loaded, ["one", "one:control"])
    self.assertStartsWith(printed, "toy: commit abc1234; 2 seeds of 2 rows")
    np.testing.assert_array_equal(self.shown["one"][1]["value"], [1, 1])
    printed = self.run_it("--seeds=3", "one", commit="def5678")
    self.assertEqual(self.loaded, ["one", "one:control", "one"])
    self.assertIn("commit abc1234, def5678; 3 seeds of 1 rows", printed)
    self.assertTrue((self.folder / "one_control_1.npz").exists())
    self.assertFalse((self.folder / "one_control_2.npz").exists())

  def test_an_unknown_row_is_named_with_those_there_are(self):
    error = io.StringIO()
    with contextlib.redirect_stderr(error), self.assertRaises(SystemExit):
      SCRIPT["main"](
        ["toy", "two", "--model=m", "--data=d", f"--workdir={self.folder}"]
      )
    self.assertIn("rows of toy are one, one:control, got two", error.getvalue())

  def test_every_table_has_a_study_with_rows(self):
    for table in SCRIPT["TABLES"].values():
      self.assertTrue(callable(table.study.load))
      self.assertTrue(callable(table.study.show))
      self.assertNotEmpty(table.rows)


if __name__ == "__main__":
  absltest.main()
