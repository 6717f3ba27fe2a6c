"""Direct preference optimisation end to end: leaves, resumes, reads, caches."""

import json
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import models
from jaxalign.experiments import train_dpo
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reward_model import scoring
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact, metric_writer
from tests import config_reads, shipped
from tests.experiments import interrupted

CROWD = "synthetic:two_groups,num_annotators=8,num_test_annotators=6"
EM = {
  "name": "em_dpo",
  "num_components": 2,
  "num_users": 8,
  "steps_per_round": 2,
}
LORA = {"rank": 2, "alpha": 4.0, "targets": ("query", "value")}


def smoke_config(**changes) -> train_dpo.Config:
  """The smoke variant of the crowd config, smaller still; `a__b` sets `a.b`."""
  cfg = shipped.config("dpo_crowd", "smoke")
  cfg.data.update(train_files=(f"{CROWD}:train",), buckets=(128,))
  cfg.data.eval_files = ()
  cfg.train.update(num_steps=6, eval_every=3, checkpoint_every=2)
  cfg.optimizer.warmup_steps = 0
  cfg.eval.num_samples = 20
  cfg.mesh.data = 1
  with cfg.ignore_type():
    for key, value in changes.items():
      section, _, name = key.rpartition("__")
      (cfg[section] if section else cfg)[name] = value
  return configuration.to_dataclass(train_dpo.Config, cfg)


