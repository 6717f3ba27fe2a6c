"""Text to token ids, offline: a byte tokenizer, or any Hugging Face folder."""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence

import tokenizers
import transformers

from jaxalign.data import template_work
from jaxalign.data.transcripts import Text, Turn

# Of the tokenizers made here.
MARKERS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
# Names under which a bare tokenizer.json may hold its markers.
BOS_NAMES = ("<s>", "<bos>", "<|begin_of_text|>", "[BOS]", "<|startoftext|>")
EOS_NAMES = (
  "</s>",
  "<eos>",
  "<|end_of_text|>",
  "[EOS]",
  "<|endoftext|>",
  "<|im_end|>",
)
# Conversations without a chat template become the dialogue form of HH-RLHF.
SPEAKERS = {
  "system": "System",
  "user": "Human",
  "assistant": "Assistant",
  "tool": "Tool",
}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A transformers tokenizer and the three ids that sequences are made with.

  Attributes:
    fast: the tokenizer as transformers knows it.
    pad_id: fills sequences; masked, so it may equal another id.
    bos_id: begins every sequence, or None.
    eos_id: ends every sequence, or None.
  """

  fast: transformers.PreTrainedTokenizerFast
  pad_id: int
  bos_id: int | None
  eos_id: int | None

  @property
  def vocab_size(self) -> int:
    """Rows that an embedding table needs."""
    return max(self.fast.get_vocab().values()) + 1

  def encode(self, text: str) -> list[int]:
    """Ids of `text` alone, without markers at either end."""
    return self.fast.backend_tokenizer.encode(
      text, add_special_tokens=False
    ).ids

  def encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
    """`encode` of many texts on all cores, with character positions."""
    return self.fast.backend_tokenizer.encode_batch(
      list(texts), add_special_tokens=False
    )

  def decode(self, ids: Sequence[int]) -> str:
    """The text of `ids`, markers left out."""
    return self.fast.decode(list(ids), skip_special_tokens=True)

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes tokenizer.json and its configuration into the folder `path`."""
    self.fast.save_pretrained(os.fspath(path))

  def prompt_text(self, prompt: Text) -> str:
    """A prompt as the text that a response continues.

    Args:
      prompt: text, returned unchanged, or chat turns, which go through the
        tokenizer's chat template; without one each turn becomes a paragraph
        `Human: ...`, `Assistant: ...` and the text ends in `Assistant:`.

    Returns:
      The text.
    """
    if isinstance(prompt, str):
      return prompt
    if self.fast.chat_template is None:
      return _dialogue(prompt) + f"\n\n{SPEAKERS['assistant']}:"
    return self._apply_template(prompt, True) if prompt else ""

  def sequence_text(self, prompt: Text, response: Text) -> tuple[str, int]:
    """Prompt and response as one text, and where the response starts in it.

    Args:
      prompt: text or chat turns.
      response: text, or chat turns that continue a prompt of chat turns.

    Returns:
      The text and the number of its characters that belong to the prompt.
    """
    start = self.prompt_text(prompt)
    if isinstance(prompt, str) and isinstance(response, str):
      return start + response, len(start)
    turns = _turns(prompt) + _turns(response, "assistant")
    if self.fast.chat_template is None:
      return _dialogue(turns), len(start)
    text = self._apply_template(turns, False)
    if self.fast.eos_token and text.rstrip().endswith(self.fast.eos_token):
      text = text.rstrip()
    return text, len(os.path.commonprefix([start, text]))

  def _apply_template(self, turns: Sequence[Turn], generate: bool) -> str:
    return template_work.rendered(
      self.fast, [turn._asdict() for turn in turns], generate=generate
    )


def _turns(text: Text, role: str = "user") -> tuple[Turn, ...]:
  return (Turn(role, text),) if isinstance(text, str) else text


def _dialogue(turns: Sequence[Turn]) -> str:
  return "".join(f"\n\n{SPEAKERS[t.role]}: {t.content}" for t in turns)


