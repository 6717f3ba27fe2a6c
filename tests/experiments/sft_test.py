"""Supervised tuning end to end: what it leaves, resumes, learns and reads."""

import dataclasses
import json
import os
import tempfile

import jax
import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign import models
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import sft
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import section
from jaxalign.experiments.datasets import sft as sft_data
from jaxalign.experiments.policy import likelihood
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact, metric_writer
from tests import config_reads, shipped
from tests.experiments import interrupted


def smoke_config(variant="smoke", **changes) -> sft.Config:
  """A variant of the crowd config, smaller still; `a__b` sets `a.b`."""
  cfg = shipped.config("sft_crowd", variant)
  cfg.train.update(num_steps=6, eval_every=3, checkpoint_every=2)
  cfg.mesh.data = 1
  with cfg.ignore_type():
    for key, value in changes.items():
      section, _, name = key.rpartition("__")
      (cfg[section] if section else cfg)[name] = value
  return configuration.to_dataclass(sft.Config, cfg)


class SftTest(absltest.TestCase):
  def run_in(self, config, workdir=None):
    workdir = epath.Path(workdir or tempfile.mkdtemp())
    sft.run(config, workdir)
    return workdir

  def test_leaves_a_policy_that_generates(self):
    config = smoke_config(data__eval_files=("synthetic:two_groups:test",))
    with config_reads.recorded(config) as unread:
      workdir = self.run_in(config)
    self.assertEqual(unread, set())
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    train = [row for row in rows if "train/loss" in row]
    self.assertEqual([row["step"] for row in train], [1, 2, 3, 4, 5, 6])
    for row in train:
      self.assertAlmostEqual(row["train/loss"], row["train/nll"], places=5)
    self.assertLess(train[-1]["train/nll"], train[0]["train/nll"])
    scored = [row["step"] for row in rows if "eval/nll" in row]
    self.assertEqual(scored, [3, 6])
    result = json.loads((workdir / "eval.json").read_text())
    self.assertAlmostEqual(result["eval/nll"], rows[-1]["eval/nll"], places=5)
    described = artifact.load_description(workdir / "model")
    self.assertEqual(described.kind, "policy")
    _, params, network = models.load_causal_lm(str(workdir / "model"))
    tokenizer = tokenizer_files.load_tokenizer(str(workdir / "model"))
    prompts = np.array([tokenizer.encode("Q: why?")], np.int32)
    out = models.generate(
      network,
      params,
      prompts,
      prompts >= 0,
      keys=jax.random.split(jax.random.key(0), 1),
      max_new_tokens=5,
      pad_id=tokenizer.pad_id,
    )
    self.assertEqual(out.tokens.shape, (1, 5))

  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self):
    config = smoke_config(data__eval_files=())
    interrupted.assert_resumes(
      self,
      lambda workdir: self.run_in(config, workdir),
      self.run_in(config),
      ("metrics.jsonl", "model/model.safetensors"),
      step=5,
    )

  def test_packing_does_not_change_the_likelihood(self):
    config = smoke_config()
    mesh = meshes.make_mesh(config.mesh)
    stage = sft.build(config, mesh)
    params = stage.init(jax.random.key(0)).params
    tokenizer = section.open_tokenizer(config.data, None)
    held_out = sft_data.load_texts(
      config.data, config.data.eval_files, tokenizer
    )
    alone = [[piece] for row in held_out.rows for piece in row]
    self.assertGreater(len(alone), 1.2 * len(held_out))
    apart = dataclasses.replace(
      held_out, rows=alone, source=np.zeros(len(alone), np.int32)
    )
    packed, unpacked = (
      likelihood.make_measure(config.data, (), stage, mesh, rows, tokenizer)(
        params
      )
      for rows in (held_out, apart)
    )
    np.testing.assert_allclose(
      packed["eval/nll"], unpacked["eval/nll"], rtol=1e-5
    )

  def test_goes_on_from_the_small_story_model(self):
    if "JAXALIGN_DATA" not in os.environ:
      self.skipTest("JAXALIGN_DATA is not set")
    config = smoke_config(
      "stories",
      train__num_steps=4,
      train__batch_size=8,
      optimizer__warmup_steps=1,
    )
    workdir = self.run_in(config)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    # The model wrote these openings, so they are likely from the start.
    self.assertLess(rows[0]["train/nll"], 2.0)
    self.assertLess(rows[-1]["train/nll"], rows[0]["train/nll"] + 0.2)


if __name__ == "__main__":
  absltest.main()