class TrainDpoTest(parameterized.TestCase):
  def run_in(self, config, workdir=None):
    workdir = epath.Path(workdir or tempfile.mkdtemp())
    train_dpo.run(config, workdir, profile=False)
    return workdir

  def test_leaves_a_policy_and_its_page(self):
    config = smoke_config(data__eval_files=(f"{CROWD}:test",))
    with config_reads.recorded(config) as unread:
      workdir = self.run_in(config)
    self.assertEqual(unread, set())
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    train = [row for row in rows if "train/loss" in row]
    self.assertEqual([row["step"] for row in train], [1, 2, 3, 4, 5, 6])
    # The policy is its own reference before the first step.
    self.assertAlmostEqual(train[0]["train/loss"], np.log(2), places=5)
    self.assertAlmostEqual(train[0]["train/chosen_reward"], 0.0, places=4)
    self.assertNotEqual(train[-1]["train/reward_gap"], 0.0)
    result = json.loads((workdir / "eval.json").read_text())
    scores = result["models"]["policy"]["all"]
    self.assertEqual(scores["num_pairs"], 120)
    scored = [row for row in rows if "eval/nll" in row]
    self.assertAlmostEqual(
      scores["nll"]["value"], scored[-1]["eval/nll"], places=5
    )
    self.assertIn("brief", json.dumps(result["breakdown"]))
    self.assertTrue((workdir / "report.html").exists())
    described = artifact.load_description(workdir / "model")
    self.assertEqual(described.kind, "policy")
    _, params, network = models.load_causal_lm(str(workdir / "model"))
    self.assertIsNone(network.num_outputs)
    self.assertNotEmpty(params)

  def test_single_responses_of_trl_form_train_a_policy(self):
    file = pathlib.Path(tempfile.mkdtemp()) / "thumbs.jsonl"
    rows = [
      {"prompt": f"Q{i // 2}: ", "completion": "yes" * (i % 3 + 1),
       "label": i % 3 == 0}
      for i in range(40)
    ]  # fmt: skip
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = smoke_config(
      recipe={"name": "kto"},
      data__train_files=(str(file),),
      data__eval_files=(f"{CROWD}:test",),
    )
    with config_reads.recorded(config) as unread:
      workdir = self.run_in(config)
    # The loss is refused as a whole where it is not the plain one.
    self.assertEqual({n.partition(".")[0] for n in unread}, {"loss"})
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    train = [row for row in rows if "train/loss" in row]
    # The policy is its own reference: σ(0) for either label.
    self.assertAlmostEqual(train[0]["train/loss"], 0.5, places=5)
    self.assertAlmostEqual(train[0]["train/kl"], 0.0, places=4)
    self.assertNotEqual(train[-1]["train/desirable_reward"], 0.0)
    self.assertTrue(any("eval/nll" in row for row in rows))
    result = json.loads((workdir / "eval.json").read_text())
    self.assertEqual(result["models"]["policy"]["all"]["num_pairs"], 120)
    self.assertTrue((workdir / "model").exists())

  def test_kto_goes_with_no_coupling_and_no_other_loss(self):
    kto = {"name": "kto"}
    with self.assertRaisesRegex(ValueError, "reference point couples all"):
      smoke_config(recipe=kto, coupling={"name": "group_dro"}).made()
    with self.assertRaisesRegex(ValueError, "'kto' has a loss of its own"):
      smoke_config(recipe=kto, loss={"labels": "votes"}).made()

  @parameterized.parameters(
    {"model__lora": LORA, "coupling": {"name": "group_dro"}},
    {"recipe": EM},
  )
  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self, **changes):
    config = smoke_config(**changes)
    straight = self.run_in(config)
    workdir = epath.Path(tempfile.mkdtemp())
    with interrupted.once_written(self, step=5):
      self.run_in(config, workdir)
    read = []
    original_rewards = scoring.rewards_of

    def counting(stage, params, pairs, *rest):
      read.append(stage.num_rewards)
      return original_rewards(stage, params, pairs, *rest)

    with mock.patch.object(scoring, "rewards_of", counting):
      self.run_in(config, workdir)
    # The reference's file is read, not made again; E-steps alone score.
    self.assertNotIn(1, read)
    files = ["metrics.jsonl"]
    files += [
      path.relative_to(straight).as_posix()
      for path in pathlib.Path(straight).rglob("model.safetensors")
    ]
    self.assertLen(files, 3 if "recipe" in changes else 2)
    for name in files:
      self.assertEqual(
        (workdir / name).read_bytes(), (straight / name).read_bytes(), name
      )

  def test_two_policies_for_two_groups(self):
    config = smoke_config(recipe=EM, data__eval_files=(f"{CROWD}:test",))
    workdir = self.run_in(config)
    found = [
      models.load_causal_lm(str(workdir / "policies" / name))[1]
      for name in ("component_0", "component_1")
    ]
    differ = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *found)
    self.assertGreater(max(jax.tree.leaves(differ)), 0)
    result = json.loads((workdir / "eval.json").read_text())
    self.assertLen(result["mixtures"]["policy"]["weights"], 2)
    self.assertTrue((workdir / "mixture.json").exists())

  def test_another_reference_and_a_shared_cache(self):
    start = self.run_in(smoke_config(train__num_steps=2))
    cache = tempfile.mkdtemp()
    config = smoke_config(
      reference=str(start / "model"),
      reference_cache=cache,
      train__num_steps=1,
      train__checkpoint_every=1,
    )
    first = self.run_in(config)
    row = metric_writer.read_rows(first / "metrics.jsonl")[0]
    self.assertNotAlmostEqual(row["train/loss"], np.log(2), places=4)
    self.assertLen([*epath.Path(cache).glob("*.npy")], 1)
    self.assertFalse((first / "reference").exists())
    self.run_in(config)  # reads it
    self.assertLen([*epath.Path(cache).glob("*.npy")], 1)

  def test_simpo_asks_no_reference(self):
    workdir = self.run_in(
      smoke_config(recipe={"name": "simpo"}, train__num_steps=2)
    )
    self.assertFalse((workdir / "reference").exists())

  @parameterized.parameters(
    ({"coupling": {"name": "more"}},),
    ({"recipe": EM, "model__lora": LORA},),
    ({"recipe": {"name": "ipo"}, "train__accumulation": 2},),
  )
  def test_build_gives_what_the_loop_uses(self, changes):
    if "coupling" in changes:
      changes["coupling"] = {"name": "more", "num_sources": 2}
    stage = train_dpo.build(
      smoke_config(mesh__rules=(("vocab", None),), **changes),
      meshes.make_mesh(meshes.MeshConfig(2, 2, 2)),
    )
    made = stage.init(jax.random.key(0))
    shown = lambda tree: jax.tree.map(
      lambda x: (x.shape, x.dtype, x.sharding), tree
    )
    self.assertEqual(shown(made), shown(stage.state))
    self.assertEqual(shown(stage.whole(made)), shown(stage.params))
    self.assertEqual(stage.batch["response"].shape, (8, 2, 128))

  def test_what_does_not_go_together_ends_before_data_is_read(self):
    for changes, said in (
      (
        {"recipe": EM, "coupling": {"name": "more"}},
        "'em_dpo' does not go with coupling 'more'.*take recipe 'dpo'",
      ),
      (
        {"recipe": {"name": "robust_dpo"}, "loss__labels": "votes"},
        "recipe 'dpo' takes them",
      ),
      (
        {"train__export": "best"},
        "export='best' needs data.eval_files",
      ),
    ):
      config = smoke_config(data__train_files=("nowhere.jsonl",), **changes)
      with self.assertRaisesRegex(ValueError, said):
        self.run_in(config)


GOLDEN = ((0.693147, 1.900037), (0.688270, 1.970545), (0.689597, 1.715548))


class GoldenTest(absltest.TestCase):
  """Three steps on fixed data; CONTRIBUTING.md says how to judge a change."""

  def test_first_steps(self):
    config = smoke_config(train__num_steps=3)
    workdir = epath.Path(tempfile.mkdtemp())
    train_dpo.run(config, workdir, profile=False)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    got = [[row["train/loss"], row["train/gradient_norm"]] for row in rows]
    np.testing.assert_allclose(got, GOLDEN, rtol=1e-4)


if __name__ == "__main__":
  absltest.main()
