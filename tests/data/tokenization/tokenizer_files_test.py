"""A text has the ids that transformers gives it, in folders of anyone's."""

import json
import pathlib
import tempfile

import tokenizers
import transformers
from absl.testing import absltest, parameterized
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from jaxalign.data.batching import (
  prompt_dataset,
  sft_dataset,
  token_store,
)
from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files

CHATML = (
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
  "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
  "{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}"
  "{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TEXTS = ["there was a little girl.", "Human: is it fair? yes", "  ☕ é </s> a"]
CHAT = (Turn("user", "is it fair?"), Turn("assistant", "yes, it was."))
MODELS = {
  "gpt_neox": "GPTNeoXForSequenceClassification",
  "llama": "LlamaForSequenceClassification",
  "opt": "OPTForSequenceClassification",
}


def trained(pre_tokenizer, specials, **options):
  """A small BPE of `TEXTS`."""
  backend = tokenizers.Tokenizer(models.BPE(**options))
  backend.pre_tokenizer = pre_tokenizer
  trainer = trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=list(specials),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(TEXTS * 3, trainer)
  return backend


def write(folder, backend, model_type, generation=None, **declared):
  """A folder as others leave it; pads with the second token."""
  folder = pathlib.Path(folder)
  backend.save(str(folder / "tokenizer.json"))
  config = {
    "model_type": model_type,
    "architectures": [MODELS[model_type]],
    "pad_token_id": 1,
  }
  (folder / "config.json").write_text(json.dumps(config))
  (folder / "tokenizer_config.json").write_text(json.dumps(declared))
  return folder


def neox(folder, **declared):
  """One marker, which no text gets, and turns that end in a line break."""
  specials = ("<|endoftext|>", "<|padding|>", "<|im_start|>", "<|im_end|>")
  backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), specials)
  backend.post_processor = processors.ByteLevel()
  backend.decoder = decoders.ByteLevel()
  roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), specials[0])
  return write(
    folder,
    backend,
    "gpt_neox",
    tokenizer_class="GPTNeoXTokenizer",
    **{**roles, "chat_template": CHATML, **declared},
  )


def llama(folder, last=(), **declared):
  """A space before a text, bos in front of it, and a template that has both."""
  backend = trained(
    pre_tokenizers.Metaspace(prepend_scheme="first"),
    ("<unk>", "<pad>", "<s>", "</s>"),
    unk_token="<unk>",
  )
  backend.post_processor = processors.TemplateProcessing(
    single=["<s>", "$A", *last],
    pair=["<s>", "$A", *last, "<s>", "$B", *last],
    special_tokens=[("<s>", 2), ("</s>", 3)],
  )
  backend.decoder = decoders.Metaspace(prepend_scheme="first")
  return write(
    folder,
    backend,
    "llama",
    tokenizer_class="PreTrainedTokenizerFast",
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    **declared,
  )


def cut_and_filled(folder):
  """As of a classifier that was trained on eight tokens."""
  neox(folder)
  file = pathlib.Path(folder) / "tokenizer.json"
  backend = tokenizers.Tokenizer.from_file(str(file))
  backend.enable_truncation(3)
  backend.enable_padding(length=8, pad_id=1, pad_token="<|padding|>")
  backend.save(str(file))
  return pathlib.Path(folder)


def with_eos(folder):
  """Both ends of a text have their marker."""
  return llama(folder, last=["</s>"])


def opt(folder):
  """vocab.json and merges.txt; bos in front by the class alone."""
  specials = ("<s>", "<pad>", "</s>", "<unk>")
  backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), specials)
  folder = write(
    folder,
    backend,
    "opt",
    tokenizer_class="GPT2Tokenizer",
    add_bos_token=True,
    bos_token="</s>",
    eos_token="</s>",
    unk_token="</s>",
    pad_token="<pad>",
  )
  (folder / "tokenizer.json").unlink()
  backend.model.save(str(folder))
  return folder


FOLDERS = (neox, llama, cut_and_filled, with_eos, opt)


