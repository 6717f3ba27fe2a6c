"""Sequences on disk are those in memory, and memory stays flat."""

import os
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import token_store
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files

PAD = 256


def records(number, responses=2):
  for i in range(number):
    yield Record(
      prompt=f"Q{i}", responses=tuple(f" a{i}-{k}" for k in range(responses))
    )


def encode(found, **kwargs):
  return token_store.encode(
    found, tokenizer_files.byte_tokenizer(), max_length=32, **kwargs
  )


class SequencesTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 5)
  def test_on_disk_equals_in_memory(self, responses):
    with absltest.mock.patch.object(token_store, "CHUNK", 3):
      memory = encode(records(10, responses))
      disk = encode(records(10, responses), on_disk=True)
    self.assertIsInstance(disk.values.base, np.memmap)
    for name in ("values", "starts", "lengths", "prompt_lengths"):
      ours, theirs = (x.__getattribute__(name) for x in (memory, disk))
      np.testing.assert_array_equal(ours, theirs)
      self.assertEqual(ours.dtype, theirs.dtype)
    self.assertLen(disk, 10 * responses)
    self.assertEqual(memory.counts, disk.counts)

  def test_no_name_points_to_the_file(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    with absltest.mock.patch.object(token_store.tempfile, "tempdir", folder):
      disk = encode(records(10), on_disk=True)
    self.assertEmpty(os.listdir(folder))
    self.assertEqual(bytes(disk[0][1:-1].tolist()), b"Q0 a0-0")
    self.assertLess(disk[0][1], 256)

  def test_padding(self):
    found = encode(records(3))
    tokens, mask = found.padded(np.array([[0, 5], [1, 2]]), 12, PAD)
    self.assertEqual((tokens.shape, tokens.dtype), ((2, 2, 12), np.int32))
    for row, number in (((0, 1), 5), ((1, 0), 1)):
      np.testing.assert_array_equal(tokens[row][mask[row]], found[number])
      self.assertTrue((tokens[row][~mask[row]] == PAD).all())
    disk = encode(records(3), on_disk=True)
    tokens[:] = 0  # fresh: not a view of the file
    np.testing.assert_array_equal(disk[0], found[0])
    padded = disk.padded(np.arange(6), 12, PAD)[0]
    self.assertNotIsInstance(padded, np.memmap)
    self.assertTrue(padded.flags.writeable)

  def test_a_chunk_of_records_is_held_at_a_time(self):
    alive = high = 0

    class Counted(str):
      def __del__(self):
        nonlocal alive
        alive -= 1

    def stream():
      nonlocal alive, high
      for i in range(100):
        alive += 1
        high = max(high, alive)
        yield Record(prompt=Counted(f"Q{i}"), responses=("a", "b"))

    with absltest.mock.patch.object(token_store, "CHUNK", 7):
      encode(stream(), on_disk=True)
    self.assertLessEqual(high, 3 * 7)

  def test_groups_are_bounded_in_number_and_characters(self):
    sizes = [5, 5, 5, 40, 1, 9, 9, 9, 9, 9]
    with (
      absltest.mock.patch.object(token_store, "CHUNK", 3),
      absltest.mock.patch.object(token_store, "CHARACTERS", 20),
    ):
      found = list(token_store.grouped(sizes, lambda size: size))
    self.assertEqual(found, [[5, 5, 5], [40], [1, 9, 9], [9, 9], [9]])
    self.assertEqual(token_store.characters(Record("Qü", ("a", "bc"))), 7)

  def test_a_ranking_is_cut_alike_in_all_responses(self):
    record = Record(prompt="x" * 40, responses=(" a", " bbb", " cc"))
    found = encode([record])
    self.assertEqual(found.lengths.max(), 32)
    np.testing.assert_array_equal(found.prompt_lengths, [27, 27, 27])
    self.assertEqual(
      found.counts, {"truncated_prompts": 1, "truncated_responses": 0}
    )

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, "records must hold one or more"):
      encode([])
    with self.assertRaisesRegex(ValueError, "max_length must be > 2, got 2"):
      token_store.encode(
        records(1), tokenizer_files.byte_tokenizer(), max_length=2
      )


if __name__ == "__main__":
  absltest.main()
