"""Every command block of README and the guides runs as it is pasted."""

import gzip
import importlib.util
import json
import os
import pathlib
import tempfile

import pytest
from absl.testing import absltest, parameterized

from tests import checkout, documented

PAGES = (
  "README.md",
  *(checkout.relative(p) for p in checkout.files("docs/*.md")),
)
# What pages take as given: runs that a reader has made before.
EARLIER = """
python -m jaxalign.experiments.train_reward \
    --config=configs/rm_bt_crowd.py --workdir=runs/rm_bt_crowd
"""
TUNED = """
python -m jaxalign.experiments.sft \
    --config=configs/sft_crowd.py --workdir=runs/sft_crowd
"""
GUIDES = sorted(
  name
  for name in PAGES
  if name.startswith("docs/")
  # A test of the launchers runs it against stand-ins for the clouds.
  and name != "docs/launch.md"
  and any(
    block.reason is None for block in documented.blocks(checkout.ROOT / name)
  )
)
# What FOLDER is: a language model where the page trains one further.
MODELS = {"docs/from_hf.md": "runs/sft_crowd/model"}


def pairs(number: int) -> str:
  """Pairs of the reader's own, a line each."""
  rows = [
    {
      "prompt": f"Question {i}: why?",
      "chosen": f" Because of {i}." if i % 2 else " So it is.",
      "rejected": " No." * (1 + i % 3),
      "annotator": f"person {i % 7}",
    }
    for i in range(number)
  ]
  return "".join(f"{json.dumps(row)}\n" for row in rows)


class CommandsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    (self.folder / "train.jsonl").write_text(pairs(60))
    with gzip.open(self.folder / "test.jsonl.gz", "wt") as file:
      file.write(pairs(30))

  def paste(self, name, *, earlier=""):
    """Runs a page's blocks where the reader's files are."""
    torch = importlib.util.find_spec("torch")
    chosen = [
      block
      for block in documented.blocks(checkout.ROOT / name)
      if block.reason is None
      and (torch or "jaxalign.experiments.verify" not in block.text)
    ]
    self.assertNotEmpty(chosen)
    before = [documented.Block(0, earlier, None)] if earlier else []
    folder = MODELS.get(name, "runs/rm_bt_crowd/model")
    given = {"FOLDER": folder, "ID": "my-project"}
    done = documented.run([*before, *chosen], self.folder, given)
    self.assertEqual(done.returncode, 0, done.stdout[-5000:])
    for block in chosen:
      self.assertIn(f"== line {block.line}\n", done.stdout)

  def test_readme(self):
    self.paste("README.md", earlier=EARLIER)
    for run in ("mine", "audit", "pipeline_crowd"):
      self.assertTrue((self.folder / "runs" / run / "report.html").exists())
    self.assertTrue((self.folder / "runs/mine/model").is_dir())

  @parameterized.parameters(*GUIDES)
  @pytest.mark.slow
  def test_guide(self, name):
    page = (checkout.ROOT / name).read_text(encoding="utf-8")
    if "'$JAXALIGN_DATA/" in page and "JAXALIGN_DATA" not in os.environ:
      self.skipTest("JAXALIGN_DATA is not set")
    self.paste(name, earlier=EARLIER + TUNED)

  def test_what_is_not_run_says_why(self):
    for name in PAGES:
      for block in documented.blocks(checkout.ROOT / name):
        if block.reason is not None:
          self.assertGreater(
            len(block.reason.split()), 2, f"{name}:{block.line}"
          )

  def test_a_command_that_fails_is_noticed_with_its_block(self):
    block = documented.Block(7, "python -c 'import absent_module'\n", None)
    done = documented.run([block], self.folder, {})
    self.assertNotEqual(done.returncode, 0)
    self.assertIn("== line 7", done.stdout)
    self.assertIn("absent_module", done.stdout)

  def test_only_what_takes_long_is_shortened(self):
    self.assertEqual(
      documented.shortened(
        "for seed in 0 1 2; do for variant in full \\\n  mean; do\n"
        "python -m jaxalign.experiments.sft --config=configs/a.py:$variant \\\n"
        "    --config.seed=$seed --workdir=runs/a\n"
        "done; done\n"
        "for policy in one two; do echo; done\n"
        "bash launch/test.sh --all\n"
        "python -m x --config=configs/b.py --config.seed=1\n"
        "python -m x --config=configs/b.py:opt_2_7b configs/b.py:fixed\n"
        "python -m x --config=configs/b.py:opt_2_7b,smoke configs/b.py:smoke\n"
      ),
      "for seed in 0; do for variant in full; do\n"
      "python -m jaxalign.experiments.sft --config=configs/a.py:smoke \\\n"
      "    --config.seed=$seed --workdir=runs/a\n"
      "done; done\n"
      "for policy in one two; do echo; done\n"
      "script launch/test.sh --all\n"
      "python -m x --config=configs/b.py:smoke --config.seed=1\n"
      "python -m x --config=configs/b.py:opt_2_7b,smoke configs/b.py:smoke\n"
      "python -m x --config=configs/b.py:opt_2_7b,smoke configs/b.py:smoke\n",
    )


if __name__ == "__main__":
  absltest.main()