class TokenizerFilesTest(parameterized.TestCase):
  def open(self, make, **declared):
    """Our tokenizer of a new folder, and what transformers makes of it."""
    folder = self.enter_context(tempfile.TemporaryDirectory())
    make(folder, **declared)
    theirs = transformers.AutoTokenizer.from_pretrained(
      folder, local_files_only=True
    )
    return tokenizer_files.load_tokenizer(folder), theirs

  def ids(self, tokenizer, prompt, response):
    found = token_store.encode(
      [Record(prompt, (response,))], tokenizer, max_length=200
    )
    return found[0].tolist()

  @parameterized.parameters(*FOLDERS)
  def test_a_text_has_the_ids_of_the_plain_tokenizer(self, make):
    ours, theirs = self.open(make)
    for text in TEXTS:
      expected = theirs(text)["input_ids"]
      self.assertEqual(self.ids(ours, text[:5], text[5:]), expected)

  @parameterized.parameters((neox, CHATML), (llama, LLAMA), (opt, LLAMA))
  def test_a_chat_has_the_ids_of_its_template(self, make, template):
    ours, theirs = self.open(make)
    ours, theirs.chat_template = ours.with_template(template), template
    turns = [turn._asdict() for turn in CHAT]
    apply = lambda turns, **options: theirs.apply_chat_template(
      turns, return_dict=False, **options
    )
    self.assertEqual(self.ids(ours, CHAT[:1], CHAT[1].content), apply(turns))
    found = prompt_dataset.encode_prompts(
      [Record(CHAT[:1], ())], ours, max_length=99, group_names=()
    )
    self.assertEqual(
      found.sequences[0].tolist(), apply(turns[:1], add_generation_prompt=True)
    )

  @parameterized.parameters(*FOLDERS)
  def test_a_prompt_has_no_marker_behind_it(self, make):
    ours, theirs = self.open(make)
    found = prompt_dataset.encode_prompts(
      [Record("there was", ())], ours, max_length=99, group_names=()
    )
    expected = theirs("there was")["input_ids"]
    if expected[-1] == ours.eos_id:
      expected = expected[:-1]
    self.assertEqual(found.sequences[0].tolist(), expected)

  @parameterized.parameters(*FOLDERS)
  def test_an_answer_that_is_learned_ends_once(self, make):
    ours, theirs = self.open(make)
    data = sft_dataset.pack_records(
      [Record("there was", (" a girl",))], ours, length=99
    )
    ids = theirs("there was a girl")["input_ids"]
    ends = [] if ids[-1] == ours.eos_id else [ours.eos_id]
    self.assertEqual(data.sequences[0].tolist(), [*ids, *ends])

  def test_markers_are_those_of_the_folder(self):
    found = {make: self.open(make)[0] for make in FOLDERS}
    self.assertEqual(
      {make: tokenizer.markers for make, tokenizer in found.items()},
      {
        neox: ((), ()),
        llama: ((2,), ()),
        cut_and_filled: ((), ()),
        with_eos: ((2,), (3,)),
        opt: ((2,), ()),
      },
    )

  def test_a_turn_that_its_template_ends_gets_no_other_end(self):
    ours, theirs = self.open(neox, eos_token="<|im_end|>")
    data = sft_dataset.pack_records(
      [Record(CHAT[:1], ("yes",))], ours, length=99
    )
    self.assertEqual(data.sequences[0].tolist().count(ours.eos_id), 2)
    self.assertEqual(theirs.decode(data.sequences[0][-1:]), "\n")

  @parameterized.parameters(*FOLDERS)
  def test_what_is_saved_reads_the_same(self, make):
    ours, _ = self.open(make)
    folder = self.enter_context(tempfile.TemporaryDirectory())
    ours.save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
      expected = theirs(text)["input_ids"]
      self.assertEqual(self.ids(ours, text[:5], text[5:]), expected)
    self.assertEqual(
      self.ids(ours, CHAT[:1], CHAT[1].content),
      theirs.apply_chat_template(
        [turn._asdict() for turn in CHAT], return_dict=False
      ),
    )

  def test_a_dialogue_in_turns_reads_as_the_dialogue_in_text(self):
    for make in (llama, with_eos, opt):
      ours, _ = self.open(make)
      text = "\n\nHuman: is it fair?\n\nAssistant: yes, it was."
      self.assertEqual(
        self.ids(ours, CHAT[:1], CHAT[1].content), self.ids(ours, text, "")
      )

  @parameterized.parameters(neox, llama)
  def test_an_answer_is_the_text_that_follows_the_prompt(self, make):
    ours, _ = self.open(make)
    ids = self.ids(ours, "there was", " a little girl.")
    for cut in range(len(ours.markers.first), len(ids)):
      before = ours.decode(ids[:cut])
      answer = ours.decode_response(before, ids[:cut], ids[cut:])
      self.assertEqual(before + answer, "there was a little girl.")
    self.assertEqual(ours.decode_response("", ids[:cut], []), "")

  def test_a_character_may_begin_in_the_prompt(self):
    ours = tokenizer_files.byte_tokenizer()
    self.assertEqual(ours.decode_response("?", [257, 97, 195], [169, 98]), "éb")

  @parameterized.parameters((neox, CHATML), (llama, LLAMA), (llama, None))
  def test_a_turn_comes_back_without_the_space_of_the_template(
    self, make, template
  ):
    ours, _ = self.open(make, chat_template=template)
    prompt, reply = CHAT[:1], CHAT[1].content
    ids = self.ids(ours, prompt, reply)
    asked = prompt_dataset.encode_prompts(
      [Record(prompt, ())], ours, max_length=99, group_names=()
    ).sequences[0]
    end = ids.index(ours.ends[0]) if ours.ends[0] in ids else len(ids)
    answer = ours.decode_response(prompt, asked, ids[len(asked) : end])
    self.assertEqual(answer.rstrip(), reply)

  def test_ends_are_those_of_all_files(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    file = neox(folder) / "config.json"
    config = json.loads(file.read_text()) | {"eos_token_id": [3, 99_999]}
    file.write_text(json.dumps(config))
    self.assertEqual(tokenizer_files.load_tokenizer(str(folder)).ends, (0, 3))
    generation = json.dumps({"eos_token_id": [2, 3]})
    (folder / "generation_config.json").write_text(generation)
    self.assertEqual(
      tokenizer_files.load_tokenizer(str(folder)).ends, (0, 3, 2)
    )

  def test_what_differs_from_those_made_here_is_told(self):
    differs = lambda make: self.open(make)[0].description()["differs"]
    self.assertEqual(differs(neox), ["begins_with", "ends_with", "chats"])
    self.assertEqual(differs(llama), ["ends_with"])
    self.assertEqual(differs(with_eos), [])
    self.assertEqual(
      self.open(with_eos)[0].description(),
      {
        "begins_with": "<s>",
        "ends_with": "</s>",
        "chats": "dialogue",
        "differs": [],
      },
    )

  def test_padding_is_read_where_config_json_does_not_name_it(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    file = llama(folder, pad_token="</s>") / "config.json"
    self.assertEqual(tokenizer_files.load_tokenizer(folder).unread_id, 1)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"pad_token_id": None}))
    self.assertIsNone(tokenizer_files.load_tokenizer(folder).unread_id)
    content["architectures"] = ["LlamaForCausalLM"]
    file.write_text(json.dumps(content))
    self.assertEqual(tokenizer_files.load_tokenizer(folder).unread_id, 3)


if __name__ == "__main__":
  absltest.main()
