"""Reading and writing safetensors: whole, sharded, refused and damaged."""

import json
import pathlib
import tempfile

import numpy as np
import safetensors.numpy
from absl.testing import absltest

from jaxalign.models import safetensor_files
from jaxalign.models.safetensor_files import TensorFiles

TENSORS = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3),
  "b": np.ones(4, np.float32),
}


class TensorFilesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())

  def test_what_is_written_is_read(self):
    safetensor_files.write_folder(self.folder, TENSORS, {"model_type": "x"})
    files = TensorFiles(self.folder)
    self.assertEqual(files.names(), {"a", "b"})
    self.assertEqual(files.shape("a"), (2, 3))
    part = files.read("a", (slice(None), slice(1, 3)))
    np.testing.assert_array_equal(part, TENSORS["a"][:, 1:])
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
    np.testing.assert_array_equal(files.read("b", (slice(None),)), TENSORS["b"])
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
    safetensor_files.write_folder(self.folder, TENSORS, {})
    file = self.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with self.assertRaisesRegex(ValueError, "model.safetensors"):
      TensorFiles(self.folder)


if __name__ == "__main__":
  absltest.main()
