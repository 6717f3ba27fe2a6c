"""Folders from before tokenizers wrote markers are read as they were."""

import json
import pathlib
import tempfile

import tokenizers
import transformers
from absl.testing import absltest, parameterized

from jaxalign.data.batching import prompt_dataset, token_store
from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import (
  chat_templates,
  older_tokenizers,
  own_tokenizers,
  tokenizer_files,
)
from tests.data.tokenization import tokenizer_files_test as folders

TEXTS = ["there was a girl", "<eos> and <bos>é ☕", " a", ""]
USER, REPLY = Turn("user", "is it fair?"), Turn("assistant", "yes, it was")
# Markers and line breaks in every place where a template may have them.
TEMPLATES = (
  None,
  folders.CHATML,
  folders.LLAMA,
  "\n{{ bos_token }}{% for m in messages %}\n{{ m.content }}{{ eos_token }}\n"
  "{% endfor %}\n",
  "{% macro say(m) %}{{ m.role }}: {{ m.content }}{% endmacro %}"
  "{% set all = namespace(n=0) %}{% for m in messages %}{{ say(m) }}"
  "{% set all.n = all.n + 1 %}{% endfor %}{{ all.n }}",
)


def made_here(backend) -> transformers.PreTrainedTokenizerFast:
  """A tokenizer of this library as the first format had it."""
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    **older_tokenizers._MARKERS,
    split_special_tokens=True,
    clean_up_tokenization_spaces=False,
  )


def bytes_alone():
  names = own_tokenizers._byte_names()
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE({name: i for i, name in enumerate(names)}, [])
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  backend.decoder = tokenizers.decoders.ByteLevel()
  backend.add_special_tokens([*older_tokenizers._MARKERS.values()])
  return made_here(backend)


def learned():
  return made_here(
    folders.trained(
      tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
      older_tokenizers._MARKERS.values(),
    )
  )


def pretrained(make):
  """A tokenizer of another program, written again by this one."""
  with tempfile.TemporaryDirectory() as folder:
    make(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def as_before(fast, prompt, response) -> list[int]:
  """What the first format made of a response behind its prompt."""
  eos, encode = fast.eos_token, fast.backend_tokenizer.encode
  if isinstance(prompt, str):
    text = prompt + response
  else:
    turns = [*prompt, *([Turn("assistant", response)] if response else [])]
    if fast.chat_template is None:
      text = chat_templates.dialogue(turns)
      text += "" if response else "\n\nAssistant:"
    else:
      text = fast.apply_chat_template(
        [turn._asdict() for turn in turns],
        tokenize=False,
        add_generation_prompt=not response,
      )
    if response and text.rstrip().endswith(eos):
      text = text.rstrip()
  ids = encode(text, add_special_tokens=False).ids
  ids = ids[1:] if ids[:1] == [fast.bos_token_id] else ids
  ids = ids[:-1] if response and ids[-1:] == [fast.eos_token_id] else ids
  ends = [fast.eos_token_id] if response else []
  return [fast.bos_token_id, *ids, *ends]


KINDS = {
  "bytes": bytes_alone,
  "learned": learned,
  "neox": lambda: pretrained(folders.neox),
  "llama": lambda: pretrained(folders.llama),
}


class OlderTokenizersTest(parameterized.TestCase):
  def folder(self, fast, described=True):
    path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    fast.save_pretrained(str(path))
    if described:
      content = {"format_version": 1, "kind": "reward"}
      (path / "jaxalign.json").write_text(json.dumps(content))
    return str(path)

  def check(self, fast, tokenizer, prompt, response):
    found = token_store.encode(
      [Record(prompt, (response,))], tokenizer, max_length=300
    )
    self.assertEqual(found[0].tolist(), as_before(fast, prompt, response))

  @parameterized.product(kind=[*KINDS], template=TEMPLATES)
  def test_ids_are_those_of_the_first_format(self, kind, template):
    fast = KINDS[kind]()
    fast.chat_template = template
    tokenizer = tokenizer_files.load_tokenizer(self.folder(fast))
    for text in TEXTS:
      self.check(fast, tokenizer, text, " yes")
    if template is not None and kind in ("bytes", "learned"):
      return  # no template could write their markers
    self.check(fast, tokenizer, (USER,), "yes, it was")
    self.check(fast, tokenizer, (USER, REPLY, USER), "no <eos>")
    asked = [(USER,), (USER, REPLY, USER), "there was", ""]
    found = prompt_dataset.encode_prompts(
      [Record(prompt, ()) for prompt in asked],
      tokenizer,
      max_length=300,
      group_names=(),
    )
    for number, prompt in enumerate(asked):
      self.assertEqual(
        found.sequences[number].tolist(), as_before(fast, prompt, "")
      )

  def test_the_end_of_an_older_model_is_read(self):
    folder = self.folder(pretrained(folders.llama))
    tokenizer = tokenizer_files.load_tokenizer(folder)
    self.assertTrue(tokenizer.older)
    config = {"architectures": ["LlamaForSequenceClassification"]}
    config["pad_token_id"] = tokenizer.eos_id
    (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
    found = token_store.encode(
      [Record("a", (" b",))],
      tokenizer_files.load_tokenizer(folder),
      max_length=9,
    )
    self.assertEqual(found[0][-1], tokenizer.eos_id)

  @parameterized.parameters(bytes_alone, learned)
  def test_those_made_here_are_known_without_a_description(self, make):
    fast = make()
    tokenizer = tokenizer_files.load_tokenizer(
      self.folder(fast, described=False)
    )
    self.check(fast, tokenizer, "Q <eos>", " yes")
    if make is bytes_alone:  # the tokens of today, by name
      self.assertEqual(
        tokenizer.fast.get_vocab(),
        tokenizer_files.byte_tokenizer().fast.get_vocab(),
      )

  def test_another_template_is_read_as_before_too(self):
    fast = pretrained(folders.neox)
    tokenizer = tokenizer_files.load_tokenizer(self.folder(fast))
    fast.chat_template = folders.LLAMA
    self.check(fast, tokenizer.with_template(folders.LLAMA), (USER,), "yes")

  def test_what_is_written_today_is_not_older(self):
    folder = self.folder(learned())
    again = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    tokenizer_files.load_tokenizer(folder).save(again)
    content = {"format_version": 1, older_tokenizers.TEXTS: {}}
    (again / "jaxalign.json").write_text(json.dumps(content))
    found = tokenizer_files.load_tokenizer(str(again))
    self.assertFalse(found.older)
    self.check(learned(), found, "Q <eos>", " yes")
    self.check(learned(), found, (USER,), " yes")


if __name__ == "__main__":
  absltest.main()
