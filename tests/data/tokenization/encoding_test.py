"""What a record becomes: ids with markers, cut from the front of the prompt."""

from unittest import mock

from absl.testing import absltest

from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import encoding, tokenizer_files


class TokenisingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.tokenizer = tokenizer_files.byte_tokenizer()
    self.bos, self.eos = self.tokenizer.bos_id, self.tokenizer.eos_id
    self.ids = self.tokenizer.encode

  def one(self, record, max_length, tokenise=encoding.tokenised):
    (found,) = tokenise([record], self.tokenizer, max_length, 0)
    return found

  def test_a_short_record_is_whole_between_its_markers(self):
    found = self.one(Record("Q:", (" a", " bc")), 20)
    self.assertEqual(
      found.ids,
      [[self.bos, *self.ids(f"Q:{text}"), self.eos] for text in (" a", " bc")],
    )
    self.assertEqual(found.prompt_lengths, [3, 3])
    self.assertFalse(found.truncated_prompts or found.truncated_responses)

  def test_a_long_prompt_loses_its_beginning_and_no_marker(self):
    found = self.one(Record("0123456789", (" a",)), 8)
    self.assertEqual(found.ids, [[self.bos, *self.ids("6789 a"), self.eos]])
    self.assertTrue(found.truncated_prompts)
    self.assertFalse(found.truncated_responses)

  def test_a_long_response_is_cut_and_told(self):
    found = self.one(Record("Q", ("0123456789",)), 6)
    self.assertLen(found.ids[0], 6)
    self.assertTrue(found.truncated_responses)

  def test_an_answer_ends_once(self):
    found = self.one(Record("Q:", (" a",)), 20, encoding.answered)
    self.assertEqual(found.ids[0].count(self.eos), 1)
    self.assertEqual(found.ids[0][-1], self.eos)

  def test_a_refused_record_is_named(self):
    refuses = mock.patch.object(
      type(self.tokenizer),
      "sequence_text",
      side_effect=TypeError("no such role"),
    )
    with refuses, self.assertRaisesRegex(ValueError, "record 7.*no such role"):
      [*encoding.tokenised([Record("Q", (" a",))], self.tokenizer, 8, 7)]


if __name__ == "__main__":
  absltest.main()
