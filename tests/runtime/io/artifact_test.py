"""The folder that one stage hands to the next."""

import dataclasses
import json
import math
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.models import heads
from jaxalign.models.hf import config_map, weights
from jaxalign.runtime.io import artifact, filesystem
from tests import object_store


class ArtefactTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.tokenizer = tokenizer_files.byte_tokenizer()
    self.network = config_map.scratch_config(
      "llama",
      vocab_size=self.tokenizer.vocab_size,
      num_layers=1,
      num_heads=2,
      embed_dim=8,
      mlp_dim=8,
      max_positions=16,
      tie_embeddings=True,
      num_outputs=2,
      pad_id=self.tokenizer.pad_id,
    )
    token = jnp.zeros((1, 1), jnp.int32)
    model = heads.reward_model(self.network)
    self.params = model.init(jax.random.key(0), token, token == 0)
    self.description = artifact.Description(
      kind="reward",
      heads=("helpful", "harmless"),
      max_length=16,
      calibration={"mean": [0.0, 1.0], "std": [1.0, 2.0]},
      utilities=None,
      mixture_weights=(0.25, 0.75),
      provenance={"step": 3},
      label_cost=((0.0, 1.0), (1.0, 0.0)),
    )
    self.folder = epath.Path(tempfile.mkdtemp()) / "model"

  def save(self):
    artifact.save(
      self.folder, self.params, self.network, self.tokenizer, self.description
    )

  def test_comes_back_whole_and_may_be_written_twice(self):
    self.save()
    self.save()
    saved = dataclasses.replace(
      self.description, texts=self.tokenizer.description()
    )
    self.assertEqual(artifact.load_description(self.folder), saved)
    self.assertEqual(saved.texts["differs"], [])
    _, params, network = weights.load_reward_model(str(self.folder))
    jax.tree.map(np.testing.assert_array_equal, params, self.params)
    self.assertEqual(network.num_outputs, 2)
    again = tokenizer_files.load_tokenizer(str(self.folder))
    self.assertEqual(again.encode("héllo"), self.tokenizer.encode("héllo"))
    self.assertEqual(again.pad_id, self.tokenizer.pad_id)

  def test_a_store_holds_the_same_files(self):
    self.save()
    here = self.folder
    store = object_store.install()
    self.folder = epath.Path("s3://bucket/run/model")
    self.save()
    self.save()
    self.assertEqual(
      artifact.load_description(self.folder), artifact.load_description(here)
    )
    names = sorted(path.name for path in here.iterdir())
    self.assertEqual(
      [os.path.basename(path) for path in store.find("s3://bucket")], names
    )
    copy = epath.Path(filesystem.fetched(str(self.folder)))
    for name in names:
      self.assertEqual((copy / name).read_bytes(), (here / name).read_bytes())

  def test_everybody_may_read_the_files(self):
    self.save()
    for file in self.folder.iterdir():
      self.assertEqual(os.stat(file).st_mode & 0o777, 0o644, file.name)

  def test_a_number_that_json_has_no_word_for_is_not_written(self):
    self.description = dataclasses.replace(
      self.description, calibration={"mean": [math.nan], "std": [1.0]}
    )
    with self.assertRaisesRegex(ValueError, "not JSON compliant"):
      self.save()

  def test_a_folder_without_its_last_file_is_unfinished(self):
    self.save()
    (self.folder / artifact.DESCRIPTION).unlink()
    with self.assertRaisesRegex(ValueError, "not written by a finished stage"):
      artifact.load_description(self.folder)

  def test_another_format_is_named(self):
    self.save()
    file = self.folder / artifact.DESCRIPTION
    content = json.loads(file.read_text()) | {"format_version": 99}
    file.write_text(json.dumps(content))
    with self.assertRaisesRegex(ValueError, "format version 99"):
      artifact.load_description(self.folder)

  def test_calibration_is_per_output(self):
    rewards = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    fit = artifact.calibration(rewards)
    np.testing.assert_allclose(fit["mean"], [11.0, 12.0])
    np.testing.assert_allclose(fit["std"], np.arange(0, 24, 2).std(), rtol=1e-6)

  def test_provenance_holds_the_config(self):
    made = artifact.provenance(self.network, 7)
    self.assertEqual(made["step"], 7)
    self.assertEqual(made["config"], dataclasses.asdict(self.network))
    json.dumps(made)


if __name__ == "__main__":
  absltest.main()
