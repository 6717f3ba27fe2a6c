"""A head on cached features is the head of the whole model, in every recipe."""

import dataclasses
import functools
import os
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import models
from jaxalign.data.batching import token_store
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import train_reward
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import (
  fitting,
  scoring,
  text_features,
)
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact
from jaxalign.runtime.reward_sources import model as model_rewards
from tests.experiments import interrupted
from tests.experiments.train_reward_test import smoke_config
from tests.models.hf import families_test
from tests.models.samples import start

MIXED = {"model__head_units": 6, "model__mixed_layers": (1, 2)}
HEADS = ("score", "hidden", "layer_mixture")
RECIPES = {
  "bradley_terry": {},
  "votes": {"loss__labels": "votes"},
  "more": {
    "recipe": {"name": "more"},
    "data__train_files": (
      "synthetic:two_groups:train",
      "synthetic:one_taste:train",
    ),
  },
  "group_dro": {"recipe": {"name": "group_dro"}},
  "mean_variance": {"recipe": {"name": "mean_variance"}},
  "contrastive": {"recipe": {"name": "contrastive"}, "model__dropout": 0.05},
  "dprm": {
    "recipe": {"name": "dprm"},
    "data__train_files": ("synthetic:labels:train",),
    "data__eval_files": ("synthetic:labels:test",),
  },
  "mixture": {
    "recipe": {"name": "mixture", "num_components": 2, "steps_per_round": 2}
  },
  "metarm": {
    "recipe": {
      "name": "metarm",
      "files": ("synthetic:two_groups:test",),
      "num_prompts": 4,
      "num_responses": 2,
    }
  },
  "personal": {
    "recipe": {
      "name": "personal",
      "kind": "ideal_points",
      "rank": 2,
      "steps_per_round": 2,
    }
  },
}


