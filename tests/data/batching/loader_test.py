"""Batches: a pure function of (seed, step, process) that covers the data."""

import grain
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import loader, pair_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files

PAD = 256
BUCKETS = (8, 16, 32)


def dataset(num_pairs=50, max_chars=28, seed=0):
  rng = np.random.default_rng(seed)
  records = [
    Record(
      prompt="Q",
      responses=tuple("x" * n for n in rng.integers(1, max_chars, size=2)),
      chosen_prob=i / num_pairs,
      margin=float(i),
      source=f"s{i % 3}",
      group=None if i % 2 else "g",
    )
    for i in range(num_pairs)
  ]
  return pair_dataset.encode_pairs(
    records, tokenizer_files.byte_tokenizer(), max_length=32
  )


def make(data=None, **kwargs):
  defaults = dict(
    batch_size=4, buckets=BUCKETS, pad_id=PAD, seed=0, shuffle=True
  )
  return loader.Batches(
    dataset() if data is None else data, **{**defaults, **kwargs}
  )


class ContentTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_rows_are_the_pairs_they_say(self, shuffle):
    data = dataset()
    for batch in make(data, shuffle=shuffle):
      for row in np.flatnonzero(batch["where"]):
        i = batch["index"][row]
        for side in (0, 1):
          mask = batch["mask"][row, side]
          ids = data.sequence(i, side)
          np.testing.assert_array_equal(batch["tokens"][row, side][mask], ids)
          np.testing.assert_array_equal(mask, np.arange(len(mask)) < len(ids))
          self.assertTrue((batch["tokens"][row, side][~mask] == PAD).all())
        for name in ("chosen_prob", "margin", "source", "group", "annotator"):
          self.assertEqual(
            batch[name][row], data.__getattribute__(name)[i], name
          )

  @parameterized.parameters(True, False)
  def test_shapes_and_dtypes_are_as_announced(self, shuffle):
    for batch in make(shuffle=shuffle):
      length = batch["tokens"].shape[2]
      self.assertIn(length, BUCKETS)
      specs = loader.pair_shapes(4, length)
      self.assertEqual(list(batch), list(specs))
      for name, spec in specs.items():
        self.assertEqual(batch[name].shape, spec.shape, name)
        self.assertEqual(batch[name].dtype, spec.dtype, name)

  def test_arrays_are_fresh(self):
    source = make()
    first = {name: array.copy() for name, array in source[0].items()}
    for array in source[0].values():
      array[...] = 0
    for name, array in source[0].items():
      np.testing.assert_array_equal(array, first[name])


