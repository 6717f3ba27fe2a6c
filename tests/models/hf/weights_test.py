"""Weights of a real model, the way back, and every kind of damaged folder."""

import dataclasses
import json
import os
import pathlib
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign import models
from jaxalign.models.hf import param_map, safetensor_files, weights
from tests import parallel_modes

LLAMA = models.scratch_config(
  "llama",
  vocab_size=11,
  num_layers=2,
  num_heads=2,
  num_kv_heads=1,
  embed_dim=8,
  mlp_dim=6,
  max_positions=16,
)
GPT2 = models.scratch_config(
  "gpt2",
  vocab_size=11,
  num_layers=2,
  num_heads=2,
  embed_dim=8,
  mlp_dim=6,
  max_positions=16,
  activation="gelu_tanh",
  tie_embeddings=True,
  dropout=0.1,
)
NEOX = models.scratch_config(
  "gpt_neox",
  vocab_size=11,
  num_layers=2,
  num_heads=2,
  embed_dim=8,
  mlp_dim=6,
  max_positions=16,
  qkv_bias=True,
  out_bias=True,
  rotary_fraction=0.5,
)
QUERY = "model.layers.1.self_attn.q_proj.weight"
TOKENS = np.array([[1, 2, 3, 4]], np.int32)
MASK = np.ones((1, 4), bool)


def numbered(config):
  """Parameters of which no two entries are alike."""
  shapes = param_map.abstract_params(config)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.2, s.dtype), shapes
  )