class FrozenBackboneTest(parameterized.TestCase):
  def new_folder(self):
    return epath.Path(self.enter_context(tempfile.TemporaryDirectory()))

  def setUp(self):
    super().setUp()
    self.folder = str(self.new_folder())
    config = families_test.tiny(
      "llama", vocab_size=259, max_positions=128, pad_id=256, num_layers=2
    )
    _, params = start(config)
    models.save_pretrained(self.folder, params, config)
    tokenizer_files.byte_tokenizer().save(self.folder)

  def config(self, **changes):
    given = {
      "model__architecture": None,
      "model__init_from": self.folder,
      "model__trainable": "head",
      "data__tokenizer": None,
      "data__buckets": (128,),
      "train__num_steps": 4,
      "train__eval_every": 2,
    }
    return smoke_config(**given | changes)

  def fitted(self, config, workdir=None):
    """As `train_reward.run`, without the evaluation."""
    workdir = workdir or self.new_folder()
    mesh = meshes.make_mesh(config.mesh)
    config, loaded = fitting.load(config)
    config, loaded = fitting.frozen_texts(config, loaded, mesh, workdir)
    stage = fitting.build(config, mesh, loaded.place)
    trained = fitting.fit(config, loaded, stage, mesh, workdir, profile=False)
    train_reward.export(config, loaded, stage, trained, workdir)
    return workdir, loaded, trained

  def end_to_end(self, workdir, records):
    """Outputs of the exported folder on texts, [N, 2, H]."""
    folder = str(workdir / "model")
    network = scoring.load_network(folder, "float32")
    data = preferences.DataConfig((), tokenizer=folder, max_length=128,
                                  buckets=(128,))  # fmt: skip
    tokenizer = preferences.open_tokenizer(data, folder)
    mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
    stage = scoring.build(network, mesh, (), 8, 128)
    pairs = preferences._encode(data, records, tokenizer)
    params = scoring.load_params(stage, folder)
    return scoring.rewards_of(stage, params, pairs, data, tokenizer)

  @parameterized.parameters(*RECIPES)
  def test_the_exported_model_is_the_one_that_was_trained(self, name):
    workdir, loaded, trained = self.fitted(self.config(**RECIPES[name]))
    records = list(loaded.held_out.records)[:16]
    cached = trained.outputs_of(trained.params, loaded.held_out)[:16]
    whole = self.end_to_end(workdir, records)
    self.assertTrue(np.all(np.ptp(cached.reshape(-1, whole.shape[-1]), 0) > 0))
    np.testing.assert_allclose(whole, cached, atol=1e-5, rtol=1e-5)

  @parameterized.parameters(
    "bradley_terry", "more", "contrastive", "dprm", "mixture", "metarm"
  )
  def test_hidden_units_are_trained_and_exported(self, name):
    config = self.config(
      model__head_units=5,
      model__head_activation="gelu",
      model__log_length="keep",
      **RECIPES[name],
    )
    workdir, loaded, trained = self.fitted(config)
    folder = str(workdir / "model")
    described = artifact.load_description(folder)
    self.assertEqual(described.head_units, 5)
    self.assertEqual(described.head_activation, "gelu")
    records = list(loaded.held_out.records)[:16]
    cached = trained.outputs_of(trained.params, loaded.held_out)[:16]
    whole = self.end_to_end(workdir, records)
    self.assertTrue(np.all(np.ptp(cached.reshape(-1, whole.shape[-1]), 0) > 0))
    np.testing.assert_allclose(whole, cached, atol=1e-5, rtol=1e-5)
    params = weights.load_params(folder, weights.load_config(folder))
    self.assertGreater(np.abs(params["hidden"]["bias"]).min(), 1e-6)

  @parameterized.parameters(
    "bradley_terry", "more", "contrastive", "mixture", "metarm"
  )
  def test_a_mixture_of_layers_is_trained_and_exported(self, name):
    config = self.config(
      model__mixed_layers=(1, 2),
      model__pooling="mean",
      model__log_length="keep",
      model__head_units=None if name == "bradley_terry" else 5,
      **RECIPES[name],
    )
    workdir, loaded, trained = self.fitted(config)
    folder = str(workdir / "model")
    self.assertEqual(artifact.load_description(folder).mixed_layers, (1, 2))
    records = list(loaded.held_out.records)[:16]
    cached = trained.outputs_of(trained.params, loaded.held_out)[:16]
    whole = self.end_to_end(workdir, records)
    self.assertTrue(np.all(np.ptp(cached.reshape(-1, whole.shape[-1]), 0) > 0))
    np.testing.assert_allclose(whole, cached, atol=1e-5, rtol=1e-5)
    params = weights.load_params(folder, weights.load_config(folder))
    logits = np.asarray(params["layer_mixture"]["logits"])
    self.assertEqual(logits.shape, (2,))
    self.assertGreater(np.ptp(logits), 1e-5)

  @parameterized.product(layer=(1, None), pooling=("last", "mean"))
  def test_layer_and_pooling_are_the_exported_models(self, layer, pooling):
    config = self.config(model__layer=layer, model__pooling=pooling)
    workdir, loaded, trained = self.fitted(config)
    folder = str(workdir / "model")
    network = weights.load_config(folder)
    self.assertEqual(network.num_layers, layer or 2)
    self.assertEqual(artifact.load_description(folder).pooling, pooling)
    records = list(loaded.held_out.records)[:16]
    cached = trained.outputs_of(trained.params, loaded.held_out)[:16]
    np.testing.assert_allclose(
      self.end_to_end(workdir, records), cached, atol=1e-5, rtol=1e-5
    )
    source = model_rewards.load_source(
      folder,
      network,
      mesh=meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1]),
      batch_size=4,
      buckets=(128,),
      calibrated=False,
    )
    served = source(
      [record.prompt for record in records],
      [record.responses[0] for record in records],
    )
    np.testing.assert_allclose(served, cached[:, 0], atol=1e-5, rtol=1e-5)

  @parameterized.parameters(
    ("keep", "head"), ("remove", "head"), ("remove", "all")
  )
  def test_the_part_of_the_length_is_kept_or_removed(self, what, trainable):
    workdir, loaded, trained = self.fitted(
      self.config(
        model__log_length=what,
        model__trainable=trainable,
        data__eval_files=("synthetic:two_groups:test",),
      )
    )
    folder = str(workdir / "model")
    records = list(loaded.held_out.records)[:16]
    cached = trained.outputs_of(trained.params, loaded.held_out)[:16]
    np.testing.assert_allclose(
      self.end_to_end(workdir, records), cached, atol=1e-5, rtol=1e-5
    )
    self.assertEqual(artifact.load_description(folder).log_length, what)
    network = weights.load_config(folder)
    self.assertEqual(network.log_length, what)
    params = weights.load_params(folder, network)
    kernel = np.asarray(params["log_length"]["kernel"])
    self.assertGreater(np.abs(kernel).min(), 1e-4)
    # By hand: the head alone, and the length of each response in bytes.
    alone = dataclasses.replace(network, log_length=None)
    rest = {k: v for k, v in params.items() if k != "log_length"}
    tokenizer = tokenizer_files.load_tokenizer(folder)
    texts = token_store.encode(records[:3], tokenizer, max_length=128)
    for number, reward in enumerate(cached[:3].reshape(-1)):
      ids = texts[number][None]
      head = models.reward_model(alone).apply(rest, ids, ids >= 0).rewards
      part = np.log(texts.lengths[number] - texts.prompt_lengths[number])
      want = np.asarray(head)[0, 0] + part * kernel[0, 0] * (what == "keep")
      self.assertAlmostEqual(float(reward), float(want), delta=1e-5)

  @parameterized.parameters((None, None), (4, None), (4, (1, 2)))
  def test_a_step_is_that_of_the_head_in_full_training(self, units, layers):
    # Adam moves each entry by itself once the norm of all is not clipped.
    plain = {
      "model__head_units": units,
      "model__mixed_layers": layers,
      "optimizer__clip_norm": None,
      "train__num_steps": 1,
      "optimizer__warmup_steps": 0,
    }
    heads = []
    for trainable in ("head", "all"):
      workdir, *_ = self.fitted(
        self.config(model__trainable=trainable, **plain)
      )
      folder = str(workdir / "model")
      params = weights.load_params(folder, weights.load_config(folder))
      heads.append({k: params[k] for k in HEADS if k in params})
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *heads
    )

  def test_a_second_run_reads_the_features(self):
    shared = str(self.new_folder())
    first, *_ = self.fitted(self.config(model__features=shared))
    self.assertFalse((first / "features").exists())
    with mock.patch.object(text_features, "_plan") as planned:
      second, *_ = self.fitted(self.config(model__features=shared))
    planned.assert_not_called()
    name = "model/model.safetensors"
    self.assertEqual((second / name).read_bytes(), (first / name).read_bytes())

  @parameterized.parameters({}, MIXED)
  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self, **changes):
    config = self.config(data__eval_files=(), train__num_steps=6, **changes)
    run = functools.partial(train_reward.run, config, profile=False)
    straight = self.new_folder()
    run(straight)
    files = ("metrics.jsonl", "model/model.safetensors")
    interrupted.assert_resumes(self, run, straight, files, step=4)

  @parameterized.parameters(
    {"mesh__data": 2},
    {"mesh__data": 2, "mesh__fsdp": 2},
    {"mesh__data": 2, "train__parallel": "pmap"},
    {"train__accumulation": 2},
    {"mesh__data": 4, "mesh__fsdp": 2, **MIXED},
    {"mesh__data": 2, "train__parallel": "pmap", **MIXED},
    {"train__accumulation": 2, **MIXED},
  )
  def test_layouts_train_the_same_head(self, **changes):
    kept = {k: v for k, v in changes.items() if k.startswith("model")}
    plain, *_ = self.fitted(self.config(data__eval_files=(), **kept))
    other, *_ = self.fitted(self.config(data__eval_files=(), **changes))
    found = []
    for workdir in (plain, other):
      folder = str(workdir / "model")
      params = weights.load_params(folder, weights.load_config(folder))
      found.append({k: params[k] for k in HEADS if k in params})
    self.assertLen(found[0], 3 if kept else 1)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found
    )

  @parameterized.parameters((None, None), (4, None), (4, (1, 2)))
  def test_a_folders_own_head_is_gone_on_from(self, units, layers):
    first, *_ = self.fitted(
      self.config(
        data__eval_files=(),
        model__head_units=units,
        model__mixed_layers=layers,
      )
    )
    config = self.config(
      data__eval_files=(),
      model__init_from=str(first / "model"),
      optimizer__learning_rate=1e-12,
    )
    second, *_ = self.fitted(config)
    head = lambda workdir: np.asarray(
      weights.load_params(
        str(workdir / "model"), weights.load_config(str(workdir / "model"))
      )["score"]["kernel"]
    )
    self.assertEqual(len(head(second)), units or 8)
    network = weights.load_config(str(second / "model"))
    self.assertEqual(network.mixed_layers, layers)
    np.testing.assert_allclose(head(second), head(first), atol=1e-6)
    # Another head, on the backbone of a reward model: it begins anew.
    config = self.config(
      model__init_from=str(first / "model"),
      model__head_units=6,
      model__layer=1,
      **RECIPES["mixture"],
    )
    third, loaded, trained = self.fitted(config)
    cached = trained.outputs_of(trained.params, loaded.held_out)[:8]
    np.testing.assert_allclose(
      self.end_to_end(third, list(loaded.held_out.records)[:8]),
      cached,
      atol=1e-5,
    )

  def test_checkpoints_hold_the_head_alone(self):
    workdir, *_ = self.fitted(self.config(data__eval_files=()))
    size = sum(
      os.path.getsize(path)
      for path in pathlib.Path(workdir / "checkpoints").rglob("*")
      if path.is_file()
    )
    features = os.path.getsize(
      next(pathlib.Path(workdir / "features").rglob("features.bin"))
    )
    self.assertGreater(features, 30_000)
    self.assertLess(size, features)

  def test_refuses(self):
    with self.assertRaisesRegex(ValueError, "needs init_from"):
      smoke_config(model__trainable="head")
    with self.assertRaisesRegex(ValueError, "'lora' where lora is set"):
      self.config(model__lora=dict(rank=2))
    with self.assertRaisesRegex(ValueError, "'lora' where lora is set"):
      self.config(model__trainable="lora")
    mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
    low_rank = dict(model__trainable=None, model__lora=dict(rank=2))
    with self.assertRaisesRegex(ValueError, "head_units must be None .* got 4"):
      fitting.build(self.config(model__head_units=4, **low_rank), mesh)
    mixed = {"model__mixed_layers": (1, 2)}
    with self.assertRaisesRegex(ValueError, "mixed_layers must be None with"):
      fitting.build(self.config(**mixed, **low_rank), mesh)
    with self.assertRaisesRegex(ValueError, r"\(1, 2\) with layer=1"):
      self.config(**mixed, model__layer=1)
    with self.assertRaisesRegex(ValueError, "blocks of init_from"):
      smoke_config(**mixed)
    mixed = {"model__mixed_layers": (1, 3), "model__num_texts": 9}
    with self.assertRaisesRegex(ValueError, "mixed_layers must be at most 2"):
      fitting.build(self.config(**mixed), mesh)
    with self.assertRaisesRegex(ValueError, "counted texts"):
      fitting.build(self.config(), mesh)
    config = self.config(model__trainable="all", model__num_texts=3)
    with self.assertRaisesRegex(ValueError, "num_texts go with"):
      fitting.build(config, mesh)
    with self.assertRaisesRegex(ValueError, "at most 2, the layers"):
      fitting.build(
        dataclasses.replace(
          config,
          model=dataclasses.replace(
            config.model, layer=3, num_texts=None
          ),  # fmt: skip
        ),
        mesh,
      )


if __name__ == "__main__":
  absltest.main()
