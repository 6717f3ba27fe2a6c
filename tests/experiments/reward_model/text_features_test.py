"""Text features: equal to the model's own, each text once, kept and resumed."""

import dataclasses
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.data.batching import token_store
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.reward_model import text_features
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import feature_store
from tests.models.hf import families_test
from tests.models.samples import start

TEXTS = [
  "a cat",
  ("say: ", "a cat"),
  "a dog that barks at night",
  "a cat",
  ("say it again, and again: ", "no"),
]


class TextFeaturesTest(parameterized.TestCase):
  def new_folder(self):
    return pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

  def setUp(self):
    super().setUp()
    self.folder = str(self.new_folder())
    self.cache = self.new_folder()
    self.config = families_test.tiny(
      "llama", vocab_size=259, max_positions=64, pad_id=256, num_layers=2
    )
    _, self.params = start(self.config)
    models.save_pretrained(self.folder, self.params, self.config)
    tokenizer_files.byte_tokenizer().save(self.folder)

  def of_texts(self, texts=TEXTS, **options):
    given = {
      "cache": str(self.cache),
      "max_length": 48,
      "batch_size": 8,
      "buckets": (16, 48),
      "mesh": meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1]),
    }
    return text_features.of_texts(self.folder, texts, **given | options)

  def expected(self, text, layer, pooling):
    """One text alone, by layers put on one another in plain steps."""
    prompt, response = ("", text) if isinstance(text, str) else text
    network = dataclasses.replace(self.config, num_layers=layer)
    params = {
      **self.params,
      "layers": jax.tree.map(lambda x: x[:layer], self.params["layers"]),
    }
    tokenizer = tokenizer_files.byte_tokenizer()
    before, after = tokenizer.markers
    ids = [*before, *f"{prompt}{response}".encode(), *after]
    tokens = np.array([ids], np.int32)
    mask = np.ones(tokens.shape, bool)
    hidden = heads.causal_lm(network).apply(params, tokens, mask).hidden[0]
    begin = len(before) + len(prompt.encode())
    return hidden[-1] if pooling == "last" else hidden[begin:].mean(0)

  @parameterized.product(layer=(1, None), pooling=("last", "mean"))
  def test_equal_to_the_hidden_states_of_the_model(self, layer, pooling):
    found = self.of_texts(layer=layer, pooling=pooling)
    want = [self.expected(text, layer or 2, pooling) for text in TEXTS]
    np.testing.assert_allclose(found.array(), want, rtol=2e-5, atol=2e-5)
    self.assertEqual(found.array().dtype, np.float32)

  def test_each_text_is_passed_once_and_never_again(self):
    first = self.of_texts()
    self.assertLen(first.values, 4)
    self.assertIsInstance(first.values, np.memmap)
    with mock.patch.object(text_features.weights, "load_params") as loaded:
      again = self.of_texts(TEXTS[::-1])
    loaded.assert_not_called()
    np.testing.assert_array_equal(again.array(), first.array()[::-1])
    more = self.of_texts([*TEXTS, "another"])
    self.assertLen(more.values, 5)
    np.testing.assert_array_equal(more.array()[:5], first.array())

  def test_texts_that_are_there_do_not_wait_for_a_pass(self):
    first = self.of_texts().array()
    # As if another process had the lock.
    with mock.patch.object(
      feature_store.fcntl, "flock", side_effect=BlockingIOError
    ):
      np.testing.assert_array_equal(self.of_texts().array(), first)
      with self.assertRaises(BlockingIOError):
        self.of_texts(["a new one"])

  def test_a_killed_pass_goes_on(self):
    whole = self.of_texts(batch_size=1)
    append, calls = feature_store.FeatureStore.append, []

    def killed(store, keys, values):
      calls.append(len(keys))
      if len(calls) == 2:
        raise KeyboardInterrupt
      append(store, keys, values)

    other = self.new_folder()
    with (
      mock.patch.object(feature_store.FeatureStore, "append", killed),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.of_texts(batch_size=1, cache=str(other))
    calls[:] = [0, 0]
    with mock.patch.object(feature_store.FeatureStore, "append", killed):
      again = self.of_texts(batch_size=1, cache=str(other))
    self.assertEqual(sum(calls), 3)  # of four texts, as one was there
    np.testing.assert_allclose(again.array(), whole.array(), atol=1e-6)

  def test_sharded_rows_are_the_same(self):
    alone = self.of_texts()
    other = self.new_folder()
    spread = self.of_texts(
      mesh=meshes.make_mesh(meshes.MeshConfig(4, 2, 1)), cache=str(other)
    )
    np.testing.assert_allclose(spread.array(), alone.array(), atol=1e-6)

  def test_another_model_layer_or_pooling_has_another_file(self):
    prints = {
      self.of_texts(layer=layer, pooling=pooling).fingerprint
      for layer in (1, 2)
      for pooling in ("last", "mean")
    }
    self.assertLen(prints, 4)
    opened = text_features.open_backbone
    same = opened(self.folder, layer=2).fingerprints
    self.assertEqual(opened(self.folder).fingerprints, same)
    both = opened(self.folder, layer=(1, 2)).fingerprints
    self.assertEqual(both[1:], same)
    self.assertContainsSubset(both, {*prints} | {*both})
    moved = {**self.params, "final_norm": {"scale": 2 * np.ones(8)}}
    models.save_pretrained(self.folder, moved, self.config)
    self.assertNotEqual(opened(self.folder).fingerprints, same)

  def of_layers(self, layer, texts=TEXTS, **options):
    tokenizer = tokenizer_files.byte_tokenizer()
    pairs = [("", text) if isinstance(text, str) else text for text in texts]
    given = {
      "cache": str(self.cache),
      "pad_id": tokenizer.pad_id,
      "batch_size": 8,
      "buckets": (16, 48),
      "mesh": meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1]),
    }
    return text_features.of_sequences(
      text_features.open_backbone(self.folder, layer=layer, pooling="mean"),
      token_store.encode(
        (Record(prompt, (response,)) for prompt, response in pairs),
        tokenizer,
        max_length=48,
      ),
      **given | options,
    )

  def test_several_layers_are_read_in_one_pass(self):
    passed = []
    plan = text_features._plan

    def planned(lengths, numbers, *rest):
      passed.append(len(numbers))
      return plan(lengths, numbers, *rest)

    self.enter_context(mock.patch.object(text_features, "_plan", planned))
    alone = self.of_texts(TEXTS[:1], layer=1, pooling="mean")
    both = self.of_layers((1, 2))
    self.assertEqual(passed, [1, 4])  # the one that layer 2 lacks among them
    for found, layer in zip(both, (1, 2), strict=True):
      self.assertLen(found.values, 4)
      want = [self.expected(text, layer, "mean") for text in TEXTS]
      np.testing.assert_allclose(found.array(), want, rtol=2e-5, atol=2e-5)
      # Who reads one of them alone finds it there.
      one = self.of_texts(layer=layer, pooling="mean")
      np.testing.assert_array_equal(one.array(), found.array())
    self.assertEqual(both[0].fingerprint, alone.fingerprint)
    self.assertLen(passed, 2)

  def test_a_pass_killed_between_two_layers_goes_on(self):
    append, left = feature_store.FeatureStore.append, [3]

    def killed(store, keys, values):
      left[0] -= 1
      if not left[0]:
        raise KeyboardInterrupt
      append(store, keys, values)

    with (
      mock.patch.object(feature_store.FeatureStore, "append", killed),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.of_layers((1, 2), batch_size=1)
    again = self.of_layers((1, 2), batch_size=1)
    whole = self.of_layers((1, 2), cache=str(self.new_folder()))
    for found, want in zip(again, whole, strict=True):
      self.assertLen(found.values, 4)
      np.testing.assert_allclose(found.array(), want.array(), atol=1e-6)

  def test_refuses(self):
    with self.assertRaisesRegex(ValueError, "mixed_layers must be two or more"):
      text_features.open_backbone(self.folder, layer=(2, 1, 2))
    with self.assertRaisesRegex(ValueError, r"in \[1, 2\], .* got \(1, 3\)"):
      text_features.open_backbone(self.folder, layer=(1, 3))
    with self.assertRaisesRegex(ValueError, r"in \[1, 2\], .* got 3"):
      self.of_texts(layer=3)
    with self.assertRaisesRegex(ValueError, "longest text, 29 tokens"):
      self.of_texts(buckets=(16,))


if __name__ == "__main__":
  absltest.main()
