"""Prompts alone as token ids, padded on the left, for a policy to continue."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxalign.data.batches import ArraySpec
from jaxalign.data.numbering import Numbering
from jaxalign.data.record import Record
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.transcripts import Text


@dataclasses.dataclass(frozen=True, eq=False)
class PromptDataset:
  """N prompts, one per record.

  Attributes:
    texts: prompts as they were read, for whoever scores the responses.
    ids: the tokens of each, bos first.
    group: index into `group_names`, -1 for any other group or none, int32 [N].
    source: index into `source_names`, int32 [N].
    source_names: sorted.
    group_names: as they were asked for.
    counts: what was cut, name -> prompts.
  """

  texts: Sequence[Text]
  ids: Sequence[np.ndarray]
  group: np.ndarray
  source: np.ndarray
  source_names: tuple[str, ...]
  group_names: tuple[str, ...]
  counts: Mapping[str, int]

  def __len__(self) -> int:
    """Number of prompts."""
    return len(self.texts)

  @property
  def widths(self) -> np.ndarray:
    """Tokens of each prompt, int64 [N]."""
    return np.array([len(ids) for ids in self.ids])

  def hold(self, rows: np.ndarray) -> None:
    """All prompts are always there."""

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
      ids = self.ids[row]
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


def encode_prompts(
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  group_names: Sequence[str],
) -> PromptDataset:
  """Tokenises the prompt of every record as [bos] prompt.

  A prompt that is too long loses its beginning; bos stays.

  Args:
    records: read once; their responses are not looked at.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a prompt, bos included, in tokens.
    group_names: the groups that are told apart.

  Returns:
    The prompts, in the order of `records`.

  Raises:
    ValueError: no record, or a prompt without a token.
  """
  first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  room = max_length - len(first)
  if room < 1:
    raise ValueError(f"max_length must be > {len(first)}, got {max_length}")
  texts: list[Text] = []
  ids: list[np.ndarray] = []
  group = []
  source = Numbering("source")
  numbers = {name: k for k, name in enumerate(group_names)}
  cut = 0
  for record in records:
    tokens = tokenizer.encode(tokenizer.prompt_text(record.prompt))
    if tokens and tokens[0] == tokenizer.bos_id:  # written by a chat template
      tokens = tokens[1:]
    if not first and not tokens:
      raise ValueError(
        f"record {len(texts)}, id {record.id}: the prompt is empty and the "
        "tokenizer has no bos token to start from"
      )
    cut += len(tokens) > room
    texts.append(record.prompt)
    ids.append(np.array(first + tokens[-room:], np.int32))
    group.append(-1 if record.group is None else numbers.get(record.group, -1))
    source.add("unnamed" if record.source is None else record.source)
  if not texts:
    raise ValueError("records must hold one or more, got none")
  of_source, names = source.finish()
  return PromptDataset(
    texts=texts,
    ids=ids,
    group=np.array(group, np.int32),
    source=of_source,
    source_names=names,
    group_names=tuple(group_names),
    counts={"truncated_prompts": cut},
  )


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
