"""The reward stage end to end: what it leaves, resumes, refuses and reads."""

import dataclasses
import json
import math
import os
import shutil
import signal
import tempfile
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reward_model import fitting, scoring
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import preemption
from jaxalign.runtime.io import artifact, metric_writer, step_guard
from tests import config_reads, shipped
from tests.experiments import interrupted


def smoke_config(**changes) -> train_reward.Config:
  """The smoke variant of the crowd config, smaller still.

  Args:
    **changes: dotted keys, with two underscores for a dot.
  """
  cfg = shipped.config("rm_bt_crowd", "smoke")
  cfg.train.update(
    num_steps=6, eval_every=3, checkpoint_every=2, num_reference=8
  )
  cfg.eval.num_samples = 20
  cfg.mesh.data = 1
  with cfg.ignore_type():
    for key, value in changes.items():
      section, _, name = key.rpartition("__")
      (cfg[section] if section else cfg)[name] = value
  return configuration.to_dataclass(train_reward.Config, cfg)


class TrainRewardTest(parameterized.TestCase):
  def run_in(self, config, workdir=None):
    workdir = epath.Path(workdir or tempfile.mkdtemp())
    train_reward.run(config, workdir, profile=False)
    return workdir

  @pytest.mark.pictures
  def test_leaves_everything_a_later_stage_reads(self):
    config = smoke_config(data__eval_files=("synthetic:two_groups:test",))
    with config_reads.recorded(config) as unread:
      workdir = self.run_in(config)
    self.assertEqual(unread, set())
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    train = [row for row in rows if "train/loss" in row]
    self.assertEqual([row["step"] for row in train], [1, 2, 3, 4, 5, 6])
    scored = [row["step"] for row in rows if "eval/nll" in row]
    self.assertEqual(scored, [3, 6])
    result = json.loads((workdir / "eval.json").read_text())
    scores = result["models"]["model"]["all"]
    self.assertEqual(scores["num_pairs"], 1000)
    self.assertAlmostEqual(
      scores["nll"]["value"], rows[-1]["eval/nll"], places=5
    )
    self.assertBetween(
      scores["accuracy"]["value"],
      scores["accuracy"]["low"],
      scores["accuracy"]["high"],
    )
    self.assertIn("bag_of_words", result["baselines"]["all"])
    self.assertIn("data:image/png", (workdir / "report.html").read_text())
    described = artifact.load_description(workdir / "model")
    self.assertEqual(described.heads, ("reward",))
    self.assertEqual(described.provenance["step"], 6)
    self.assertGreater(described.calibration["std"][0], 0)
    apply, params, network = weights.load_reward_model(str(workdir / "model"))
    self.assertEqual(network.num_outputs, 1)
    tokenizer = tokenizer_files.load_tokenizer(str(workdir / "model"))
    ids = np.array([tokenizer.encode("Q: why?")], np.int32)
    self.assertEqual(apply(params, ids, ids >= 0).shape, (1, 1))

  @parameterized.parameters(
    (None,), (dict(rank=2, alpha=4.0, targets=("query", "value")),)
  )
  def test_the_last_scores_of_training_are_those_of_the_page(self, lora):
    config = smoke_config(
      train__eval_every=None, train__num_steps=3, model__lora=lora
    )
    given = []

    def rewards_of(stage, params, pairs, *rest):
      given.append(len(pairs.dataset))
      return np.zeros((len(pairs.dataset), 2, 1), np.float32)

    with mock.patch.object(scoring, "rewards_of", rewards_of):
      self.run_in(config)
    self.assertEqual(given, [1000, 8])  # held-out pairs, then those of training

  def test_streaming_from_disk_trains_the_same_model(self):
    mixed = dict(
      data__eval_files=(),
      data__mixing="stratified",
      data__split_by="annotator",
      data__eval_fraction=0.2,
    )
    memory = self.run_in(smoke_config(**mixed))
    disk = self.run_in(smoke_config(**mixed, data__streaming=True))
    for name in ("metrics.jsonl", "model/model.safetensors"):
      self.assertEqual((disk / name).read_bytes(), (memory / name).read_bytes())
    result, streamed = (
      json.loads((workdir / "eval.json").read_text())
      for workdir in (memory, disk)
    )
    self.assertEqual(streamed["models"], result["models"])
    self.assertIn("bag_of_words", result["baselines"]["all"])
    self.assertNotIn("bag_of_words", streamed["baselines"]["all"])

  @parameterized.parameters(
    {},
    {"data__streaming": True, "data__mixing": "stratified"},
    {"data__mixing": "sequential"},
    {
      "data__train_files": ("synthetic:labels:train",),
      "recipe": {"name": "dprm", "loss": "cross_entropy"},
    },
    {  # prototypes, their moments and a queue
      "recipe": {
        "name": "contrastive",
        "loss": "swav",
        "num_prototypes": 4,
        "queue_size": 24,
      },
      "model__dropout": 0.05,
    },
  )
  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self, **changes):
    config = smoke_config(data__eval_files=(), **changes)
    interrupted.assert_resumes(
      self,
      lambda workdir: self.run_in(config, workdir),
      self.run_in(config),
      ("metrics.jsonl", "model/model.safetensors"),
      step=5,
    )

  def test_a_preempted_run_goes_on_where_it_stood(self):
    config = smoke_config(data__eval_files=(), train__checkpoint_every=6)
    straight = self.run_in(config)
    workdir = epath.Path(tempfile.mkdtemp())
    original = step_guard.StepGuard.exchange

    def asked_at_three(guard, step, *args):
      if step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
      return original(guard, step, *args)

    with (
      mock.patch.object(step_guard.StepGuard, "exchange", asked_at_three),
      self.assertRaises(SystemExit) as left,
    ):
      self.run_in(config, workdir)
    self.assertEqual(left.exception.code, preemption.EXIT_STATUS)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    self.assertEqual([row["step"] for row in rows], [1, 2, 3])
    self.assertTrue((workdir / "checkpoints/3").exists())
    self.run_in(config, workdir)
    for name in ("metrics.jsonl", "model/model.safetensors"):
      self.assertEqual(
        (workdir / name).read_bytes(), (straight / name).read_bytes()
      )

  @parameterized.parameters(((4, 1, 1),), ((1, 1, 1),))
  def test_goes_on_with_fewer_devices(self, sizes):
    names = ("data", "fsdp", "tensor")
    eight = {f"mesh__{k}": v for k, v in zip(names, (2, 2, 2), strict=True)} | {
      "mesh__rules": (("vocab", None),)
    }
    fewer = {f"mesh__{k}": v for k, v in zip(names, sizes, strict=True)}
    shared = dict(data__eval_files=(), train__checkpoint_every=3)
    straight = self.run_in(smoke_config(**shared, **eight))
    workdir = epath.Path(tempfile.mkdtemp())
    shutil.copytree(straight / "checkpoints/3", workdir / "checkpoints/3")
    shutil.copy(straight / "metrics.jsonl", workdir)
    self.run_in(smoke_config(**shared, **fewer), workdir)
    losses = [
      [
        row["train/loss"]
        for row in metric_writer.read_rows(run / "metrics.jsonl")
      ]
      for run in (workdir, straight)
    ]
    self.assertEqual(losses[0][:3], losses[1][:3])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    (one, other) = (
      weights.load_reward_model(str(run / "model"))[1]
      for run in (workdir, straight)
    )
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), one, other
    )

  def test_a_finished_run_repeats_only_its_end(self):
    config = smoke_config(data__eval_files=())
    workdir = self.run_in(config)
    before = (workdir / "metrics.jsonl").read_bytes()
    (workdir / "model/jaxalign.json").unlink()
    self.run_in(config, workdir)
    self.assertEqual((workdir / "metrics.jsonl").read_bytes(), before)
    artifact.load_description(workdir / "model")

  def test_non_finite_steps_stop_the_run_and_keep_the_checkpoint(self):
    config = smoke_config(
      data__eval_files=(), train__max_bad_steps=2, optimizer__learning_rate=1e36
    )
    workdir = epath.Path(tempfile.mkdtemp())
    with self.assertRaisesRegex(
      step_guard.NonFiniteError,
      r"step \d: train/.*not finite, 2 steps in a row.*batch ids",
    ):
      self.run_in(config, workdir)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    self.assertFalse(math.isfinite(rows[-1]["train/gradient_norm"]))
    self.assertEqual(rows[-1]["train/bad_steps"], 1)

  def test_one_compilation_per_bucket(self):
    config = smoke_config(data__eval_files=(), data__buckets=(80, 96, 128))
    counted = []
    build = fitting.build

    def counting(*args):
      stage = build(*args)
      counted.append(stage.traces)
      return stage

    fitting.build = counting
    try:
      self.run_in(config)
    finally:
      fitting.build = build
    self.assertBetween(counted[-1].count, 1, 3)

  def test_best_checkpoint_is_exported_where_asked(self):
    config = smoke_config(train__export="best", train__checkpoint_every=1)
    config = dataclasses.replace(
      config,
      train=dataclasses.replace(config.train, eval_every=1, keep_last=1),
      optimizer=dataclasses.replace(config.optimizer, learning_rate=1.0),
    )
    workdir = self.run_in(config)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    scores = {r["step"]: r["eval/nll"] for r in rows if "eval/nll" in r}
    described = artifact.load_description(workdir / "model")
    best = min(scores, key=scores.get)
    self.assertEqual(described.provenance["step"], best)
    result = json.loads((workdir / "eval.json").read_text())
    self.assertAlmostEqual(
      result["models"]["model"]["all"]["nll"]["value"], scores[best], places=5
    )

  def test_a_profile_holds_steps_after_the_first(self):
    config = smoke_config(data__eval_files=(), train__num_steps=8)
    workdir = epath.Path(tempfile.mkdtemp())
    with mock.patch.object(
      step_guard, "Profiler", wraps=step_guard.Profiler
    ) as made:
      train_reward.run(config, workdir, profile=True)
    made.assert_called_once_with(workdir / "profile", 4, 5)  # steps 4 to 8
    (trace,) = workdir.glob("profile/plugins/profile/*/*.xplane.pb")
    # Bytes: the parser of JAX 0.12 aborts on the statistics of some events.
    self.assertIn(b"step_num", trace.read_bytes())

  def test_a_batch_that_does_not_fit_the_mesh_fails_before_compiling(self):
    config = smoke_config(train__batch_size=12)
    mesh = meshes.make_mesh(meshes.MeshConfig(8, 1, 1))
    with self.assertRaisesRegex(ValueError, "got 12 and 8 x 1 x 1 = 8"):
      train_reward.build(config, mesh)

  def test_build_gives_what_the_loop_uses(self):
    stage = train_reward.build(
      smoke_config(mesh__rules=(("vocab", None),)),
      meshes.make_mesh(meshes.MeshConfig(2, 2, 2)),
    )
    made = stage.init(jax.random.key(0))
    self.assertEqual(
      jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), made),
      jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), stage.state),
    )
    self.assertEqual(stage.batch["tokens"].shape, (8, 2, 128))


class GoldenTest(absltest.TestCase):
  """One step on fixed data.

  If this fails, a change altered what training computes. Was that the point? If
  so, say in the commit what moved and why, and put the new numbers here; if
  not, the change is wrong. Initialisation, data order, dropout keys, loss and
  optimiser all enter.
  """

  def test_first_two_steps(self):
    config = smoke_config(data__eval_files=(), train__num_steps=3)
    workdir = tempfile.mkdtemp()
    train_reward.run(config, epath.Path(workdir), profile=False)
    rows = metric_writer.read_rows(epath.Path(workdir) / "metrics.jsonl")
    got = [[row["train/loss"], row["train/gradient_norm"]] for row in rows]
    np.testing.assert_allclose(got, GOLDEN, rtol=1e-4)


GOLDEN = ((0.742360, 23.863113), (0.740559, 20.229387), (0.610113, 11.096543))

if __name__ == "__main__":
  absltest.main()
