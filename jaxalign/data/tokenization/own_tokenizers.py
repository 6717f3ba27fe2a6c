"""Own tokenizers: one token per byte, or byte-level BPE."""

from collections.abc import Iterable

import tokenizers
import transformers

# U+FDD0 is a noncharacter, which no text holds: a marker written out in a text,
# such as `<eos>`, stays text, and a chat template can write the marker itself.
MARKERS = {
  "pad_token": "<\ufdd0pad>",
  "bos_token": "<\ufdd0bos>",
  "eos_token": "<\ufdd0eos>",
}
# What a model of transformers takes; by default token types come with them.
INPUTS = ["input_ids", "attention_mask"]


def bytes_alone() -> transformers.PreTrainedTokenizerFast:
  """One token per byte of UTF-8, then pad 256, bos 257 and eos 258."""
  names = _byte_names()
  vocab = {name: byte for byte, name in enumerate(names)}
  model = tokenizers.models.BPE(vocab=vocab, merges=[])
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  backend.decoder = tokenizers.decoders.ByteLevel()
  backend.add_special_tokens(list(MARKERS.values()))
  return marked(backend)


def learned(
  texts: Iterable[str], *, vocab_size: int
) -> transformers.PreTrainedTokenizerFast:
  """Byte-level BPE: pad 0, bos 1, eos 2, then bytes, then merges.

  Args:
    texts: to learn merges from.
    vocab_size: tokens at most, with 256 bytes and three markers among them.

  Returns:
    The tokenizer.

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
  return marked(backend)


def marked(
  backend: tokenizers.Tokenizer,
) -> transformers.PreTrainedTokenizerFast:
  """A backend that holds `MARKERS`, which begin and end a text from now on."""
  bos, eos = MARKERS["bos_token"], MARKERS["eos_token"]
  backend.post_processor = enclosing(backend, bos, eos)
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    **MARKERS,
    model_input_names=INPUTS,
    clean_up_tokenization_spaces=False,
  )


def enclosing(
  backend: tokenizers.Tokenizer, bos: str | None, eos: str | None
) -> tokenizers.processors.TemplateProcessing:
  """A post-processor that adds `bos` and `eos`, where they are not None."""
  first = [] if bos is None else [bos]
  last = [] if eos is None else [eos]
  return tokenizers.processors.TemplateProcessing(
    single=[*first, "$A", *last],
    pair=[*first, "$A", "$B", *last],
    special_tokens=[
      (name, backend.token_to_id(name)) for name in {*first, *last}
    ],
  )


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