class GoldenTest(absltest.TestCase):
  def test_logits_of_a_trained_model(self):
    if "JAXALIGN_DATA" not in os.environ:
      self.skipTest("JAXALIGN_DATA is not set")
    folder = pathlib.Path(os.environ["JAXALIGN_DATA"], "stories260k_lm")
    apply, params, config = models.load_causal_lm(folder)
    self.assertEqual(config.num_kv_heads, 4)
    golden = np.load(folder / "golden_logits.npz")
    names = [name for name in golden.files if name.startswith("ids")]
    width = max(golden[name].size for name in names)
    tokens = np.zeros((len(names), width), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, name in enumerate(names):
      ids = golden[name]
      start = row * (width - ids.size) // len(names)  # padded on both sides
      tokens[row, start : start + ids.size] = ids
      mask[row, start : start + ids.size] = True
    logits = np.asarray(jax.jit(apply)(params, tokens, mask))
    for row, name in enumerate(names):
      np.testing.assert_allclose(
        logits[row][mask[row]], golden[name.replace("ids", "logits")], atol=1e-4
      )


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def save(self, config=LLAMA):
    params = numbered(config)
    models.save_pretrained(self.folder, params, config)
    return params

  def edit(self, change):
    """Rewrites the tensors after `change(tensors)`."""
    file = self.folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(str(file))
    change(tensors)
    safetensors.numpy.save_file(tensors, str(file))

  def assert_refused(self, regex, error=ValueError, config=LLAMA, **kwargs):
    with self.assertRaisesRegex(error, regex):
      models.load_params(self.folder, config, **kwargs)

  @parameterized.parameters(
    LLAMA,
    GPT2,
    NEOX,
    dataclasses.replace(
      GPT2, tie_embeddings=False, value_head=True, num_values=3
    ),
    dataclasses.replace(LLAMA, num_outputs=2, pad_id=0, eos_id=(2, 3)),
    dataclasses.replace(LLAMA, rope_scaling=models.RopeScaling("linear", 2.0)),
  )
  def test_what_is_saved_is_loaded(self, config):
    params = self.save(config)
    self.assertEqual(models.load_config(self.folder), config)
    loaded = models.load_params(self.folder, config)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    self.assertEqual(
      sorted(p.name for p in self.folder.iterdir()),
      ["config.json", "model.safetensors"],
    )

  @parameterized.parameters(LLAMA, GPT2, NEOX)
  def test_shardings_are_applied_leaf_by_leaf(self, config):
    params = self.save(config)
    parallel_modes.need_devices(4)
    mesh = Mesh(
      np.array(jax.devices()[:4]).reshape(2, 2),
      ("x", "y"),
      axis_types=(AxisType.Auto,) * 2,
    )
    # The last two axes where they can be cut, never that of the layers.
    names = {8: "x", 6: "y", 4: "y"}

    def split(leaf):
      spec = [names.get(n) for n in leaf.shape]
      repeated = [n if n not in spec[:i] else None for i, n in enumerate(spec)]
      return NamedSharding(mesh, PartitionSpec(*repeated))

    shardings = jax.tree.map(split, params)
    loaded = models.load_params(self.folder, config, shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    self.assertEqual(
      jax.tree.map(lambda leaf: leaf.sharding, loaded), shardings
    )

  def test_reward_head_over_a_language_model(self):
    params = self.save()
    config = dataclasses.replace(LLAMA, num_outputs=3)
    self.assert_refused("tensor score.weight is missing.*key", config=config)
    key = jax.random.key(1)
    loaded = models.load_params(self.folder, config, key=key)
    jax.tree.map(
      np.testing.assert_array_equal, loaded["layers"], params["layers"]
    )
    self.assertNotIn("lm_head", loaded)
    drawn = models.reward_model(config).init(key, TOKENS, MASK)["score"]
    np.testing.assert_array_equal(loaded["score"]["kernel"], drawn["kernel"])
    with self.assertRaisesRegex(ValueError, "score.weight is missing"):
      models.load_reward_model(self.folder)

  def test_layers_above_those_asked_for_stay_in_the_file(self):
    params = self.save()
    config = dataclasses.replace(LLAMA, num_layers=1)
    self.assert_refused("does not belong to a LlamaForCausalLM", config=config)
    cut = models.load_params(self.folder, config, cut=True)
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a, b[:1]),
      cut["layers"],
      params["layers"],
    )

  def test_a_mean_over_the_response_is_not_for_transformers(self):
    config = dataclasses.replace(LLAMA, num_outputs=3, pooling="mean", pad_id=0)
    params = numbered(config)
    with self.assertRaisesRegex(
      ValueError, "transformers has no reward model with pooling='mean'"
    ):
      models.save_pretrained(self.folder, params, config)
    self.assertEmpty(list(self.folder.iterdir()))
    weights.save_own(self.folder, params, config)
    self.assertEqual(models.load_config(self.folder), config)
    apply, loaded, _ = models.load_reward_model(self.folder)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    with self.assertRaisesRegex(ValueError, "response must mark"):
      apply(loaded, TOKENS, MASK)
    self.assertEqual(apply(loaded, TOKENS, MASK, MASK).shape, (len(MASK), 3))
    with self.assertRaisesRegex(ValueError, "jaxalign_llama"):
      transformers.AutoConfig.from_pretrained(self.folder)

  @parameterized.parameters(LLAMA, GPT2, NEOX)
  def test_hidden_units_of_a_head_are_not_for_transformers(self, base):
    config = dataclasses.replace(
      base, num_outputs=3, head_units=5, head_activation="gelu", pad_id=0
    )
    params = numbered(config)
    with self.assertRaisesRegex(
      ValueError, "transformers has no reward model with head_units=5"
    ):
      models.save_pretrained(self.folder, params, config)
    weights.save_own(self.folder, params, config)
    self.assertEqual(models.load_config(self.folder), config)
    apply, loaded, _ = models.load_reward_model(self.folder)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    self.assertEqual(apply(loaded, TOKENS, MASK).shape, (len(MASK), 3))
    with self.assertRaisesRegex(ValueError, f"jaxalign_{base.family}"):
      transformers.AutoConfig.from_pretrained(self.folder)
    # A language model's folder gives all but the head, which is drawn.
    plain = dataclasses.replace(base, num_outputs=None)
    models.save_pretrained(self.folder, numbered(plain), plain)
    self.assert_refused("tensor .* is missing; pass a key", config=config)
    drawn = models.load_params(self.folder, config, key=jax.random.key(0))
    self.assertEqual(drawn["hidden"]["kernel"].shape, (8, 5))

  def test_a_mixture_of_layers_is_not_for_transformers(self):
    config = dataclasses.replace(
      LLAMA, num_outputs=3, mixed_layers=(1, 2), pad_id=0
    )
    params = numbered(config)
    with self.assertRaisesRegex(
      ValueError, r"no reward model with mixed_layers=\(1, 2\)"
    ):
      models.save_pretrained(self.folder, params, config)
    weights.save_own(self.folder, params, config)
    self.assertEqual(models.load_config(self.folder), config)
    apply, loaded, _ = models.load_reward_model(self.folder)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    self.assertEqual(apply(loaded, TOKENS, MASK).shape, (len(MASK), 3))
    with self.assertRaisesRegex(ValueError, "jaxalign_llama"):
      transformers.AutoConfig.from_pretrained(self.folder)
    alone = dataclasses.replace(config, num_layers=1, mixed_layers=None)
    self.assert_refused("does not belong to a Llama", config=alone)
    cut = models.load_params(self.folder, alone, cut=True)
    self.assertNotIn("layer_mixture", cut)

  def test_a_removed_length_is_left_out_by_transformers_too(self):
    torch = pytest.importorskip("torch", reason="compares with torch")
    config = dataclasses.replace(
      LLAMA, num_outputs=1, pad_id=0, log_length="keep"
    )
    params = numbered(config)
    with self.assertRaisesRegex(ValueError, "model with log_length='keep'"):
      models.save_pretrained(self.folder, params, config)
    config = dataclasses.replace(config, log_length="remove")
    models.save_pretrained(self.folder, params, config)
    self.assertEqual(models.load_config(self.folder), config)
    apply, loaded, _ = models.load_reward_model(self.folder)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
      self.folder
    )
    with torch.no_grad():
      theirs = model(input_ids=torch.tensor(TOKENS).long()).logits.numpy()
    np.testing.assert_allclose(apply(loaded, TOKENS, MASK), theirs, atol=1e-5)

  def test_compute_dtype_leaves_parameters_wide(self):
    self.save(dataclasses.replace(LLAMA, num_outputs=2, pad_id=0))
    apply, params, config = models.load_reward_model(
      self.folder, dtype="bfloat16"
    )
    self.assertEqual(config.dtype, "bfloat16")
    self.assertEqual(
      {p.dtype for p in jax.tree.leaves(params)}, {jnp.float32.dtype}
    )
    self.assertEqual(apply(params, TOKENS, MASK).dtype, jnp.float32)

  def test_half_precision_files_are_raised(self):
    params = self.save()
    self.edit(
      lambda tensors: tensors.update(
        {QUERY: tensors[QUERY].astype(jnp.bfloat16)}
      )
    )
    loaded = models.load_params(self.folder, LLAMA)
    kernel = loaded["layers"]["attention"]["query"]["kernel"]
    self.assertEqual(kernel.dtype, jnp.float32)
    np.testing.assert_array_equal(
      kernel[1],
      params["layers"]["attention"]["query"]["kernel"][1]
      .astype(jnp.bfloat16)
      .astype(jnp.float32),
    )

  def test_older_names_and_buffers(self):
    params = self.save(GPT2)

    def change(tensors):
      for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)
      tensors["h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.uint8)
      tensors["lm_head.weight"] = tensors["wte.weight"]

    self.edit(change)
    loaded = models.load_params(self.folder, GPT2)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)

  def test_a_tied_head_that_differs_is_refused(self):
    self.save(GPT2)
    self.edit(
      lambda tensors: tensors.update(
        {"lm_head.weight": tensors["transformer.wte.weight"] + 1}
      )
    )
    self.assert_refused("lm_head.weight differs from", config=GPT2)

  def test_damaged_tensors_are_named(self):
    self.save()
    file = self.folder / "model.safetensors"
    whole = file.read_bytes()
    for regex, change in (
      (f"tensor {QUERY} is missing", lambda t: t.pop(QUERY)),
      ("does not belong", lambda t: t.update(extra=np.ones(2, np.float32))),
      (
        rf"model.safetensors: tensor {QUERY} must have shape \(8, 8\), got "
        r"\(4, 16\)",
        lambda t: t.update({QUERY: t[QUERY].reshape(4, 16)}),
      ),
      (
        f"tensor {QUERY} must have a type in .* got I8",
        lambda t: t.update({QUERY: t[QUERY].astype(np.int8)}),
      ),
    ):
      self.edit(change)
      self.assert_refused(regex)
      file.write_bytes(whole)
    file.write_bytes(whole[:-5])
    self.assert_refused("model.safetensors: not a complete safetensors file")

  def test_a_model_beyond_the_size_of_a_file_is_sharded(self):
    with mock.patch.object(weights, "MAX_SHARD_BYTES", 500):
      params = self.save(NEOX)
    self.assertGreater(len(list(self.folder.glob("model-*"))), 2)
    loaded = models.load_params(self.folder, NEOX)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)

  def test_shards(self):
    params = self.save()
    tensors = safetensors.numpy.load_file(
      str(self.folder / "model.safetensors")
    )
    (self.folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for shard, part in shards.items():
      safetensors.numpy.save_file(
        {name: tensors[name] for name in part}, str(self.folder / shard)
      )
    index = self.folder / "model.safetensors.index.json"
    owner = {name: shard for shard, part in shards.items() for name in part}
    write = lambda owner: index.write_text(json.dumps({"weight_map": owner}))
    write(owner)
    loaded = models.load_params(self.folder, LLAMA)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    write(owner | {names[0]: "b.safetensors"})
    self.assert_refused(f"tensor {names[0]} is not in b.safetensors")
    write(owner | {names[0]: "../a.safetensors"})
    self.assert_refused("must be a plain file name")
    write(owner)
    (self.folder / "b.safetensors").unlink()
    self.assert_refused("shard .*b.safetensors is missing", FileNotFoundError)
    index.write_text("{}")
    self.assert_refused("index.json: weight_map must hold a file name per ")

  def test_pickles_and_empty_folders(self):
    self.assert_refused("neither model.safetensors", FileNotFoundError)
    with self.assertRaisesRegex(FileNotFoundError, "config.json is missing"):
      models.load_config(self.folder)
    (self.folder / "pytorch_model.bin").write_bytes(b"")
    self.assert_refused("refused to read pytorch_model.bin: unpickling runs")

  def test_params_that_do_not_fit_are_refused(self):
    params = numbered(LLAMA)
    for regex, change in (
      ("embed/tokens is missing", {"embed": {}}),
      (
        r"embed/tokens must have shape \(11, 8\), got \(8, 11\)",
        {"embed": {"tokens": np.ones((8, 11))}},
      ),
      ("score/kernel does not belong", {"score": {"kernel": np.ones((8, 1))}}),
    ):
      with self.assertRaisesRegex(ValueError, regex):
        models.save_pretrained(self.folder, params | change, LLAMA)
    self.assertEmpty(list(self.folder.iterdir()))

  def test_a_failed_save_leaves_the_older_model(self):
    params = self.save()
    with self.assertRaises(TypeError):
      safetensor_files.write_folder(
        self.folder,
        {"a": 8},
        lambda _: np.ones(2, np.float32),
        {"bad": object()},
      )
    loaded = models.load_params(self.folder, models.load_config(self.folder))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    self.assertLen(list(self.folder.iterdir()), 2)


if __name__ == "__main__":
  absltest.main()
