"""Packed rows hold the texts, and learn from their answers alone."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import loader, packing, sft_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files

BOS, EOS, PAD = 257, 258, 256


def records(number=40, seed=0):
  rng = np.random.default_rng(seed)
  return [
    Record(prompt="Q" * int(a), responses=("x" * int(b), "unused"))
    for a, b in rng.integers(1, 9, size=(number, 2))
  ]


def pack(found, length=24, **kwargs):
  return sft_dataset.pack_records(
    found, tokenizer_files.byte_tokenizer(), length=length, **kwargs
  )


class PackedTest(parameterized.TestCase):
  def test_a_row(self):
    first = Record(prompt="ab", responses=("cd",))
    second = Record(prompt="e", responses=("f",))
    row = pack([first, second], 12).collate(np.array([0]), 12, PAD)
    np.testing.assert_array_equal(
      row["tokens"], [[BOS, *b"abcd", EOS, BOS, *b"ef", EOS, PAD, PAD]]
    )
    np.testing.assert_array_equal(
      row["segment_ids"], [[1] * 6 + [2] * 4 + [0] * 2]
    )
    np.testing.assert_array_equal(
      row["positions"], [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 0]]
    )
    # The answer and its eos; never bos, prompt or padding.
    np.testing.assert_array_equal(
      row["loss_mask"][0].astype(int), [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    )
    np.testing.assert_array_equal(row["mask"], row["segment_ids"] > 0)

  @parameterized.parameters(*packing.LAYOUTS)
  def test_every_answer_token_counts_once(self, layout):
    found = records()
    data = pack(found, layout=layout)
    rows = data.collate(np.arange(len(data)), 24, PAD)
    answers = sum(len(record.responses[0]) + 1 for record in found)
    self.assertEqual(rows["loss_mask"].sum(), answers)
    whole = sum(len(r.prompt + r.responses[0]) + 2 for r in found)
    self.assertEqual(rows["mask"].sum(), whole)
    self.assertTrue((rows["loss_mask"] <= rows["mask"]).all())
    tokens = rows["tokens"][rows["loss_mask"]]
    self.assertEqual(set(tokens.tolist()), {ord("x"), EOS})

  def test_batches_are_a_function_of_seed_and_step(self):
    make = lambda: loader.Batches(
      pack(records(200)),
      batch_size=4,
      buckets=(24,),
      pad_id=PAD,
      seed=3,
      shuffle=True,
    )
    straight = make()
    for step in (0, 5, len(straight) + 1):
      for name, array in make()[step].items():
        np.testing.assert_array_equal(array, straight[step][name], name)
    self.assertEqual(straight[0]["tokens"].shape, (4, 24))
    self.assertLess(len(straight) * 4, 200 / 1.5)

  def test_what_is_too_long_loses_its_prompt(self):
    data = pack([Record(prompt="Q" * 50, responses=("xyz",))], 10)
    row = data.collate(np.array([0]), 10, PAD)
    np.testing.assert_array_equal(row["tokens"], [[BOS, *b"QQQQQxyz"[:8], EOS]])
    self.assertEqual(data.sequences.counts["truncated_prompts"], 1)


if __name__ == "__main__":
  absltest.main()
