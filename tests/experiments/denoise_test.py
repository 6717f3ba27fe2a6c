"""The denoise stage end to end: what it leaves, resumes and hands on."""

import gzip
import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign import models
from jaxalign.data.records import reader
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import denoise
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.runtime.io import metric_writer
from tests import config_reads, shipped
from tests.experiments import interrupted
from tests.models.hf import families_test
from tests.models.samples import start

CROWD = (
  "synthetic:one_taste,temperature=0.05,label_noise=0.4,judge=true,"
  "num_annotators=10,num_test_annotators=4:"
)


def smoke_config(**changes) -> denoise.Config:
  """The smoke variant, smaller still; `a__b` sets `a.b`."""
  cfg = shipped.config("denoise_crowd", "smoke")
  cfg.data.update(train_files=(f"{CROWD}train",), eval_files=())
  cfg.train.update(num_steps=4, checkpoint_every=2)
  cfg.mesh.data = 1
  with cfg.ignore_type():
    for key, value in changes.items():
      section, _, name = key.rpartition("__")
      (cfg[section] if section else cfg)[name] = value
  return configuration.to_dataclass(denoise.Config, cfg)


class DenoiseTest(absltest.TestCase):
  def run_in(self, config, workdir=None):
    workdir = epath.Path(workdir or tempfile.mkdtemp())
    denoise.run(config, workdir)
    return workdir

  def test_leaves_the_same_records_with_strengths_and_a_page(self):
    config = smoke_config(data__eval_files=(f"{CROWD}test",))
    with config_reads.recorded(config) as unread:
      workdir = self.run_in(config)
    self.assertEqual(unread, {"train.eval_every"} & unread)
    result = json.loads((workdir / "eval.json").read_text())
    for name, files in (
      ("train", config.data.train_files),
      ("eval", config.data.eval_files),
    ):
      given, _ = reader.read_records(files)
      found, _ = reader.read_records([str(workdir / f"{name}.jsonl.gz")])
      self.assertEqual(len(found), len(given))
      for old, new in zip(given, found, strict=True):
        self.assertGreaterEqual(new.strength_std, 0)
        row = new.to_row()
        del row["strength"], row["strength_std"]
        self.assertEqual(row, old.to_row())
      strengths = np.array([record.strength for record in found])
      self.assertAlmostEqual(result[name]["mean"], strengths.mean(), 5)
      self.assertGreater(np.unique(strengths).size, len(found) // 2)
      judged = sum(record.judge_prob != 0.5 for record in found)
      self.assertEqual(result[name]["judge"]["judged"], judged)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    self.assertEqual(
      [row["step"] for row in rows if "train/loss" in row], [1, 2, 3, 4]
    )
    page = (workdir / "report.html").read_text()
    weakest = min(
      reader.read_records([str(workdir / "train.jsonl.gz")])[0],
      key=lambda record: record.strength,
    )
    self.assertIn(weakest.id, page)
    self.assertIn(f"{weakest.strength:.3f}", page)
    self.assertIn("second judge contradicts", page)
    for heading in ("Most suspicious", "Most ambiguous", "Strengths, eval"):
      self.assertIn(heading, page)

  def test_heads_on_features_are_trained_side_by_side_or_in_turns(self):
    folder = tempfile.mkdtemp()
    config = families_test.tiny(
      "llama", vocab_size=259, max_positions=128, pad_id=256
    )
    _, params = start(config)
    models.save_pretrained(folder, params, config)
    tokenizer_files.byte_tokenizer().save(folder)
    given = {
      "model__architecture": None,
      "model__init_from": folder,
      "model__trainable": "head",
      "model__features": tempfile.mkdtemp(),
      "data__tokenizer": None,
      "data__eval_files": (f"{CROWD}test",),
    }
    found = []
    for at_once in (None, 1):
      workdir = self.run_in(smoke_config(**given, ensemble__at_once=at_once))
      records, _ = reader.read_records([str(workdir / "train.jsonl.gz")])
      found.append([(r.strength, r.strength_std) for r in records])
      self.assertTrue((workdir / "eval.jsonl.gz").exists())
    np.testing.assert_allclose(*found, atol=1e-5)
    strengths, stds = np.array(found[0]).T
    self.assertGreater(np.unique(strengths).size, len(strengths) // 2)
    self.assertTrue(np.all(stds > 0))

  def test_members_in_turns_give_the_same_strengths(self):
    lines = [
      gzip.decompress((folder / "train.jsonl.gz").read_bytes()).splitlines()
      for folder in (
        self.run_in(smoke_config()),
        self.run_in(smoke_config(ensemble__at_once=1)),
      )
    ]
    together, one_by_one = (
      np.array([json.loads(line)["strength"] for line in part])
      for part in lines
    )
    self.assertGreater(np.abs(together).max(), 0.1)
    np.testing.assert_allclose(one_by_one, together, atol=1e-4)

  def test_members_at_once_must_divide_them(self):
    for at_once in (2, 0):
      with self.assertRaisesRegex(ValueError, f"members 3, got {at_once}"):
        smoke_config(ensemble__at_once=at_once)

  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self):
    config = smoke_config()
    workdir = interrupted.assert_resumes(
      self,
      lambda workdir: self.run_in(config, workdir),
      self.run_in(config),
      ("metrics.jsonl", "train.jsonl.gz", "eval.json", "report.html"),
      step=3,
    )
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    got = [[row["train/loss"], row["train/gradient_norm"]] for row in rows]
    np.testing.assert_allclose(got, GOLDEN, rtol=1e-4)

  def test_a_stream_of_rankings_becomes_its_pairs(self):
    path = epath.Path(tempfile.mkdtemp()) / "ranked.jsonl"
    lines = [
      {"prompt": f"Q{i}", "responses": ["a", "bb", "ccc"], "id": f"r{i}"}
      for i in range(8)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    config = smoke_config(
      data__train_files=(str(path),),
      data__streaming=True,
      train__num_steps=1,
      train__checkpoint_every=1,
      optimizer__warmup_steps=0,
    )
    workdir = self.run_in(config)
    rows = [
      json.loads(line)
      for line in gzip.decompress(
        (workdir / "train.jsonl.gz").read_bytes()
      ).splitlines()
    ]
    self.assertLen(rows, 24)
    self.assertEqual(rows[1]["id"], "r0-0-2")
    self.assertIn("strength_std", rows[1])
    pairs = preferences.load_pairs(
      config.data,
      (str(workdir / "train.jsonl.gz"),),
      preferences.open_tokenizer(config.data, None),
    )
    self.assertFalse(np.isnan(pairs.dataset.strength).any())


# Of the ensemble's mean loss and gradient norm: see recipes_test.
GOLDEN = (
  (0.745474, 16.335402),
  (0.716680, 14.922882),
  (0.738069, 12.480688),
  (0.919031, 18.546432),
)

if __name__ == "__main__":
  absltest.main()
