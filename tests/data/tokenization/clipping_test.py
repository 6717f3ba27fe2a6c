"""What is cut by characters changes no id of what stays."""

import itertools
from unittest import mock

import numpy as np
import tokenizers
import transformers
from absl.testing import absltest, parameterized

from jaxalign.data.batching import prompt_dataset, token_store
from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import encoding, tokenizer_files
from jaxalign.data.tokenization.tokenizer import Tokenizer
from tests.data import real_data

WORDS = (
  "the quick brown fox jumps over lazy dogs and naïve café owners in 1999 "
  "while ☕ is 3.50 — or so they said, unhurriedly; internationalisation!"
).split()


def text_of(rng, num_words):
  """Words with spaces and breaks of several kinds between them."""
  spaces = rng.choice([" ", " ", " ", "  ", "\n", "\t"], num_words)
  words = rng.choice(WORDS, num_words)
  return "".join(itertools.chain.from_iterable(zip(words, spaces, strict=True)))


def own() -> Tokenizer:
  rng = np.random.default_rng(1)
  return tokenizer_files.train_tokenizer([text_of(rng, 2000)], vocab_size=400)


def across_words() -> Tokenizer:
  """BPE over the whole text, as of the first Llama: tokens span words."""
  backend = tokenizers.Tokenizer(tokenizers.models.BPE())
  backend.normalizer = tokenizers.normalizers.Sequence(
    [
      tokenizers.normalizers.Prepend("▁"),
      tokenizers.normalizers.Replace(" ", "▁"),
    ]
  )
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=["<pad>", "<s>"],
    # Of letters without a token the library miscounts the places.
    initial_alphabet=[chr(code) for code in range(9, 127)],
    show_progress=False,
  )
  rng = np.random.default_rng(2)
  lines = [text_of(rng, 20) for _ in range(100)]
  backend.train_from_iterator(lines, trainer)
  return wrapped(backend)


def unigram() -> Tokenizer:
  backend = tokenizers.Tokenizer(tokenizers.models.Unigram())
  backend.normalizer = tokenizers.normalizers.NFKC()
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  trainer = tokenizers.trainers.UnigramTrainer(
    vocab_size=200,
    special_tokens=["<pad>", "<s>", "<unk>"],
    unk_token="<unk>",
    show_progress=False,
  )
  rng = np.random.default_rng(3)
  backend.train_from_iterator([text_of(rng, 200) for _ in range(20)], trainer)
  return wrapped(backend)


def wrapped(backend) -> Tokenizer:
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, pad_token="<pad>", bos_token="<s>"
  )
  return Tokenizer(fast, fast.pad_token_id, fast.bos_token_id, None)


def real() -> Tokenizer:
  return tokenizer_files.load_tokenizer(str(real_data.folder("gpt2_bpe")))


class ClippingTest(parameterized.TestCase):
  def whole(self, encode, records, tokenizer, length):
    """What `encode` gives if nothing is clipped."""
    with mock.patch.object(encoding, "clip", lambda texts, *_: list(texts)):
      return encode(records, tokenizer, length)

  def assert_equal_ids(self, encode, records, tokenizer, length):
    expected = self.whole(encode, records, tokenizer, length)
    found = encode(records, tokenizer, length)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_array_equal(found.prompt_lengths, expected.prompt_lengths)
    self.assertEqual(found.counts, expected.counts)

  @parameterized.parameters(
    tokenizer_files.byte_tokenizer, own, across_words, unigram, real
  )
  def test_every_id_that_stays_is_that_of_the_whole_text(self, make):
    tokenizer = make()
    rng = np.random.default_rng(0)
    encode = lambda records, tokenizer, length: token_store.encode(
      records, tokenizer, max_length=length
    )
    for length in (8, 40, 150):
      records = []
      # Words of the prompt and of both responses, from none to far too many.
      for sizes in itertools.product((0, 3, 400), (1, 30, 300), (2, 299)):
        prompt, *responses = (text_of(rng, size) for size in sizes)
        records.append(Record(prompt, tuple(responses)))
        turns = (Turn("user", prompt), Turn("assistant", "."))
        records.append(Record((*turns, *turns[:1]), tuple(responses)))
      self.assert_equal_ids(encode, records, tokenizer, length)

  def test_prompts_alone(self):
    rng = np.random.default_rng(0)
    records = [Record(text_of(rng, n), ()) for n in (0, 3, 300, 3000)]
    encode = lambda records, tokenizer, length: (
      prompt_dataset.encode_prompts(
        records, tokenizer, max_length=length, group_names=()
      ).sequences
    )
    self.assert_equal_ids(encode, records, own(), 20)

  def test_bos_of_a_chat_template_stays(self):
    tokenizer = across_words()
    tokenizer.fast.chat_template = (
      "<s>{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    rng = np.random.default_rng(0)
    chat = (Turn("user", text_of(rng, 800)),)
    records = [
      Record(chat, (text_of(rng, 2), text_of(rng, size))) for size in (1, 900)
    ]
    encode = lambda records, tokenizer, length: token_store.encode(
      records, tokenizer, max_length=length
    )
    self.assert_equal_ids(encode, records, tokenizer, 30)

  def test_a_tokenizer_is_given_no_more_than_can_stay(self):
    tokenizer = tokenizer_files.byte_tokenizer()
    seen = []
    kind = type(tokenizer)
    encode = kind.encode_texts

    def spy(self, texts, marked):
      seen.extend(map(len, texts))
      return encode(self, texts, marked)

    with mock.patch.object(kind, "encode_texts", spy):
      found = token_store.encode(
        [Record("Q" * 10**6, ("a" * 10**6, "b"))], tokenizer, max_length=32
      )
    self.assertLessEqual(max(seen), encoding.PER_TOKEN[0] * (32 + 64))
    self.assertEqual(found.lengths.tolist(), [32, 3])
    self.assertEqual(
      found.counts, {"truncated_prompts": 1, "truncated_responses": 1}
    )

  def test_long_tokens_are_looked_for_further_back(self):
    tokenizer = real()
    text = "-" * 20_000  # of 16 to 64 characters a token
    record = Record(text, ("- yes", "- no"))
    found = token_store.encode([record], tokenizer, max_length=100)
    self.assertEqual(found.lengths.max(), 100)


if __name__ == "__main__":
  absltest.main()
