"""Tokenizer loading from folders, offline: ours and Hugging Face layout."""

import os
from collections.abc import Iterable
from typing import Any

import tokenizers
import transformers

from jaxalign.data.tokenization import (
  older_tokenizers,
  own_tokenizers,
  tokenizer_checks,
)
from jaxalign.data.tokenization.tokenizer import CONFIG, Tokenizer

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

Fast = transformers.PreTrainedTokenizerFast


def byte_tokenizer() -> Tokenizer:
  """One token per byte of UTF-8, then pad 256, bos 257 and eos 258.

  Markers written out in a text stay text: `<eos>` in a prompt is five bytes.
  """
  return _with_ids(own_tokenizers.bytes_alone(), {}, ())


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
  fast = own_tokenizers.learned(texts, vocab_size=vocab_size)
  return _with_ids(fast, {}, ())


def load_tokenizer(spec: str) -> Tokenizer:
  """The byte tokenizer, or the one in a folder; never from the network.

  Args:
    spec: "byte"; or a folder with tokenizer.json, with or without
      tokenizer_config.json; or one with GPT-2's vocab.json and merges.txt.

  Returns:
    The tokenizer. Without a pad token it pads with a special token that has
    "pad" in its name, else with unk, else with eos.

  Raises:
    ValueError: no such folder, no tokenizer in it, a damaged one, or nothing
      to pad with.
  """
  if spec == "byte":
    return byte_tokenizer()
  if not os.path.isdir(spec):
    raise ValueError(
      f"tokenizer must be 'byte' or a folder, got {spec!r}, not a folder"
    )
  tokenizer_checks.check_files(spec)
  with tokenizer_checks.named(spec):
    found = _read(spec)
  tokenizer_checks.check_bytes(found.fast, spec)
  return found


def _read(spec: str) -> Tokenizer:
  """The tokenizer of a folder whose files hold objects."""
  fast = _open(spec)
  config = _content(spec, "config.json")
  _name_markers(fast, spec, config)
  # What a file says of cutting and filling is for programs that do not.
  fast.backend_tokenizer.no_truncation()
  fast.backend_tokenizer.no_padding()
  older = older_tokenizers.is_older(spec, fast)
  if older:
    fast = older_tokenizers.upgraded(fast)
  generation = _content(spec, "generation_config.json")
  ends = (*_ids(config, "eos"), *_ids(generation, "eos"))
  return _with_ids(fast, config, ends, older=older)


def _open(folder: str) -> Fast:
  """The tokenizer as it lies there, of whatever class."""
  has = lambda name: os.path.isfile(os.path.join(folder, name))
  if not has("tokenizer.json") and not (
    has("vocab.json") and has("merges.txt")
  ):
    raise ValueError(
      f"{folder} must hold tokenizer.json, or vocab.json and merges.txt"
    )
  ours = has(older_tokenizers.DESCRIPTION)
  if not ours and (has("config.json") or has(CONFIG)):
    # By its own class, which may add to what tokenizer.json says.
    fast = transformers.AutoTokenizer.from_pretrained(
      folder, local_files_only=True, trust_remote_code=False
    )
    if not fast.is_fast:
      raise ValueError(
        f"{folder} holds a {type(fast).__name__}, which has no tokenizer.json"
      )
    return fast
  if has("tokenizer.json"):
    return Fast.from_pretrained(folder, local_files_only=True)
  backend = tokenizers.ByteLevelBPETokenizer.from_file(
    os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")
  )
  return Fast(tokenizer_object=backend._tokenizer, eos_token="<|endoftext|>")


def _content(folder: str, name: str) -> dict[str, Any]:
  """A JSON file of a folder, empty where it is not there."""
  file = os.path.join(folder, name)
  return tokenizer_checks.json_object(file) if os.path.isfile(file) else {}


def _ids(content: dict[str, Any], marker: str) -> tuple[int, ...]:
  """What a config names as a marker: nothing, an id or several."""
  found = content.get(f"{marker}_token_id")
  if isinstance(found, list):
    return tuple(found)
  return () if found is None else (found,)


def _name_markers(fast: Fast, folder: str, config: dict[str, Any]) -> None:
  """Finds bos, eos and unk of a bare tokenizer.json by id, then by name."""
  if os.path.isfile(os.path.join(folder, CONFIG)):
    return
  vocab = fast.get_vocab()
  for marker, names in (("bos", BOS_NAMES), ("eos", EOS_NAMES)):
    numbers = [number for number in _ids(config, marker) if number >= 0]
    if numbers:
      token = fast.convert_ids_to_tokens(numbers[0])
    else:
      token = next((name for name in names if name in vocab), None)
    if token is not None:
      fast.add_special_tokens({f"{marker}_token": token})
  if fast.unk_token is None and "<unk>" in vocab:
    fast.add_special_tokens({"unk_token": "<unk>"})


def _with_ids(
  fast: Fast,
  config: dict[str, Any],
  ends: Iterable[int],
  *,
  older: bool = False,
) -> Tokenizer:
  """A tokenizer with its markers, and with what a model's config says."""
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
  size = max(fast.get_vocab().values()) + 1
  unread: int | None = fast.pad_token_id
  if _is_classifier(config):
    unread = None if older else next(iter(_ids(config, "pad")), None)
  return Tokenizer(
    fast,
    fast.pad_token_id,
    fast.bos_token_id,
    fast.eos_token_id,
    end_ids=tuple(n for n in dict.fromkeys(ends) if 0 <= n < size),
    unread_id=unread,
    older=older,
  )


def _is_classifier(config: dict[str, Any]) -> bool:
  """Whether a folder holds a reward model."""
  names = config.get("architectures") or ()
  return any("SequenceClassification" in name for name in names)
