"""Reading and writing safetensors: whole, sharded, refused and damaged."""

import json
import pathlib
import tempfile

import numpy as np
import safetensors.numpy
from absl.testing import absltest

from jaxalign.models.hf import safetensor_files
from jaxalign.models.hf.safetensor_files import TensorFiles

TENSORS = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3),
  "b": np.ones(4, np.float32),
}


def write(folder, config, **options):
  sizes = {name: tensor.nbytes for name, tensor in TENSORS.items()}
  safetensor_files.write_folder(
    folder, sizes, TENSORS.__getitem__, config, **options
  )


class TensorFilesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())

  def test_what_is_written_is_read(self):
    write(self.folder, {"model_type": "x"})
    files = TensorFiles(self.folder)
    self.assertEqual(files.names(), {"a", "b"})
    self.assertEqual(files.shape("a"), (2, 3))
    np.testing.assert_array_equal(files.rows("a", 1, 2), TENSORS["a"][1:])
    self.assertEqual(files.rows("b", 2, 2).shape, (0,))
    self.assertEqual(
      sorted(file.name for file in self.folder.iterdir()),
      ["config.json", "model.safetensors"],
    )

  def test_shards_are_found_by_their_index(self):
    for name, tensor in TENSORS.items():
      safetensors.numpy.save_file({name: tensor}, self.folder / f"{name}.st")
    index = {"weight_map": {name: f"{name}.st" for name in TENSORS}}
    (self.folder / safetensor_files.INDEX).write_text(json.dumps(index))
    files = TensorFiles(self.folder)
    np.testing.assert_array_equal(files.rows("b", 0, 4), TENSORS["b"])
    (self.folder / "b.st").unlink()
    with self.assertRaisesRegex(FileNotFoundError, "b.st is missing"):
      TensorFiles(self.folder)

  def test_pickles_are_refused_with_the_reason(self):
    (self.folder / "pytorch_model.bin").write_bytes(b"")
    with self.assertRaisesRegex(ValueError, "unpickling runs any code"):
      TensorFiles(self.folder)

  def test_nothing_there(self):
    with self.assertRaisesRegex(FileNotFoundError, "neither model.safetensors"):
      TensorFiles(self.folder)

  def test_a_truncated_file_is_named(self):
    write(self.folder, {})
    file = self.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with self.assertRaisesRegex(ValueError, "model.safetensors"):
      TensorFiles(self.folder)

  def test_a_file_cut_short_after_it_was_opened_is_named(self):
    write(self.folder, {})
    files = TensorFiles(self.folder)
    file = self.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with self.assertRaisesRegex(ValueError, "ends inside tensor b"):
      files.rows("b", 0, 4)


class WriteFolderTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())

  def files(self):
    return sorted(file.name for file in self.folder.iterdir())

  def test_large_weights_are_cut_between_tensors(self):
    write(self.folder, {}, max_shard_bytes=30)
    self.assertEqual(
      self.files(),
      [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        safetensor_files.INDEX,
      ],
    )
    files = TensorFiles(self.folder)
    for name, tensor in TENSORS.items():
      np.testing.assert_array_equal(files.rows(name, 0, len(tensor)), tensor)
    self.assertNotEqual(files.file_of("a"), files.file_of("b"))

  def test_weights_of_an_older_save_never_stay_beside_newer_ones(self):
    write(self.folder, {})
    write(self.folder, {}, max_shard_bytes=30)
    self.assertNotIn("model.safetensors", self.files())
    write(self.folder, {})
    self.assertNotIn(safetensor_files.INDEX, self.files())

  def test_one_shard_at_a_time_is_in_memory(self):
    made = []

    def make(name):
      made.append((name, [f for f in self.files() if f.startswith(".model")]))
      return TENSORS[name]

    sizes = {name: tensor.nbytes for name, tensor in TENSORS.items()}
    safetensor_files.write_folder(
      self.folder, sizes, make, {}, max_shard_bytes=30
    )
    self.assertEqual([name for name, _ in made], ["a", "b"])
    self.assertLen(made[1][1], 1, "the first shard is on disk by then")


if __name__ == "__main__":
  absltest.main()
