"""Feature store: rows by key, what a kill leaves, and another model's file."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from jaxalign.runtime.io import feature_store

ABOUT = {"weights": "abc", "layer": 2}
KEYS = [bytes([i]) * feature_store.KEY_BYTES for i in range(5)]
ROWS = np.arange(15, dtype=np.float32).reshape(5, 3)


class FeatureStoreTest(absltest.TestCase):
  def new_folder(self):
    return pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

  def setUp(self):
    super().setUp()
    self.folder = self.new_folder()

  def open(self, **changes):
    return feature_store.FeatureStore(self.folder, {**ABOUT, **changes}, 3)

  def filled(self, number):
    store = self.open()
    with store.writing():
      store.append(KEYS[:number], ROWS[:number])
    return store

  def test_rows_are_found_by_their_keys_in_any_order(self):
    self.filled(3)
    store = self.open()
    with store.writing():
      store.append(KEYS[3:], ROWS[3:])
    again = self.open()
    self.assertLen(again, 5)
    order = [4, 0, 2]
    rows = again.rows([KEYS[i] for i in order])
    np.testing.assert_array_equal(again.values()[rows], ROWS[order])
    self.assertIsInstance(again.values(), np.memmap)
    self.assertEqual(again.rows([b"?" * 16]).tolist(), [-1])

  def test_what_a_kill_cut_short_is_written_again(self):
    self.filled(3)
    values = self.folder / feature_store.VALUES
    keys = self.folder / feature_store.KEYS
    # Killed between the rows and their keys, and in the middle of a key.
    for cut, kept in ((0, 3), (5, 2)):
      with self.subTest(cut):
        with values.open("ab") as file:
          file.write(b"half a row")
        keys.write_bytes(keys.read_bytes()[: 3 * 16 - cut])
        store = self.open()
        self.assertLen(store, kept)
        with store.writing():
          store.append(KEYS[kept:4], ROWS[kept:4])
        again = self.open()
        np.testing.assert_array_equal(again.values(), ROWS[:4])
        self.assertEqual(again.rows(KEYS[:4]).tolist(), [0, 1, 2, 3])
        with store.writing():
          pass
        values.write_bytes(values.read_bytes()[: 3 * 12])
        keys.write_bytes(keys.read_bytes()[: 3 * 16])

  def test_another_writer_is_seen(self):
    one, two = self.open(), self.open()
    with one.writing():
      one.append(KEYS[:2], ROWS[:2])
    self.assertEmpty(two)
    with two.writing():
      self.assertLen(two, 2)
      two.append(KEYS[2:3], ROWS[2:3])
    one.refresh()
    self.assertEqual(one.rows(KEYS[:3]).tolist(), [0, 1, 2])

  def test_an_empty_store_has_rows_of_its_width(self):
    self.assertEqual(self.open().values().shape, (0, 3))

  def test_refuses(self):
    self.filled(1)
    with self.assertRaisesRegex(ValueError, "features with layer 2, wanted 1"):
      self.open(layer=1)
    with self.assertRaisesRegex(ValueError, "from a disk, got s3://b/f"):
      feature_store.FeatureStore("s3://b/f", ABOUT, 3)
    store = self.open()
    with store.writing():
      with self.assertRaisesRegex(ValueError, r"\(1, 3\), got shape \(1, 2\)"):
        store.append(KEYS[1:2], ROWS[:1, :2])
      with self.assertRaisesRegex(ValueError, "not finite"):
        store.append(KEYS[1:2], np.full((1, 3), np.nan))
    self.assertLen(self.open(), 1)


if __name__ == "__main__":
  absltest.main()