def byte_tokenizer() -> Tokenizer:
  """One token per byte of UTF-8, then pad 256, bos 257 and eos 258.

  Markers written out in a text stay text: `<eos>` in a prompt is five bytes.
  """
  names = _byte_names()
  vocab = {name: byte for byte, name in enumerate(names)}
  model = tokenizers.models.BPE(vocab=vocab, merges=[])
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  backend.decoder = tokenizers.decoders.ByteLevel()
  backend.add_special_tokens(list(MARKERS.values()))
  return _marked(backend)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
  """Byte-level BPE: no text is unknown, frequent words are one token.

  Markers written out in a text stay text, as with `byte_tokenizer`.

  Args:
    texts: to learn merges from.
    vocab_size: tokens at most, with 256 bytes and three markers among them.

  Returns:
    The tokenizer: pad 0, bos 1, eos 2, then bytes, then merges. There are fewer
    tokens than `vocab_size` where the texts have no more words to merge.

  Raises:
    ValueError: `vocab_size` has no room for bytes and markers.
  """
  least = 256 + len(MARKERS)
  if vocab_size < least:
    raise ValueError(
      f"vocab_size must be >= {least}, the bytes and markers, got {vocab_size}"
    )
  backend = tokenizers.Tokenizer(tokenizers.models.BPE())
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  backend.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=list(MARKERS.values()),
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(texts, trainer)
  return _marked(backend)


def _marked(backend: tokenizers.Tokenizer) -> Tokenizer:
  """A backend that holds `MARKERS`, with their ids."""
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    **MARKERS,
    split_special_tokens=True,
    clean_up_tokenization_spaces=False,
  )
  return _with_ids(fast)


def _byte_names() -> list[str]:
  """The printable stand-in of each byte in a ByteLevel vocabulary."""
  printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
  names, stand_in = [], 256
  for byte in range(256):
    if byte in printable:
      names.append(chr(byte))
    else:
      names.append(chr(stand_in))
      stand_in += 1
  return names


def load_tokenizer(spec: str) -> Tokenizer:
  """The byte tokenizer, or the one in a folder; never from the network.

  Args:
    spec: "byte"; or a folder with tokenizer.json, with or without
      tokenizer_config.json; or one with GPT-2's vocab.json and merges.txt.

  Returns:
    The tokenizer. Without a pad token it pads with a special token that has
    "pad" in its name, else with unk, else with eos.

  Raises:
    ValueError: no such folder, no tokenizer in it, or nothing to pad with.
  """
  if spec == "byte":
    return byte_tokenizer()
  if not os.path.isdir(spec):
    raise ValueError(
      f"tokenizer must be 'byte' or a folder, got {spec!r}, which is no folder"
    )
  has = lambda name: os.path.isfile(os.path.join(spec, name))
  if has("tokenizer.json"):
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(
      spec, local_files_only=True
    )
  elif has("vocab.json") and has("merges.txt"):
    fast = _gpt2_tokenizer(spec)
  else:
    raise ValueError(
      f"{spec} must hold tokenizer.json, or vocab.json and merges.txt"
    )
  _name_markers(fast, spec)
  return _with_ids(fast)


def _gpt2_tokenizer(folder: str) -> transformers.PreTrainedTokenizerFast:
  backend = tokenizers.ByteLevelBPETokenizer.from_file(
    os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend._tokenizer, eos_token="<|endoftext|>"
  )


def _name_markers(
  fast: transformers.PreTrainedTokenizerFast, folder: str
) -> None:
  """Finds bos, eos and unk of a bare tokenizer.json by id, then by name."""
  ids: dict[str, int | None] = {}
  config = os.path.join(folder, "config.json")
  declared = os.path.join(folder, "tokenizer_config.json")
  if os.path.isfile(declared):
    return
  if os.path.isfile(config):
    with open(config, encoding="utf-8") as file:
      ids = json.load(file)
  vocab = fast.get_vocab()
  for marker, names in (("bos", BOS_NAMES), ("eos", EOS_NAMES)):
    number = ids.get(f"{marker}_token_id")
    if isinstance(number, int):
      token = fast.convert_ids_to_tokens(number)
    else:
      token = next((name for name in names if name in vocab), None)
    if token is not None:
      fast.add_special_tokens({f"{marker}_token": token})
  if fast.unk_token is None and "<unk>" in vocab:
    fast.add_special_tokens({"unk_token": "<unk>"})


def _with_ids(fast: transformers.PreTrainedTokenizerFast) -> Tokenizer:
  if fast.pad_token is None:
    special = [
      token.content
      for token in fast.added_tokens_decoder.values()
      if token.special and "pad" in token.content.lower()
    ]
    candidates = (*special, fast.unk_token, fast.eos_token)
    pad = next((token for token in candidates if token is not None), None)
    if pad is None:
      raise ValueError("the tokenizer has no pad, unk or eos token to pad with")
    fast.pad_token = pad
  return Tokenizer(
    fast, fast.pad_token_id, fast.bos_token_id, fast.eos_token_id
  )
