"""Notebooks are small, whole, and print today what they show."""

import contextlib
import io
import json
import os
import re
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from matplotlib import pyplot

from tests import checkout

NOTEBOOKS = [(path.name,) for path in checkout.files("notebooks/*.ipynb")]
MAX_BYTES = 100_000
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def cells(name: str) -> list[dict]:
  path = checkout.ROOT / "notebooks" / name
  return json.loads(path.read_text(encoding="utf-8"))["cells"]


def printed(cell: dict) -> str:
  """What a cell shows as text."""
  return "".join(
    line
    for output in cell.get("outputs", [])
    if output["output_type"] == "stream"
    for line in output["text"]
  )


class NotebooksTest(parameterized.TestCase):
  def assert_says(self, got, want):
    """The same words; numbers up to what another machine may round."""
    self.assertEqual(NUMBER.sub("#", got), NUMBER.sub("#", want))
    np.testing.assert_allclose(
      *([float(n) for n in NUMBER.findall(text)] for text in (got, want)),
      rtol=0.05,
      atol=0.02,
    )

  def test_other_words_or_numbers_are_noticed(self):
    self.assert_says("0.81 of 10\n", "0.82 of 10\n")
    for other in ("0.91 of 10\n", "0.82 for 10\n", "0.82 of 10 10\n", ""):
      with self.assertRaises(AssertionError):
        self.assert_says(other, "0.82 of 10\n")

  @parameterized.parameters(*NOTEBOOKS)
  def test_it_is_small_and_was_run_from_top_to_bottom(self, name):
    path = checkout.ROOT / "notebooks" / name
    self.assertLess(path.stat().st_size, MAX_BYTES)
    content = json.loads(path.read_text(encoding="utf-8"))
    self.assertEqual(content["nbformat"], 4)
    self.assertEqual(content["metadata"]["language_info"], {"name": "python"})
    code = [c for c in content["cells"] if c["cell_type"] == "code"]
    counts = [c["execution_count"] for c in code]
    self.assertEqual(counts, [*range(1, len(code) + 1)])
    for cell in content["cells"]:
      self.assertEqual(cell["metadata"], {})
      kinds = [output["output_type"] for output in cell.get("outputs", [])]
      self.assertNotIn("error", kinds)
      # A link among notebooks and pages leads nowhere in a hosted notebook.
      self.assertNotIn("](", "".join(cell["source"]))

  @parameterized.parameters(*NOTEBOOKS)
  @pytest.mark.slow
  def test_it_prints_what_it_shows(self, name):
    names = {}
    with (
      jax.numpy_dtype_promotion("standard"),
      jax.numpy_rank_promotion("allow"),
      mock.patch.object(pyplot, "show"),
      mock.patch.dict(os.environ),
    ):
      # What a cell starts has one device, as the reader's has.
      os.environ.pop("XLA_FLAGS", None)
      for number, cell in enumerate(cells(name)):
        if cell["cell_type"] != "code":
          continue
        out = io.StringIO()
        code = compile("".join(cell["source"]), f"{name}:{number}", "exec")
        with contextlib.redirect_stdout(out):
          exec(code, names)  # noqa: S102
        self.assert_says(out.getvalue(), printed(cell))
        pictures = [
          output
          for output in cell["outputs"]
          if output["output_type"] == "display_data"
        ]
        self.assertLen(pyplot.get_fignums(), len(pictures))
        pyplot.close("all")


if __name__ == "__main__":
  absltest.main()
