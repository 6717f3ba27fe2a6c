"""Prompts alone: left padding, truncation, groups, and errors."""

import numpy as np
from absl.testing import absltest

from jaxalign.data.batching import loader, prompt_dataset
from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files

PAD, BOS = 256, 257


def record(prompt, group=None):
  return Record(prompt=prompt, responses=("x",), group=group, source="s")


def encode(*records, max_length=6):
  return prompt_dataset.encode_prompts(
    records,
    tokenizer_files.byte_tokenizer(),
    max_length=max_length,
    group_names=("warm", "brief"),
  )


class PromptsTest(absltest.TestCase):
  def test_pads_on_the_left_and_cuts_the_beginning(self):
    data = encode(record("ab", "brief"), record("abcdefgh", "other"))
    found = data.collate(np.array([0, 1]), 6, PAD)
    np.testing.assert_array_equal(
      found["prompts"],
      [[PAD, PAD, PAD, BOS, 97, 98], [BOS, 100, 101, 102, 103, 104]],
    )
    np.testing.assert_array_equal(
      found["prompt_mask"], [[False] * 3 + [True] * 3, [True] * 6]
    )
    np.testing.assert_array_equal(found["group"], [1, -1])
    self.assertEqual(data.counts, {"truncated_prompts": 1})
    self.assertEqual(list(data.texts), ["ab", "abcdefgh"])

  def test_makes_batches_of_announced_shapes(self):
    data = encode(*(record("abc"[: 1 + i % 3]) for i in range(10)))
    source = loader.Batches(
      data, batch_size=4, buckets=(6,), pad_id=PAD, seed=0, shuffle=True
    )
    specs = prompt_dataset.prompt_shapes(4, 6)
    self.assertEqual({*source[0]}, {*specs})
    for name, spec in specs.items():
      self.assertEqual(source[0][name].shape, spec.shape, name)
      self.assertEqual(source[0][name].dtype, spec.dtype, name)

  def test_turns_end_where_the_answer_begins(self):
    data = encode(record((Turn("user", "hi"),)), max_length=64)
    text = tokenizer_files.byte_tokenizer().decode(data.sequences[0])
    self.assertEndsWith(text, "Assistant:")

  def test_a_marker_written_by_a_template_is_not_doubled(self):
    tokenizer = tokenizer_files.byte_tokenizer()
    tokenizer.fast.chat_template = (
      "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    found, _ = prompt_dataset.padded_prompts(
      [(Turn("user", "Q"),)], tokenizer, length=3, num_rows=1
    )
    np.testing.assert_array_equal(found, [[PAD, BOS, 81]])

  def test_a_batch_of_one_shape_is_filled_with_its_last_prompt(self):
    found, mask = prompt_dataset.padded_prompts(
      ["ab", "abcdefgh"], tokenizer_files.byte_tokenizer(), length=4, num_rows=3
    )
    long = [BOS, 102, 103, 104]
    np.testing.assert_array_equal(found, [[PAD, BOS, 97, 98], long, long])
    np.testing.assert_array_equal(mask.sum(axis=1), [3, 4, 4])

  def test_refuses(self):
    with self.assertRaisesRegex(ValueError, "one or more"):
      encode()
    with self.assertRaisesRegex(ValueError, "max_length must be > 1, got 1"):
      encode(record("a"), max_length=1)


if __name__ == "__main__":
  absltest.main()
