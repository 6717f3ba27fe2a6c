"""Pairs as tokens: what is kept, what is cut, and how it is stored."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import pair_dataset, token_store
from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import own_tokenizers, tokenizer_files
from tests.data import real_data

BOS, EOS = 257, 258


def pair(prompt, chosen, rejected, **columns):
  return Record(prompt=prompt, responses=(chosen, rejected), **columns)


class EncodeTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.tokenizer = tokenizer_files.byte_tokenizer()

  def encode(self, *records, max_length=64, **kwargs):
    return pair_dataset.encode_pairs(
      records, self.tokenizer, max_length=max_length, **kwargs
    )

  def sides(self, dataset, i=0):
    return [dataset.sequence(i, side).tolist() for side in (0, 1)]

  def test_a_sequence_is_bos_prompt_response_eos(self):
    dataset = self.encode(pair("Q", " yes", " no"), pair("é", "a", "☕"))
    self.assertEqual(
      self.sides(dataset),
      [[BOS, *b"Q yes", EOS], [BOS, *b"Q no", EOS]],
    )
    self.assertEqual(
      self.sides(dataset, 1),
      [[BOS, *"éa".encode(), EOS], [BOS, *"é☕".encode(), EOS]],
    )
    # bos and the prompt; é is two bytes.
    np.testing.assert_array_equal(dataset.prompt_lengths, [[2, 2], [3, 3]])
    np.testing.assert_array_equal(dataset.lengths, [[7, 6], [5, 7]])
    self.assertEqual(dataset.sequences.values.dtype, np.int32)

  def test_markers_that_a_tokenizer_lacks_are_left_out(self):
    backend = self.tokenizer.fast.backend_tokenizer
    backend.post_processor = own_tokenizers.enclosing(backend, None, None)
    dataset = self.encode(pair("Q", " yes", " no"))
    self.assertEqual(self.sides(dataset), [[*b"Q yes"], [*b"Q no"]])
    np.testing.assert_array_equal(dataset.prompt_lengths, [[1, 1]])

  def test_a_template_alone_writes_the_markers_of_a_chat(self):
    self.tokenizer.fast.chat_template = (
      "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
      "{% if not add_generation_prompt %}{{ eos_token }}!{% endif %}"
    )
    dataset = self.encode(pair((Turn("user", "Q"),), " yes", " no"))
    self.assertEqual(
      self.sides(dataset),
      [[BOS, *b"Q yes", EOS, ord("!")], [BOS, *b"Q no", EOS, ord("!")]],
    )
    np.testing.assert_array_equal(dataset.prompt_lengths, [[2, 2]])
    self.tokenizer.fast.chat_template = (
      "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    dataset = self.encode(pair((Turn("user", "Q"),), " yes", " no"))
    self.assertEqual(self.sides(dataset), [[*b"Q yes"], [*b"Q no"]])

  def test_a_text_without_a_token_is_a_marker(self):
    self.tokenizer.fast.chat_template = "{{ messages[-1].content }}"
    dataset = self.encode(pair((Turn("user", "Q"),), "", "no"))
    self.assertEqual(self.sides(dataset), [[BOS], [*b"no"]])

  def test_padding_at_the_end_is_not_read(self):
    self.tokenizer = dataclasses.replace(self.tokenizer, unread_id=EOS)
    dataset = self.encode(pair("Q", " yes", " no"))
    self.assertEqual(self.sides(dataset), [[BOS, *b"Q yes"], [BOS, *b"Q no"]])

  def test_a_template_that_refuses_a_conversation_names_the_record(self):
    self.tokenizer.fast.chat_template = "{{ raise_exception('no system') }}"
    refused = pair((Turn("system", ""),), "a", "b")
    with self.assertRaisesRegex(ValueError, "^record 1, id None: no system$"):
      self.encode(pair("Q", "a", "b"), refused)
    refused = dataclasses.replace(refused, where="f:7")
    with self.assertRaisesRegex(ValueError, "^f:7: no system$"):
      self.encode(pair("Q", "a", "b"), refused)

  @parameterized.parameters(
    # (max_length, chosen, rejected, prompt lengths, truncated responses)
    (12, b"abcdef yes", b"abcdef no", (7, 7), 0),
    (11, b"bcdef yes", b"bcdef no", (6, 6), 0),
    (7, b"f yes", b"f no", (2, 2), 0),
    (6, b" yes", b" no", (1, 1), 0),
    # Without any prompt the beginning of a response goes, never its end.
    (5, b"yes", b" no", (1, 1), 1),
    (3, b"s", b"o", (1, 1), 1),
  )
  def test_the_prompt_gives_way_alike_on_both_sides(
    self, max_length, chosen, rejected, prompt_lengths, num_responses
  ):
    dataset = self.encode(pair("abcdef", " yes", " no"), max_length=max_length)
    self.assertEqual(
      self.sides(dataset), [[BOS, *chosen, EOS], [BOS, *rejected, EOS]]
    )
    np.testing.assert_array_equal(dataset.prompt_lengths, [prompt_lengths])
    self.assertEqual(
      dataset.counts,
      {
        "truncated_prompts": int(max_length < 12),
        "truncated_responses": num_responses,
      },
    )

  def test_columns(self):
    dataset = self.encode(
      pair("Q", "a", "b", margin=2.0, source="z", group="g", annotator="p"),
      pair("Q", "a", "b", strength=0.5, source="y", tie=True, id="i"),
      pair("Q", "a", "b", votes_chosen=3, votes_rejected=1, margin=0.0),
    )
    np.testing.assert_array_equal(dataset.chosen_prob, [1.0, 0.5, 0.75])
    np.testing.assert_array_equal(dataset.margin, [2.0, 0.0, 0.0])
    np.testing.assert_array_equal(dataset.has_margin, [True, False, True])
    np.testing.assert_array_equal(dataset.strength, [np.nan, 0.5, np.nan])
    self.assertEqual(dataset.source_names, ("unnamed", "y", "z"))
    np.testing.assert_array_equal(dataset.source, [2, 1, 0])
    self.assertEqual(dataset.group_names, ("g",))
    np.testing.assert_array_equal(dataset.group, [0, -1, -1])
    np.testing.assert_array_equal(dataset.annotator, [0, -1, -1])
    self.assertEqual(dataset.annotator_names, ("p",))
    for name in ("chosen_prob", "margin", "strength"):
      self.assertEqual(dataset.__getattribute__(name).dtype, np.float32)
    for name in ("source", "group", "annotator"):
      self.assertEqual(dataset.__getattribute__(name).dtype, np.int32)

  def test_names_can_be_fixed_to_those_of_another_split(self):
    record = pair("Q", "a", "b", source="y", group="g")
    dataset = self.encode(
      record, source_names=("x", "y"), group_names=("h", "g")
    )
    self.assertEqual((dataset.source[0], dataset.group[0]), (1, 1))
    self.assertEqual(dataset.source_names, ("x", "y"))
    with self.assertRaisesRegex(
      ValueError, "source must be one of x, z, got 'y'"
    ):
      self.encode(record, source_names=("x", "z"))

  def test_many_chunks_keep_their_order(self):
    with absltest.mock.patch.object(token_store, "CHUNK", 3):
      dataset = self.encode(*(pair("Q", str(i), "no") for i in range(10)))
    for i in range(10):
      self.assertEqual(self.sides(dataset, i)[0], [BOS, *f"Q{i}".encode(), EOS])

  @parameterized.parameters(
    ([], 64, "records must hold one or more, got none"),
    ([pair("Q", "a", "b")], 2, "max_length must be > 2, got 2"),
    (
      [pair("Q", "a", "b"), Record(prompt="Q", responses=("a", "b", "c"))],
      64,
      "record 1, id None: 3 responses, expected 2; record.expand_rankings",
    ),
  )
  def test_refusals(self, records, max_length, message):
    with self.assertRaisesRegex(ValueError, message):
      self.encode(*records, max_length=max_length)


class TruncationTest(absltest.TestCase):
  def test_cutting_changes_no_token_of_what_stays(self):
    folder = real_data.folder("stories260k_lm")
    tokenizer = tokenizer_files.load_tokenizer(str(folder))
    record = pair(
      "\n\nHuman: Once upon a time, there was a big dog.\n\nAssistant:",
      " He ran to the park and played.",
      " He slept.",
    )
    whole = pair_dataset.encode_pairs([record], tokenizer, max_length=512)
    length = whole.lengths.max()
    for max_length in range(4, length + 2):
      cut = pair_dataset.encode_pairs(
        [record], tokenizer, max_length=max_length
      )
      for side in (0, 1):
        got, all_ids = cut.sequence(0, side), whole.sequence(0, side)
        self.assertLessEqual(len(got), max_length)
        self.assertEqual(got[0], tokenizer.bos_id)
        np.testing.assert_array_equal(got[1:], all_ids[-(len(got) - 1) :])
    # Joined text is what the model was trained on: prompt and response as one.
    np.testing.assert_array_equal(
      whole.sequence(0, 0)[1:],
      tokenizer.encode(record.prompt + record.responses[0]),
    )
    response = whole.sequence(0, 0)[whole.prompt_lengths[0, 0] :]
    self.assertEqual(
      tokenizer.decode(response).strip(), record.responses[0].strip()
    )


if __name__ == "__main__":
  absltest.main()
