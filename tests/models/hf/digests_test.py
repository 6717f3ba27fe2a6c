"""Weights that are not as they were written are not read."""

import hashlib
import json
import os
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
import safetensors.numpy
from absl.testing import absltest

from jaxalign.models.hf import safetensor_files, weights
from tests.experiments import sample_test


def digest(places, tensors):
  """Written once more, from the description."""
  return hashlib.sha256(
    json.dumps(places, sort_keys=True).encode() + tensors
  ).hexdigest()


class DigestsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(sample_test.policy())
    self.file = self.folder / "model.safetensors"

  def load(self):
    return weights.load_causal_lm(self.folder)[1]

  def flip(self, path, byte):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(bytes(content))

  def test_the_digest_is_that_of_names_and_bytes(self):
    content = self.file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    stamped = header.pop("__metadata__")
    self.assertEqual(stamped.pop("sha256"), digest(header, content[start:]))
    self.assertEqual(stamped, {"format": "pt"})

  def test_a_flipped_bit_anywhere_is_found(self):
    size = self.file.stat().st_size
    for byte in np.random.default_rng(0).integers(8, size, 40):
      self.flip(self.file, byte)
      with self.assertRaisesRegex(ValueError, str(self.folder)):
        self.load()
      self.flip(self.file, byte)
    self.load()

  def test_it_can_be_turned_off(self):
    self.flip(self.file, -1)
    with self.assertRaisesRegex(
      ValueError, "read it as it is with JAXALIGN_CHE"
    ):
      self.load()
    with mock.patch.dict(os.environ, JAXALIGN_CHECK_DIGESTS="0"):
      self.load()

  def test_files_of_other_programs_are_read_as_ever(self):
    before = self.load()
    tensors = safetensors.numpy.load_file(self.file)
    for metadata in (None, {"format": "pt"}):
      safetensors.numpy.save_file(tensors, self.file, metadata)
      jax.tree.map(np.testing.assert_array_equal, self.load(), before)

  def test_shards_are_checked_each(self):
    folder = pathlib.Path(tempfile.mkdtemp())
    tensors = {name: np.ones(8, np.float32) for name in ("a", "b")}
    safetensor_files.write_folder(
      folder,
      {name: tensor.nbytes for name, tensor in tensors.items()},
      tensors.__getitem__,
      {},
      max_shard_bytes=40,
    )
    safetensor_files.TensorFiles(folder).check()
    second = folder / safetensor_files.SHARD.format(2, 2)
    self.flip(second, -1)
    with self.assertRaisesRegex(ValueError, f"{second} is damaged"):
      safetensor_files.TensorFiles(folder).check()


if __name__ == "__main__":
  absltest.main()