class ShuffledTest(parameterized.TestCase):
  def epoch(self, source, epoch=0):
    steps = range(epoch * len(source), (epoch + 1) * len(source))
    return [source[step] for step in steps]

  def test_an_epoch_holds_no_pair_twice_and_leaves_out_the_remainder(self):
    source = make()
    self.assertLen(source, 50 // 4)
    left_out = set()
    for epoch in range(8):
      found = np.concatenate([b["index"] for b in self.epoch(source, epoch)])
      self.assertLen(found, 48)
      self.assertLen(set(found.tolist()), 48)
      left_out |= set(range(50)) - set(found.tolist())
    # Two pairs a time, and not the same two.
    self.assertGreater(len(left_out), 8)

  def test_a_pair_moves_up_only_to_fill_a_batch(self):
    data = dataset(200)
    need = np.searchsorted(BUCKETS, data.lengths.max(axis=1))
    moved = 0
    for batch in self.epoch(make(data, batch_size=8)):
      bucket = BUCKETS.index(batch["tokens"].shape[2])
      self.assertTrue((need[batch["index"]] <= bucket).all())
      self.assertTrue(batch["where"].all())
      moved += int((need[batch["index"]] < bucket).sum())
    # At most one batch short of full per bucket boundary.
    self.assertLessEqual(moved, 7 * 2)

  def test_batches_of_one_length_do_not_come_in_a_row(self):
    lengths = [b["tokens"].shape[2] for b in self.epoch(make(dataset(400)))]
    self.assertNotEqual(lengths, sorted(lengths))
    self.assertNotEqual(lengths, sorted(lengths, reverse=True))

  def test_epochs_and_seeds_differ(self):
    order = lambda source, epoch: np.concatenate(
      [batch["index"] for batch in self.epoch(source, epoch)]
    ).tolist()
    self.assertNotEqual(order(make(), 0), order(make(), 1))
    self.assertNotEqual(order(make(), 0), order(make(seed=1), 0))
    self.assertEqual(order(make(), 1), order(make(), 1))

  def test_any_step_alone_equals_the_step_in_order(self):
    straight = make()
    steps = list(range(3 * len(straight)))
    in_order = [straight[step] for step in steps]
    for step in np.random.default_rng(0).permutation(steps):
      alone = make()[int(step)]
      for name, array in alone.items():
        np.testing.assert_array_equal(array, in_order[step][name])


class MixingTest(parameterized.TestCase):
  @parameterized.parameters(
    ("stratified", 6, None), ("stratified", 6, 40), ("sequential", 4, None)
  )
  def test_any_step_alone_on_any_process_equals_the_step_in_order(
    self, mixing, batch_size, pairs_per_source
  ):
    data = dataset()
    new = lambda **kwargs: make(
      data,
      mixing=mixing,
      batch_size=batch_size,
      pairs_per_source=pairs_per_source,
      **kwargs,
    )
    straight = new()
    steps = range(3 * len(straight))
    in_order = [straight[step] for step in steps]
    for step in np.random.default_rng(0).permutation(steps)[:20]:
      parts = [new(process_index=i, process_count=2)[int(step)] for i in (0, 1)]
      for name, array in in_order[step].items():
        np.testing.assert_array_equal(
          np.concatenate([part[name] for part in parts]), array
        )

  def test_stratified_epochs_have_the_steps_they_promise(self):
    # 17 pairs in the largest of three sources.
    self.assertLen(make(mixing="stratified", batch_size=6), 17 // 2)
    source = make(mixing="stratified", batch_size=6, pairs_per_source=40)
    self.assertLen(source, 20)
    counts = np.zeros(3, int)
    for batch in source:
      counts += np.bincount(batch["source"], minlength=3)
    np.testing.assert_array_equal(counts, [40, 40, 40])

  def test_sequential_epochs_have_the_steps_they_promise(self):
    source = make(mixing="sequential")
    self.assertLen(source, 17 // 4 + 17 // 4 + 16 // 4)
    found = [set(batch["source"].tolist()) for batch in source]
    self.assertEqual(found, [{0}] * 4 + [{1}] * 4 + [{2}] * 4)


class InOrderTest(parameterized.TestCase):
  @parameterized.parameters(1, 3, 4, 64)
  def test_every_pair_once_in_order_within_its_bucket(self, batch_size):
    data = dataset()
    need = np.searchsorted(BUCKETS, data.lengths.max(axis=1))
    source = make(data, batch_size=batch_size, shuffle=False)
    found = list(source)
    self.assertLen(found, len(source))
    index = np.concatenate([b["index"][b["where"]] for b in found])
    np.testing.assert_array_equal(index, np.argsort(need, kind="stable"))
    counts = np.bincount(need, minlength=3)
    lengths = [batch["tokens"].shape[2] for batch in found]
    for bucket, count in zip(BUCKETS, counts, strict=True):
      self.assertEqual(lengths.count(bucket), -(-count // batch_size))

  def test_rows_that_fill_up_say_so_and_hold_tokens(self):
    for batch in make(batch_size=64, shuffle=False):
      padding = ~batch["where"]
      self.assertTrue((batch["index"][padding] == -1).all())
      self.assertTrue((batch["index"][~padding] >= 0).all())
      self.assertTrue(batch["mask"].any(axis=-1).all())

  def test_epochs_repeat(self):
    source = make(shuffle=False)
    np.testing.assert_array_equal(
      source[1]["index"], source[1 + len(source)]["index"]
    )


class ProcessTest(parameterized.TestCase):
  @parameterized.product(shuffle=(True, False), process_count=(2, 4))
  def test_shards_are_disjoint_and_make_the_whole(self, shuffle, process_count):
    data = dataset()
    whole = make(data, batch_size=8, shuffle=shuffle)
    shards = [
      make(
        data,
        batch_size=8,
        shuffle=shuffle,
        process_index=i,
        process_count=process_count,
      )
      for i in range(process_count)
    ]
    for step in range(2 * len(whole)):
      parts = [shard[step] for shard in shards]
      for name, array in whole[step].items():
        np.testing.assert_array_equal(
          np.concatenate([part[name] for part in parts]), array, name
        )
      rows = np.concatenate([part["row"] for part in parts])
      np.testing.assert_array_equal(rows, np.arange(8))


class ErrorsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({"batch_size": 0}, "batch_size must be positive and divisible"),
    (
      {"batch_size": 4, "process_count": 3},
      "divisible by the number of processes, got 4 and 3",
    ),
    (
      {"process_index": 2, "process_count": 2},
      r"process_index must be in \[0, 2\), got 2",
    ),
    ({"buckets": (8, 16)}, r"the longest pair, 30 tokens, got \(8, 16\)"),
    ({"buckets": ()}, "the largest of buckets"),
    ({"buckets": (0, 64)}, "the largest of buckets"),
    ({"batch_size": 51}, "batch_size must be <= the number of pairs, got 51"),
  )
  def test_what_does_not_fit_is_named_with_its_numbers(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      make(**kwargs)

  @parameterized.parameters(
    ({"mixing": "random"}, "mixing must be one of"),
    ({"pairs_per_source": 9}, "must be None with mixing='proportional', got 9"),
    (
      {"mixing": "stratified"},
      "divisible by the number of sources with mixing='stratified', got 4 and "
      "3",
    ),
    (
      {"mixing": "stratified", "batch_size": 6, "pairs_per_source": 1},
      "pairs_per_source must be >= 2, a source's share of a batch, got 1",
    ),
    (
      {"mixing": "sequential", "batch_size": 17},
      "the pairs of every source, got 17, and 16 of 's2'",
    ),
  )
  def test_sources_that_do_not_fit(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      make(**kwargs)

  @parameterized.parameters("stratified", "sequential")
  def test_a_source_without_rows_is_an_error_at_start(self, mixing):
    record = Record(prompt="Q", responses=("a", "b"), source="here")
    data = pair_dataset.encode_pairs(
      [record] * 8,
      tokenizer_files.byte_tokenizer(),
      max_length=32,
      source_names=("gone", "here"),
    )
    with self.assertRaisesRegex(ValueError, "source 'gone' has no rows"):
      make(data, mixing=mixing)

  def test_steps_are_not_negative(self):
    with self.assertRaisesRegex(IndexError, "step must be >= 0, got -1"):
      make()[-1]


class IteratorTest(parameterized.TestCase):
  @parameterized.parameters(0, 1, 4)
  def test_equals_counting_from_any_step(self, prefetch):
    source = make()
    for start in (0, 7, len(source), 2 * len(source) + 3):
      found = loader.batch_iterator(
        source, start_step=start, num_steps=15, prefetch=prefetch
      )
      steps = 0
      for steps, batch in enumerate(found, start=1):
        expected = make()[start + steps - 1]
        for name, array in expected.items():
          np.testing.assert_array_equal(batch[name], array)
      self.assertEqual(steps, 15)

  def test_grain_takes_it_for_a_source(self):
    source = make(shuffle=False)
    self.assertIsInstance(source, grain.sources.RandomAccessDataSource)
    found = grain.MapDataset.source(source)
    self.assertLen(found, len(source))
    np.testing.assert_array_equal(found[1]["tokens"], source[1]["tokens"])

  def test_no_steps_are_no_batches(self):
    found = loader.batch_iterator(make(), start_step=5, num_steps=0, prefetch=2)
    self.assertEmpty(list(found))

  @parameterized.parameters("start_step", "num_steps", "prefetch")
  def test_negative_numbers_are_named(self, name):
    given = dict(start_step=0, num_steps=1, prefetch=1)
    with self.assertRaisesRegex(ValueError, f"{name} must be >= 0, got -1"):
      loader.batch_iterator(make(), **{**given, name: -1})

  def test_prefetching_works_ahead_of_the_consumer(self):
    import threading

    made, ahead = [], threading.Event()

    class Counting:
      def hold(self, steps):
        pass

      def __getitem__(self, step):
        made.append(step)
        if len(made) >= 4:
          ahead.set()
        return step

    found = loader.batch_iterator(
      Counting(), start_step=0, num_steps=20, prefetch=4
    )
    self.assertEqual(next(found), 0)
    self.assertTrue(ahead.wait(timeout=30))
    self.assertEqual(list(found), list(range(1, 20)))
    self.assertEqual(sorted(made), list(range(20)))


if __name__ == "__main__":
  absltest.main()
