"""Tokenizers load offline, pad by one rule and read back what they wrote."""

import json
import pathlib
import shutil
import tempfile

import tokenizers
import transformers
from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn
from jaxalign.data.tokenization import own_tokenizers, tokenizer_files
from tests.data import real_data

CHAT = (
  "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>\n{% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BOS, EOS = (own_tokenizers.MARKERS[role] for role in ("bos_token", "eos_token"))
USER, REPLY = Turn("user", "Hi"), Turn("assistant", "Hello")


def words(*specials, **markers):
  """A word-level tokenizer with the special tokens given."""
  vocab = {word: i for i, word in enumerate(("a", "b", *specials))}
  backend = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(vocab, unk_token=markers.get("unk_token"))
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  backend.add_special_tokens(list(specials))
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, **markers
  )


class TokenizerTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def saved(self, fast):
    fast.save_pretrained(str(self.folder))
    return tokenizer_files.load_tokenizer(str(self.folder))

  def test_bytes_are_ids(self):
    tokenizer = tokenizer_files.byte_tokenizer()
    text = "".join(map(chr, range(300))) + " ☕ <eos><pad>"
    self.assertEqual(tokenizer.encode(text), list(text.encode()))
    self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
    self.assertEqual(
      (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id), (256, 257, 258)
    )
    self.assertEqual(tokenizer.vocab_size, 259)

  def test_the_byte_tokenizer_survives_saving(self):
    tokenizer_files.byte_tokenizer().save(self.folder)
    self.assertTrue((self.folder / "tokenizer.json").is_file())
    tokenizer = tokenizer_files.load_tokenizer(str(self.folder))
    text = "naïve\n <eos>"
    self.assertEqual(tokenizer.encode(text), list(text.encode()))
    self.assertEqual(
      (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id), (256, 257, 258)
    )
    # transformers itself reads the same folder.
    fast = transformers.AutoTokenizer.from_pretrained(str(self.folder))
    self.assertEqual(fast.pad_token_id, 256)

  def test_what_is_saved_is_for_every_program(self):
    tokenizer = tokenizer_files.byte_tokenizer()
    tokenizer.save(self.folder)
    content = json.loads((self.folder / "tokenizer_config.json").read_text())
    self.assertEqual(content["tokenizer_class"], "PreTrainedTokenizerFast")
    self.assertEqual(
      content["model_input_names"], ["input_ids", "attention_mask"]
    )
    for file in self.folder.iterdir():
      self.assertEqual(file.stat().st_mode & 0o777, 0o644, file.name)
    theirs = transformers.AutoTokenizer.from_pretrained(str(self.folder))
    ids = [257, *b"Q <eos>", 258]
    self.assertEqual(theirs("Q <eos>")["input_ids"], ids)
    turns = [turn._asdict() for turn in (USER, REPLY, USER)]
    text, _ = tokenizer.sequence_text((USER, REPLY, USER), ())
    self.assertEqual(
      theirs.apply_chat_template(turns, return_dict=False),
      tokenizer.encode(text),
    )
    self.assertEqual(
      theirs.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
      ),
      tokenizer.prompt_text((USER, REPLY, USER)),
    )

  def test_learned_words_are_one_token(self):
    learned = tokenizer_files.train_tokenizer(
      ["hello there", "hello world"] * 3, vocab_size=263
    )
    self.assertEqual(learned.vocab_size, 263)
    self.assertEqual(
      (learned.pad_id, learned.bos_id, learned.eos_id), (0, 1, 2)
    )
    # Four merges make "hello" of five letters; nothing else is as frequent.
    self.assertLen(learned.encode("hello"), 1)
    self.assertLen(learned.encode("hells"), 2)
    text = "".join(map(chr, range(300))) + " ☕ <eos><pad> hello"
    self.assertNotIn(2, learned.encode(text))
    self.assertEqual(learned.decode(learned.encode(text)), text)
    again = self.saved(learned.fast)
    self.assertEqual(again.encode(text), learned.encode(text))
    self.assertEqual((again.pad_id, again.bos_id, again.eos_id), (0, 1, 2))

  def test_no_more_tokens_than_there_are_words(self):
    learned = tokenizer_files.train_tokenizer(["ab"], vocab_size=1000)
    self.assertEqual(learned.vocab_size, 260)

  def test_no_room_for_bytes(self):
    with self.assertRaisesRegex(ValueError, r">= 259, .* got 258"):
      tokenizer_files.train_tokenizer(["ab"], vocab_size=258)

  @parameterized.parameters(
    (("<eos>", "<my_pad>", "<unk>"), {"unk_token": "<unk>"}, "<my_pad>"),
    (("<eos>", "<unk>"), {"unk_token": "<unk>"}, "<unk>"),
    (("<eos>",), {}, "<eos>"),
    (("<eos>", "<x>"), {"pad_token": "<x>"}, "<x>"),
  )
  def test_pads_with_pad_else_unk_else_eos(self, specials, markers, expected):
    tokenizer = self.saved(words(*specials, eos_token="<eos>", **markers))
    self.assertEqual(
      tokenizer.fast.convert_ids_to_tokens(tokenizer.pad_id), expected
    )

  def test_nothing_to_pad_with(self):
    with self.assertRaisesRegex(ValueError, "no pad, unk or eos token"):
      self.saved(words())

  def test_a_bare_tokenizer_json_has_its_markers_found_by_name(self):
    fast = words("</s>", "<s>")
    fast.backend_tokenizer.save(str(self.folder / "tokenizer.json"))
    tokenizer = tokenizer_files.load_tokenizer(str(self.folder))
    self.assertEqual((tokenizer.eos_id, tokenizer.bos_id), (2, 3))

  def test_a_model_config_names_markers_by_id(self):
    fast = words("</s>", "<s>", "<x>")
    fast.backend_tokenizer.save(str(self.folder / "tokenizer.json"))
    config = {"bos_token_id": 4, "eos_token_id": 2}
    (self.folder / "config.json").write_text(json.dumps(config))
    tokenizer = tokenizer_files.load_tokenizer(str(self.folder))
    self.assertEqual((tokenizer.eos_id, tokenizer.bos_id), (2, 4))

  @parameterized.parameters(
    ("openai/gpt2", "must be 'byte' or a folder, got 'openai/gpt2'"),
    ("", "must be 'byte' or a folder"),
  )
  def test_no_folder(self, spec, message):
    with self.assertRaisesRegex(ValueError, message):
      tokenizer_files.load_tokenizer(spec)

  def test_a_folder_without_tokenizer(self):
    with self.assertRaisesRegex(ValueError, "must hold tokenizer.json, or"):
      tokenizer_files.load_tokenizer(str(self.folder))


class ChatTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.tokenizer = tokenizer_files.byte_tokenizer()

  def test_text_is_joined_as_it_is(self):
    self.assertEqual(self.tokenizer.sequence_text("Q:", " yes"), ("Q: yes", 2))

  def test_without_a_template_turns_become_a_dialogue(self):
    prompt = (Turn("system", "Be kind"), USER)
    start = f"{BOS}\n\nSystem: Be kind\n\nHuman: Hi\n\nAssistant:"
    self.assertEqual(self.tokenizer.prompt_text(prompt), start)
    self.assertEqual(
      self.tokenizer.sequence_text(prompt, "Hello"),
      (f"{start} Hello{EOS}", len(start)),
    )
    more = (REPLY, USER, REPLY)
    self.assertEqual(
      self.tokenizer.sequence_text(prompt, more),
      (f"{start} Hello\n\nHuman: Hi\n\nAssistant: Hello{EOS}", len(start)),
    )

  def test_what_a_template_writes_stays(self):
    self.tokenizer.fast.chat_template = CHAT
    start = "<|user|>Hi</s>\n<|assistant|>"
    self.assertEqual(self.tokenizer.prompt_text((USER,)), start)
    self.assertEqual(
      self.tokenizer.sequence_text((USER,), "Hello"),
      (start + "Hello</s>\n", len(start)),
    )
    self.assertEqual(
      self.tokenizer.sequence_text((), "Hello"), ("<|assistant|>Hello</s>\n", 0)
    )


class RealTokenizersTest(absltest.TestCase):
  def test_stories_golden(self):
    folder = real_data.folder("stories260k_lm")
    tokenizer = tokenizer_files.load_tokenizer(str(folder))
    golden = json.loads((folder / "golden.json").read_text())["tokenizer"]
    self.assertNotEmpty(golden)
    for case in golden:
      self.assertEqual([1, *tokenizer.encode(case["text"])], case["ids"])
    self.assertEqual(
      (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id), (0, 1, 2)
    )
    self.assertEqual(tokenizer.vocab_size, 512)

  def test_stories_from_tokenizer_json_alone(self):
    folder = real_data.folder("stories260k_lm")
    with tempfile.TemporaryDirectory() as alone:
      shutil.copy(folder / "tokenizer.json", alone)
      tokenizer = tokenizer_files.load_tokenizer(alone)
    self.assertEqual(
      (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id), (0, 1, 2)
    )

  def test_gpt2_golden(self):
    folder = real_data.folder("gpt2_bpe")
    tokenizer = tokenizer_files.load_tokenizer(str(folder))
    golden = json.loads((folder / "golden.json").read_text())
    self.assertNotEmpty(golden)
    for case in golden:
      self.assertEqual(tokenizer.encode(case["text"]), case["ids"])
    self.assertEqual(
      (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id),
      (50256, None, 50256),
    )


if __name__ == "__main__":
  absltest.main()
