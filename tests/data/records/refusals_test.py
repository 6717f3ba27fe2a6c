"""A record that a tokenizer refuses keeps its place, and is found early."""

import tokenizers
import transformers
from absl.testing import absltest, parameterized

from jaxalign.data.batching import token_store
from jaxalign.data.records import refusals
from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.data.tokenization.tokenizer import Tokenizer

TURNS = (Turn("user", "a"),)
NO_SYSTEM = (
  "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
  "{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
)


def without_unknown() -> Tokenizer:
  """Letters a and b, and nothing that stands for any other."""
  vocab = {"a": 0, "b": 1, "<pad>": 2}
  model = tokenizers.models.WordLevel(vocab, unk_token="<unk>")
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(
    tokenizers.Regex("."), "isolated"
  )
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, pad_token="<pad>"
  )
  return Tokenizer(fast, 2, None, None)


def chat() -> Tokenizer:
  tokenizer = tokenizer_files.byte_tokenizer()
  tokenizer.fast.chat_template = NO_SYSTEM
  return tokenizer


class RefusalsTest(parameterized.TestCase):
  @parameterized.parameters(
    (chat, Record((Turn("system", "a"),), ("a", "b")), "no system"),
    (chat, Record((), ("a",)), "2 responses are needed, got 1"),
    (without_unknown, Record("a", ("b", "ac")), "missing from the voc|Missing"),
  )
  def test_what_is_refused(self, make, record, message):
    tokenizer = make()
    check = refusals.refuses(tokenizer, least=2)
    check(Record("a" if make is without_unknown else TURNS, ("b", "a")))
    placed = Record(record.prompt, record.responses, where="f:3")
    with self.assertRaisesRegex(ValueError, f"^f:3: .*({message})"):
      check(placed)

  def test_the_prompt_alone(self):
    check = refusals.refuses(chat(), least=0)
    check(Record(TURNS, ()))
    with self.assertRaisesRegex(ValueError, "^record id x: no system"):
      check(Record((Turn("system", "a"),), (), id="x"))

  def test_one_of_many_texts_is_named_as_it_is_encoded(self):
    tokenizer = without_unknown()
    records = [Record("a", ("b",), where=f"f:{i}") for i in range(3)]
    records.insert(1, Record("a", ("c",), where="f:bad"))
    with self.assertRaisesRegex(ValueError, "^f:bad: "):
      token_store.encode(records, tokenizer, max_length=8)

  def test_nothing_is_rendered_twice_where_a_bad_record_is_an_error(self):
    find = refusals.refuses_if_skipping
    self.assertIsNone(find("error", chat(), least=2))
    self.assertIsNotNone(find("skip", chat(), least=2))


if __name__ == "__main__":
  absltest.main()
