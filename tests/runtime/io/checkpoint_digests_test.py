"""A saved state is what its digests say, or the file that is not is named."""

import pathlib
import tempfile

import jax.numpy as jnp
from absl.testing import absltest

from jaxalign.runtime.io import checkpoint, checkpoint_digests


class CheckpointDigestsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.path = root / "1" / "state"
    with checkpoint.Checkpoints(
      root, keep_last=1, keep_best=0, best_metric="loss"
    ) as saved:
      saved.save(1, {"w": jnp.arange(400.0), "step": jnp.int32(3)}, None)

  def files(self):
    return sorted(
      (
        file
        for file in self.path.glob("**/*")
        if file.is_file() and file.name != checkpoint_digests.FILE
      ),
      key=str,
    )

  def test_every_file_has_a_digest_and_all_is_well(self):
    text = (self.path / checkpoint_digests.FILE).read_text()
    names = {line.split("  ")[1] for line in text.splitlines()}
    here = {str(file.relative_to(self.path)) for file in self.files()}
    self.assertContainsSubset(names, here)
    self.assertGreater(len(names), 1)
    self.assertIsNone(checkpoint_digests.damaged(self.path))

  def test_a_flipped_byte_is_found_in_any_file(self):
    for file in self.files():
      whole = file.read_bytes()
      if not whole or file.name == "commit_success.txt":
        continue
      torn = bytearray(whole)
      torn[len(torn) // 2] ^= 1
      file.write_bytes(bytes(torn))
      self.assertIn(str(file), checkpoint_digests.damaged(self.path))
      file.write_bytes(whole)
    self.assertIsNone(checkpoint_digests.damaged(self.path))

  def test_a_missing_and_a_new_file_are_found(self):
    file = next(f for f in self.files() if f.name != "commit_success.txt")
    whole = file.read_bytes()
    file.unlink()
    self.assertRegex(checkpoint_digests.damaged(self.path), "is missing$")
    file.write_bytes(whole)
    (self.path / "stray").write_bytes(b"x")
    self.assertRegex(checkpoint_digests.damaged(self.path), "stray is new$")

  def test_without_digests_there_is_nothing_to_compare(self):
    (self.path / checkpoint_digests.FILE).unlink()
    with self.assertRaises(FileNotFoundError):
      checkpoint_digests.damaged(self.path)

  def test_damaged_digests_are_named(self):
    (self.path / checkpoint_digests.FILE).write_text("no digest\n")
    self.assertRegex(
      checkpoint_digests.damaged(self.path), "SHA256SUMS:1 is damaged"
    )


if __name__ == "__main__":
  absltest.main()
