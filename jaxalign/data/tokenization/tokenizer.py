"""Tokenizer: text to token ids, as its own files say."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import tokenizers
import transformers

from jaxalign.data.records.chat import Text, Turn
from jaxalign.data.tokenization import (
  chat_templates,
  older_tokenizers,
  own_tokenizers,
  template_bounds,
)
from jaxalign.data.tokenization.turns import Rendered, for_template

CONFIG = "tokenizer_config.json"
_ANSWER = "\0"  # stands for an answer where a template puts one


class Markers(NamedTuple):
  """Ids that a tokenizer adds to a text by itself.

  Attributes:
    first: in front of it.
    last: behind it.
  """

  first: tuple[int, ...]
  last: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A transformers tokenizer, and what its folder says of sequences.

  A text becomes the ids that `fast(text)` gives, and a chat those that
  `fast.apply_chat_template(chat)` gives, so that a model is read here as it is
  everywhere else.

  Attributes:
    fast: the tokenizer as transformers knows it.
    pad_id: fills sequences; masked, so it may equal another id.
    bos_id: begins a text, or None; whether it does is `fast`'s to say.
    eos_id: ends a text, or None; likewise.
    end_ids: tokens that end an answer by its folder's config.json and
      generation_config.json, beside eos.
    unread_id: transformers reads a reward at the last token that is not
      config.json's padding, this one; None reads it at the last token.
    older: whether its model is of the format in which this library, not the
      tokenizer, added the markers.
  """

  fast: transformers.PreTrainedTokenizerFast
  pad_id: int
  bos_id: int | None
  eos_id: int | None
  end_ids: tuple[int, ...] = ()
  unread_id: int | None = None
  older: bool = False

  @property
  def vocab_size(self) -> int:
    """Rows that an embedding table needs."""
    return max(self.fast.get_vocab().values()) + 1

  @property
  def ends(self) -> tuple[int, ...]:
    """Tokens that end an answer, eos first, each once."""
    own = () if self.eos_id is None else (self.eos_id,)
    return tuple(dict.fromkeys((*own, *self.end_ids)))

  @functools.cached_property
  def markers(self) -> Markers:
    """What is added to a text by itself."""
    (found,) = self.encode_texts(["a"], [False])
    added = found.special_tokens_mask
    if all(added):  # a vocabulary without an a
      first = int(found.ids[:1] == [self.bos_id])
    else:
      first = added.index(0)
    last = sum(added) - first
    return Markers(
      tuple(found.ids[:first]), tuple(found.ids[len(found.ids) - last :])
    )

  @functools.cached_property
  def written_markers(self) -> tuple[str, str]:
    """`markers` as a chat template writes them, in front and behind."""
    first, last = (
      "".join(self.fast.convert_ids_to_tokens(list(ids)))
      for ids in self.markers
    )
    return first + chat_templates.space_behind(
      first, self.fast.backend_tokenizer
    ), last

  def check_embedded(self, rows: int, origin: str) -> None:
    """Checks that a model has a row for every token.

    Args:
      rows: of its token embedding.
      origin: what the model is called in the error.

    Raises:
      ValueError: it has none, for which read values of no meaning.
    """
    if rows >= self.vocab_size:
      return
    beyond = self.fast.convert_ids_to_tokens(self.vocab_size - 1)
    raise ValueError(
      f"the tokenizer has {self.vocab_size} tokens, {origin} embeds {rows}: "
      f"give it the tokenizer it was trained with, or one without "
      f"{beyond!r} = {self.vocab_size - 1}"
    )

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

  def encode_texts(
    self, texts: Sequence[str], marked: Sequence[bool]
  ) -> list[tokenizers.Encoding]:
    """Ids of many texts with their markers, with character positions.

    Args:
      texts: as `sequence_text` or `prompt_text` gives them.
      marked: whether a chat template has written the markers of each.

    Returns:
      One encoding per text.
    """
    encode = self.fast.backend_tokenizer.encode_batch
    plain = iter(
      encode(
        [text for text, done in zip(texts, marked, strict=True) if not done],
        add_special_tokens=True,
      )
    )
    chats = iter(
      self.encode_batch(
        [text for text, done in zip(texts, marked, strict=True) if done]
      )
    )
    return [next(chats if done else plain) for done in marked]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of `ids`, markers left out."""
    return self.fast.decode(
      list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )

  def decode_response(
    self, prompt: Text, prompt_ids: Sequence[int], ids: Sequence[int]
  ) -> str:
    """What a model has written behind a prompt.

    Prompt and response are decoded together and cut, for a token says whether
    a space is before it only where something is before it.

    Args:
      prompt: what was continued.
      prompt_ids: its ids.
      ids: those behind them.

    Returns:
      The text that follows the prompt's or, of a chat, the turn without the
      space that the template puts in front of one.
    """
    before = self.decode(prompt_ids)
    text = self.decode([*prompt_ids, *ids])
    text = text[len(os.path.commonprefix([before, text])) :]
    return text.removeprefix(self._gap(prompt))

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes tokenizer.json and its configuration into the folder `path`.

    Args:
      path: a folder that is there. Every program that reads it gives texts and
        chats the ids that they have here.
    """
    folder = pathlib.Path(path)
    names = self.fast.save_pretrained(os.fspath(folder))
    if self.fast.chat_template is None:
      template = folder / "chat_template.jinja"
      template.write_text(
        chat_templates.dialogue_template(*self.written_markers), "utf-8"
      )
      names = (*names, os.fspath(template))
    file = folder / CONFIG
    content = json.loads(file.read_text("utf-8"))
    # The class of transformers 4 and 5 that takes tokenizer.json as it is.
    content["tokenizer_class"] = "PreTrainedTokenizerFast"
    content["model_input_names"] = own_tokenizers.INPUTS
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(f"{text}\n", "utf-8")
    for name in names:
      if os.path.isfile(name):
        os.chmod(name, 0o644)

  def description(self) -> dict[str, Any]:
    """How texts become ids, for `jaxalign.json`.

    Returns:
      `begins_with` and `ends_with`, markers that a text gets; `chats`, by the
      tokenizer's "own template" or as a "dialogue"; and `differs`, which of
      these are not as with a tokenizer made here, whose texts begin with bos
      and end with eos and whose chats are dialogues.
    """
    tokens = self.fast.convert_ids_to_tokens
    first, last = ("".join(tokens(list(ids))) for ids in self.markers)
    own = self.fast.chat_template is not None
    differs = {
      "begins_with": self.markers.first != (self.bos_id,),
      "ends_with": self.markers.last != (self.eos_id,),
      "chats": own,
    }
    return {
      "begins_with": first,
      "ends_with": last,
      "chats": "own template" if own else "dialogue",
      "differs": [name for name, other in differs.items() if other],
    }

  def with_template(self, template: str) -> "Tokenizer":
    """The tokenizer with another chat template."""
    if self.older:
      template = older_tokenizers.marked_template(template, self.fast)
    self.fast.chat_template = template
    return self

  def prompt_text(self, prompt: Text) -> str:
    """A prompt as the text that a response continues.

    Args:
      prompt: text, returned unchanged, or chat turns, which go through the
        tokenizer's chat template; without one each turn becomes a paragraph
        `Human: ...`, `Assistant: ...` and the text ends in `Assistant:`.

    Returns:
      The text; that of a chat with its markers.
    """
    if isinstance(prompt, str):
      return prompt
    if self.fast.chat_template is None:
      first, _ = self.written_markers
      speaker = chat_templates.SPEAKERS["assistant"]
      return f"{first}{chat_templates.dialogue(prompt)}\n\n{speaker}:"
    return self._apply_template(prompt, True) if prompt else ""

  def sequence_text(self, prompt: Text, response: Text) -> tuple[str, int]:
    """Prompt and response as one text, and where the response starts in it.

    Args:
      prompt: text or chat turns.
      response: text, or chat turns that continue a prompt of chat turns, or
        `Rendered` text behind a prompt of text.

    Returns:
      The text, that of a chat with its markers, and the number of its
      characters that belong to the prompt.
    """
    start = self.prompt_text(prompt)
    if isinstance(prompt, str) and isinstance(response, Rendered):
      return self._marked_once(start, response)
    if not is_chat(prompt, response):
      return start + response, len(start)
    turns = _turns(prompt) + _turns(response, "assistant")
    if self.fast.chat_template is None:
      first, last = self.written_markers
      return first + chat_templates.dialogue(turns) + last, len(start)
    text = self._apply_template(turns, False)
    return text, len(os.path.commonprefix([start, text]))

  def _marked_once(self, prompt: str, response: str) -> tuple[str, int]:
    """Rendered text with the markers of a text, and where its response is."""
    first, last = (
      "".join(self.fast.convert_ids_to_tokens(list(ids)))
      for ids in self.markers
    )
    text = prompt + response
    before = after = ""
    if not text.startswith(first):
      before = self.written_markers[0]
    if not text.rstrip().endswith(last):
      after = last
    return before + text + after, len(before) + len(prompt)

  def _apply_template(self, turns: Sequence[Turn], generate: bool) -> str:
    return template_bounds.rendered(
      self.fast, for_template(turns), generate=generate
    )

  def _gap(self, prompt: Text) -> str:
    """Spaces between the text of a prompt and an answer to it."""
    if isinstance(prompt, str):
      return ""
    text, start = self.sequence_text(prompt, _ANSWER)
    gap = text[start : text.find(_ANSWER, start)]
    return gap if gap.isspace() else ""


def is_chat(prompt: Text, response: Text) -> bool:
  """Whether a template makes their text, which then writes the markers too."""
  plain = isinstance(response, str) and not isinstance(response, Rendered)
  return not (isinstance(prompt, str) and plain)


def _turns(text: Text, role: str = "user") -> tuple[Turn, ...]:
  return (Turn(role, text),) if isinstance(text, str) else text
