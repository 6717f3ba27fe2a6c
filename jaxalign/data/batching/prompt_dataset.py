"""Prompt dataset: token ids padded on the left, for a policy to continue."""

import array
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.batching import sharded_tokens, token_store
from jaxalign.data.batching.loader import ArraySpec
from jaxalign.data.batching.numbering import Numbering
from jaxalign.data.records import refusals
from jaxalign.data.records.chat import Text
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import encoding
from jaxalign.data.tokenization.encoding import Tokenised
from jaxalign.data.tokenization.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class PromptDataset:
  """N prompts, one per record.

  Attributes:
    texts: prompts as they were read, for whoever scores the responses: of all
      rows, as each process that scores is shown the whole batch.
    sequences: the tokens of each, bos first.
    group: index into `group_names`, -1 for any other group or none, int32 [N].
    source: index into `source_names`, int32 [N].
    source_names: sorted.
    group_names: as they were asked for.
    columns: what else is known of all rows, for whoever scores the responses:
      name -> N values.
  """

  texts: Sequence[Text]
  sequences: token_store.Sequences
  group: np.ndarray
  source: np.ndarray
  source_names: tuple[str, ...]
  group_names: tuple[str, ...]
  columns: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    """Number of prompts."""
    return len(self.texts)

  @property
  def widths(self) -> np.ndarray:
    """Tokens of each prompt, int32 [N]."""
    return self.sequences.lengths

  @property
  def counts(self) -> Mapping[str, int]:
    """What was cut, name -> prompts."""
    cut = "truncated_prompts"
    return {cut: self.sequences.counts[cut]}

  def hold(self, rows: np.ndarray) -> None:
    """Makes sure that the tokens of some prompts are there, int [...]."""
    self.sequences.hold(rows)

  def collate(
    self, rows: np.ndarray, length: int, pad_id: int
  ) -> dict[str, np.ndarray]:
    """Some prompts as fresh arrays.

    Args:
      rows: which prompts, int [R].
      length: P, at least the width of each.
      pad_id: id under the mask.

    Returns:
      prompts [R, P] int32 and prompt_mask [R, P] bool, padded on the left;
      group [R] int32.
    """
    tokens = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), np.bool_)
    for i, row in enumerate(rows):
      ids = self.sequences[row]
      tokens[i, length - len(ids) :] = ids
      mask[i, length - len(ids) :] = True
    return {
      "prompts": tokens,
      "prompt_mask": mask,
      "group": self.group[rows],
    }


def prompt_shapes(number: int, length: int) -> dict[str, ArraySpec]:
  """Shapes and dtypes of a batch of `number` prompts of `length` tokens."""
  rows = lambda dtype: ArraySpec((number,), np.dtype(dtype))
  wide = lambda dtype: ArraySpec((number, length), np.dtype(dtype))
  return {
    "prompts": wide(np.int32),
    "prompt_mask": wide(np.bool_),
    "group": rows(np.int32),
    "where": rows(np.bool_),
    "row": rows(np.int32),
    "index": rows(np.int32),
  }


@dataclasses.dataclass(frozen=True)
class _Asked:
  """Prompts that were read, each as a record of one sequence."""

  texts: Sequence[Text]

  def __iter__(self) -> Iterator[Record]:
    for text in self.texts:
      yield Record(prompt=text, responses=("",))


def encode_prompts(
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  group_names: Sequence[str],
  processes: sharded_tokens.Processes | None = None,
) -> PromptDataset:
  """Tokenises the prompt of every record for an answer to follow.

  A prompt has the markers in front that the tokenizer or its chat template
  gives it, and none behind. One that is too long loses its beginning; bos
  stays.

  Args:
    records: read once; their responses are not looked at.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a prompt, bos included, in tokens.
    group_names: the groups that have numbers of their own.
    processes: who shares the work; ids come in with `PromptDataset.hold` then.
      None tokenises everything here.

  Returns:
    The prompts, in the order of `records`.

  Raises:
    ValueError: no record, or a prompt without a token.
  """
  markers = len(tokenizer.markers.first)
  if max_length <= markers:
    raise ValueError(f"max_length must be > {markers}, got {max_length}")
  texts: list[Text] = []
  group = array.array("i")
  source = Numbering("source")
  numbers = {name: k for k, name in enumerate(group_names)}

  def passing() -> Iterator[Record]:
    for record in records:
      texts.append(record.prompt)
      group.append(numbers.get(record.group or "", -1))
      source.add("unnamed" if record.source is None else record.source)
      yield Record(
        record.prompt, responses=("",), id=record.id, where=record.where
      )

  found = sharded_tokens.encode_some(
    passing(),
    _Asked(texts),
    tokenizer,
    processes,
    max_length=max_length,
    tokenise=_tokenised,
  )
  of_source, names = source.finish()
  return PromptDataset(
    texts=texts,
    sequences=found,
    group=np.frombuffer(group, np.int32).copy(),
    source=of_source,
    source_names=names,
    group_names=tuple(group_names),
  )


def _tokenised(
  records: Sequence[Record], tokenizer: Tokenizer, max_length: int, start: int
) -> Iterator[Tokenised]:
  """The prompts of some records; see `token_store.Tokenise`."""
  texts = []
  chats = [not isinstance(record.prompt, str) for record in records]
  places = [record.place(i) for i, record in enumerate(records, start)]
  for record, place in zip(records, places, strict=True):
    with refusals.located(place):
      text = tokenizer.prompt_text(record.prompt)
      ((text, _),) = encoding.clip([(text, len(text))], tokenizer, max_length)
    texts.append(text)
  with refusals.located_among(texts, places, tokenizer):
    encodings = tokenizer.encode_texts(texts, chats)
  for place, chat, encoded in zip(places, chats, encodings, strict=True):
    ids = encoded.ids
    first, last = map(len, tokenizer.markers)
    if chat:  # whose markers are part of the text
      first, last = int(ids[:1] == [tokenizer.bos_id]), 0
    ids = ids[: len(ids) - last]
    if not ids and tokenizer.bos_id is None:
      raise ValueError(
        f"{place}: the prompt is empty and the "
        "tokenizer has no bos token to start from"
      )
    ids = ids if ids else [tokenizer.bos_id]
    room = max_length - first
    cut = len(ids) - first > room
    kept = [*ids[:first], *ids[len(ids) - room :]] if cut else ids
    yield Tokenised([kept], [len(kept)], cut, False)


def padded_prompts(
  texts: Sequence[Text], tokenizer: Tokenizer, *, length: int, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
  """Some prompts as a batch of one shape, encoded as `encode_prompts` does.

  Args:
    texts: one prompt or more.
    tokenizer: from `load_tokenizer`.
    length: P, tokens of a row, bos included.
    num_rows: R, at least as many as prompts; the last one fills the rest.

  Returns:
    Tokens int32 [R, P] and mask bool [R, P], padded on the left.

  Raises:
    ValueError: no prompt, or one without a token.
  """
  dataset = encode_prompts(
    (Record(prompt=text, responses=()) for text in texts),
    tokenizer,
    max_length=length,
    group_names=(),
  )
  rows = np.minimum(np.arange(num_rows), len(dataset) - 1)
  found = dataset.collate(rows, length, tokenizer.pad_id)
  return found["prompts"], found["prompt_mask"]
