"""Training adapters in place of parameters: what moves, is kept and left."""

import dataclasses
import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import sft, train_reward
from jaxalign.experiments.common import stage as training
from jaxalign.models import lora
from jaxalign.models.hf import peft, weights
from jaxalign.models.lora import LoraConfig
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact, metric_writer
from tests import config_reads
from tests.experiments import interrupted, sft_test, train_reward_test

RANK = LoraConfig(rank=2, alpha=4.0, targets=("query", "value"))


def smoke_config(**changes) -> train_reward.Config:
  config = train_reward_test.smoke_config(
    data__eval_files=(), train__num_steps=4, train__eval_every=None, **changes
  )
  model = dataclasses.replace(config.model, lora=RANK)
  return dataclasses.replace(config, model=model)


class AdaptersTest(parameterized.TestCase):
  def run_in(self, config, workdir=None):
    workdir = epath.Path(workdir or tempfile.mkdtemp())
    train_reward.run(config, workdir, profile=False)
    return workdir

  def test_the_model_is_the_first_base_and_the_trained_adapters(self):
    config = smoke_config()
    with config_reads.recorded(config) as unread:
      workdir = self.run_in(config)
    self.assertEmpty({key for key in unread if key.startswith("model")})
    stage = train_reward.build(config, meshes.make_mesh(config.mesh))
    first = stage.init(jax.random.split(jax.random.key(config.seed))[0])
    base = jax.device_get(first.frozen)
    adapters, low_rank = peft.load_adapters(
      workdir / "adapters", base, stage.network
    )
    self.assertEqual(low_rank, dataclasses.replace(RANK))
    merged = lora.merge(base, adapters, stage.network, low_rank)
    saved = weights.load_params(str(workdir / "model"), stage.network)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      jax.device_get(saved),
      jax.device_get(merged),
    )
    # What no adapter touches is the base's, and the adapters have moved.
    jax.tree.map(
      np.testing.assert_array_equal,
      jax.device_get(saved["embed"]),
      base["embed"],
    )
    moved = [
      np.abs(part["b"]).max() for k, part in adapters.items() if k != "score"
    ]
    self.assertGreater(min(moved), 1e-4)

  def test_each_of_several_models_leaves_its_adapters(self):
    mixture = dict(
      name="mixture",
      num_components=2,
      num_users=4,
      steps_per_round=2,
      separate=True,
    )
    config = smoke_config(recipe=mixture)
    stage = train_reward.build(config, meshes.make_mesh(config.mesh))
    state = stage.init(jax.random.split(jax.random.key(0))[0])
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
      lambda leaf: leaf + rng.normal(size=leaf.shape).astype(leaf.dtype),
      jax.device_get(state.params),
    )
    state = state._replace(params=moved)
    workdir = epath.Path(tempfile.mkdtemp())
    description = artifact.Description(
      **dict.fromkeys(("calibration", "utilities", "mixture_weights")),
      kind="reward",
      heads=("one",),
      max_length=64,
      provenance={},
    )
    folders = training.export_copies(
      stage,
      config.model,
      state,
      {"models/one": description, "models/other": description},
      workdir,
      tokenizer_files.byte_tokenizer(),
    )
    self.assertEqual(
      folders, [workdir / "models" / n for n in ("one", "other")]
    )
    base = jax.device_get(state.frozen)
    for k, folder in enumerate(folders):
      adapters, low_rank = peft.load_adapters(
        workdir / "adapters" / folder.name, base, stage.network
      )
      jax.tree.map(
        lambda got, all_of, k=k: np.testing.assert_allclose(
          got, all_of[k], rtol=1e-6, atol=1e-6
        ),
        adapters,
        moved,
      )
      saved = weights.load_params(str(folder), stage.network)
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.device_get(saved),
        jax.device_get(lora.merge(base, adapters, stage.network, low_rank)),
      )

  def test_the_first_step_sees_the_same_loss_as_without_adapters(self):
    with_adapters = metric_writer.read_rows(
      self.run_in(smoke_config()) / "metrics.jsonl"
    )
    config = smoke_config()
    plain = dataclasses.replace(
      config, model=dataclasses.replace(config.model, lora=None)
    )
    without = metric_writer.read_rows(self.run_in(plain) / "metrics.jsonl")
    self.assertEqual(with_adapters[0]["train/loss"], without[0]["train/loss"])
    self.assertNotEqual(
      with_adapters[-1]["train/loss"], without[-1]["train/loss"]
    )

  def test_the_optimiser_and_checkpoints_hold_adapters_alone(self):
    config = smoke_config()
    stage = train_reward.build(config, meshes.make_mesh(config.mesh))
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    adapters = count(stage.state.params)
    self.assertLess(adapters, count(stage.state.frozen) / 10)
    self.assertLess(count(stage.state.opt_state), 2 * adapters + 10)

  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self):
    config = smoke_config()
    interrupted.assert_resumes(
      self,
      lambda workdir: self.run_in(config, workdir),
      self.run_in(config),
      ("metrics.jsonl", "model/model.safetensors"),
      step=3,
    )

  def test_a_policy_is_tuned_by_adapters_too(self):
    config = sft_test.smoke_config(
      data__eval_files=("synthetic:two_groups:test",), train__num_steps=4
    )
    config = dataclasses.replace(
      config, model=dataclasses.replace(config.model, lora=RANK)
    )
    workdir = epath.Path(tempfile.mkdtemp())
    sft.run(config, workdir)
    self.assertTrue((workdir / "adapters/adapter_config.json").exists())
    weights.load_causal_lm(str(workdir / "model"))


if __name__ == "__main__":
  absltest.main()
