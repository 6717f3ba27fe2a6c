"""What several processes show is what one shows, and each reads its own."""

import collections
import concurrent.futures
import threading
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import (
  loader,
  pair_dataset,
  prompt_dataset,
  ranking_dataset,
  sft_dataset,
  sharded_tokens,
  token_store,
)
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import encoding, tokenizer_files

BUCKETS = (16, 24, 32)


def records(number=60, seed=0):
  rng = np.random.default_rng(seed)
  words = lambda: "x" * int(rng.integers(1, 40))  # some are cut
  return [
    Record(
      prompt=f"Q{i}",
      responses=(f"a{words()}", f"b{words()}"),
      source=f"s{i % 2}",
    )
    for i in range(number)
  ]


def together(count, work):
  """`work(processes)` on each of `count` threads that stand for processes."""
  barrier = threading.Barrier(count)
  sent = [None] * count

  def gather_on(index):
    def gather(array):
      sent[index] = array
      barrier.wait(timeout=60)
      whole = np.stack(sent)
      barrier.wait(timeout=60)
      return whole

    return gather

  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    return [
      *pool.map(
        lambda index: work(
          sharded_tokens.Processes(index, count, gather_on(index))
        ),
        range(count),
      )
    ]


class SharesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(token_store, "CHUNK", 7))
    self.tokenizer = tokenizer_files.byte_tokenizer()

  def pairs(self, given, processes=None, **options):
    return pair_dataset.encode_pairs(
      given, self.tokenizer, max_length=32, processes=processes, **options
    )

  def source(self, dataset, processes=None, shuffle=True, **options):
    index, count = (0, 1) if processes is None else processes[:2]
    return loader.Batches(
      dataset,
      batch_size=8,
      buckets=BUCKETS,
      pad_id=self.tokenizer.pad_id,
      seed=3,
      shuffle=shuffle,
      process_index=index,
      process_count=count,
      **options,
    )

  def stream(self, source, start=0, number=None):
    number = len(source) if number is None else number
    return [
      *loader.batch_iterator(
        source, start_step=start, num_steps=number, prefetch=0
      )
    ]

  def assert_same(self, parts, whole):
    for one, *shares_of_it in zip(whole, *parts, strict=True):
      for name, array in one.items():
        np.testing.assert_array_equal(
          np.concatenate([share[name] for share in shares_of_it]), array, name
        )

  @parameterized.product(count=(2, 4), on_disk=(False, True))
  def test_lengths_and_counts_are_those_of_one_process(self, count, on_disk):
    whole = self.pairs(records())
    work = lambda processes: self.pairs(records(), processes, on_disk=on_disk)
    for shared in together(count, work):
      for name in ("lengths", "prompt_lengths"):
        ours, theirs = shared.sequences, whole.sequences
        np.testing.assert_array_equal(
          ours.__getattribute__(name), theirs.__getattribute__(name)
        )
      self.assertEqual(shared.counts, whole.counts)
      self.assertLen(shared.sequences.values, 0)
      np.testing.assert_array_equal(shared.widths, whole.widths)

  @parameterized.parameters(
    dict(count=2),
    dict(count=4, on_disk=True),
    dict(count=2, shuffle=False),
    dict(count=4, shuffle=False, on_disk=True),
    dict(count=2, mixing="stratified"),
    dict(count=4, mixing="sequential"),
  )
  def test_batches_are_those_of_one_process(
    self, count, on_disk=False, **options
  ):
    whole = self.stream(self.source(self.pairs(records()), **options))

    def work(processes):
      shared = self.pairs(records(), processes, on_disk=on_disk)
      return self.stream(self.source(shared, processes, **options))

    self.assert_same(together(count, work), whole)

  def test_resuming_in_a_later_epoch(self):
    whole = self.stream(self.source(self.pairs(records())), 10, 9)

    def work(processes):
      source = self.source(self.pairs(records(), processes), processes)
      return self.stream(source, 10, 9)

    self.assert_same(together(2, work), whole)

  def test_each_tokenises_its_chunks_and_the_rows_it_shows(self):
    given, counted = records(), collections.Counter()
    tokenise = encoding._tokenise

    def counting(chunk, *rest):
      counted[threading.get_ident()] += len(chunk)
      return tokenise(chunk, *rest)

    def work(processes):
      shared = self.pairs(given, processes)
      first = counted[threading.get_ident()]
      source = self.source(shared, processes)
      self.stream(source)
      self.stream(source)  # again, for nothing
      shown = source.shown(0)
      held = shared.sequences.starts.reshape(-1, 2) >= 0
      np.testing.assert_array_equal(held, np.stack([shown, shown], axis=1))
      second = counted[threading.get_ident()] - first
      self.assertEqual(second, shown.sum())
      return first, shown

    with mock.patch.object(encoding, "_tokenise", counting):
      found = together(4, work)
    # Nine chunks of 7 rows, the last of 4: 0, 4, 8 are of process 0.
    self.assertEqual([first for first, _ in found], [18, 14, 14, 14])
    times = np.sum([shown for _, shown in found], axis=0)
    self.assertEqual(times.max(), 1)  # disjoint
    self.assertEqual(times.sum(), len(given) // 8 * 8)

  def test_a_row_of_another_process_is_named(self):
    shared = together(2, lambda processes: self.pairs(records(), processes))[0]
    shared.hold(np.array([3]))
    self.assertLen(shared.sequence(3, 1), shared.lengths[3, 1])
    with self.assertRaisesRegex(ValueError, "sequence 10 is another process's"):
      shared.collate(np.array([3, 5]), 32, 0)

  def test_other_texts_on_another_host_are_found(self):
    def work(processes):
      given = records(seed=processes.index)  # as many, but longer and shorter
      shared = self.pairs(given, processes)
      shared.hold(np.arange(len(shared)))

    with self.assertRaisesRegex(ValueError, "all hosts must see the same"):
      together(2, work)

  def test_what_changes_between_two_readings_is_found(self):
    given = records()
    shared = together(2, lambda processes: self.pairs(given, processes))[0]
    given.pop()
    with self.assertRaisesRegex(ValueError, "120 responses were counted, 118"):
      shared.hold(np.array([0]))

  def test_packed_texts(self):
    pack = lambda processes=None: sft_dataset.pack_records(
      records(), self.tokenizer, length=32, processes=processes
    )
    whole = self.stream(self.source(pack()))
    work = lambda processes: self.stream(
      self.source(pack(processes), processes)
    )
    self.assert_same(together(2, work), whole)

  @parameterized.parameters(2, 4)
  def test_prompts(self, count):
    given = [
      Record(prompt="Q" * (1 + 7 * i % 40), responses=(), group="ab"[i % 2])
      for i in range(60)
    ]
    encode = lambda processes=None: prompt_dataset.encode_prompts(
      given,
      self.tokenizer,
      max_length=32,
      group_names=("b",),
      processes=processes,
    )
    whole = encode()
    self.assertGreater(whole.counts["truncated_prompts"], 0)

    def work(processes):
      shared = encode(processes)
      self.assertEqual(shared.counts, whole.counts)
      np.testing.assert_array_equal(shared.widths, whole.widths)
      source = self.source(shared, processes)
      stream = self.stream(source)
      held = shared.sequences.starts >= 0
      np.testing.assert_array_equal(held, source.shown(0))
      self.assertLen(shared.sequences.values, shared.widths[held].sum())
      return stream, held

    found = together(count, work)
    self.assert_same(
      [stream for stream, _ in found], self.stream(self.source(whole))
    )
    times = np.sum([held for _, held in found], axis=0)
    self.assertEqual(times.max(), 1)  # disjoint
    self.assertEqual(times.sum(), len(given) // 8 * 8)

  @parameterized.parameters(dict(count=2), dict(count=4, on_disk=True))
  def test_responses(self, count, on_disk=False):
    given = [
      Record(record.prompt, record.responses * (1 + i % 2))
      for i, record in enumerate(records())
    ]
    encode = lambda processes=None: ranking_dataset.encode_responses(
      given,
      self.tokenizer,
      max_length=32,
      on_disk=on_disk,
      processes=processes,
    )

    def work(processes):
      shared = encode(processes)
      source = self.source(shared, processes)
      stream = self.stream(source)
      held = np.repeat(source.shown(0), np.diff(shared.first))
      np.testing.assert_array_equal(shared.sequences.starts >= 0, held)
      return stream

    self.assert_same(together(count, work), self.stream(self.source(encode())))

  def test_no_record(self):
    with self.assertRaisesRegex(ValueError, "one or more, got none"):
      together(2, lambda processes: self.pairs([], processes))


if __name__ == "__main__":
  absltest.main()
