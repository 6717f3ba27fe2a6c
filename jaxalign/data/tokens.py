"""Preferences as token ids: flat arrays, cheap at a million pairs."""

import array
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tokenizers

from jaxalign.data.record import Record
from jaxalign.data.tokenizer import Tokenizer, byte_tokenizer, load_tokenizer

__all__ = [
  "PairDataset",
  "Tokenizer",
  "byte_tokenizer",
  "encode_pairs",
  "load_tokenizer",
]

CHUNK = 2048  # records tokenised at once, which bounds memory


@dataclasses.dataclass(frozen=True, eq=False)
class PairDataset:
  """N tokenised pairs; side 0 is the chosen response, side 1 the rejected.

  Attributes:
    values: ids of all sequences one after another, int32 [total].
    offsets: sequence 2 i + side is values[offsets[2 i + side] : offsets[2 i +
      side + 1]], int64 [2 N + 1].
    prompt_lengths: leading tokens that are marker or prompt, int32 [N, 2].
    chosen_prob: target probability that side 0 wins, float32 [N].
    margin: gap in reward units, 0 where absent, float32 [N].
    has_margin: whether the record has a margin, bool [N].
    strength: clarity of the preference, NaN where absent, float32 [N].
    source: index into `source_names`, int32 [N].
    group: index into `group_names`, -1 where absent, int32 [N].
    annotator: index into `annotator_names`, -1 where absent, int32 [N].
    source_names: sorted.
    group_names: sorted.
    annotator_names: sorted.
    ids: names of the pairs, None where absent.
    max_length: the bound the sequences were cut to, in tokens.
    counts: what was cut, name -> pairs.
  """

  values: np.ndarray
  offsets: np.ndarray
  prompt_lengths: np.ndarray
  chosen_prob: np.ndarray
  margin: np.ndarray
  has_margin: np.ndarray
  strength: np.ndarray
  source: np.ndarray
  group: np.ndarray
  annotator: np.ndarray
  source_names: tuple[str, ...]
  group_names: tuple[str, ...]
  annotator_names: tuple[str, ...]
  ids: tuple[str | None, ...]
  max_length: int
  counts: Mapping[str, int]

  def __len__(self) -> int:
    """Number of pairs."""
    return len(self.chosen_prob)

  @property
  def lengths(self) -> np.ndarray:
    """Tokens per sequence, int64 [N, 2]."""
    return np.diff(self.offsets).reshape(-1, 2)

  def sequence(self, pair: int, side: int) -> np.ndarray:
    """Ids of one sequence, int32 [tokens]."""
    at = 2 * pair + side
    return self.values[self.offsets[at] : self.offsets[at + 1]]


def encode_pairs(
  records: Sequence[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  source_names: Sequence[str] | None = None,
  group_names: Sequence[str] | None = None,
) -> PairDataset:
  """Tokenises pairs as [bos] prompt response [eos].

  Prompt and response are tokenised as one text and cut afterwards, so what is
  cut changes no token of what stays. A pair longer than `max_length` loses
  tokens from the left of its prompt (bos stays), the same number on both sides;
  a response that is too long even without its prompt loses its beginning, never
  its end.

  Args:
    records: pairs; rankings go through `record.expand_rankings` first.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a sequence, markers included, in tokens.
    source_names: fixes the numbering, e.g. to that of the training data;
      default: the names that occur, sorted.
    group_names: the same for groups.

  Returns:
    The pairs, in the order of `records`.

  Raises:
    ValueError: a ranking; no record; a name outside the fixed ones; a bound
      that leaves no room for a token.
  """
  markers = (tokenizer.bos_id is not None) + (tokenizer.eos_id is not None)
  if max_length <= markers:
    raise ValueError(f"max_length must be > {markers}, got {max_length}")
  if not records:
    raise ValueError("records must hold one pair or more, got none")
  values = array.array("i")
  lengths = np.zeros((len(records), 2), np.int64)
  prompt_lengths = np.zeros((len(records), 2), np.int32)
  counts = {"truncated_prompts": 0, "truncated_responses": 0}
  for start in range(0, len(records), CHUNK):
    chunk = records[start : start + CHUNK]
    for i, sides in enumerate(_tokenise(chunk, tokenizer, start), start):
      kept, cut_prompt, cut_response = _cut(sides, max_length - markers)
      counts["truncated_prompts"] += cut_prompt
      counts["truncated_responses"] += cut_response
      for side, (ids, prompt_length) in enumerate(kept):
        before = len(values)
        if tokenizer.bos_id is not None:
          values.append(tokenizer.bos_id)
        values.extend(ids)
        if tokenizer.eos_id is not None:
          values.append(tokenizer.eos_id)
        lengths[i, side] = len(values) - before
        prompt_lengths[i, side] = prompt_length + (tokenizer.bos_id is not None)
  return _dataset(
    records,
    np.frombuffer(values, np.int32).copy(),
    lengths,
    prompt_lengths,
    source_names,
    group_names,
    max_length,
    counts,
  )


def _tokenise(
  records: Sequence[Record], tokenizer: Tokenizer, start: int
) -> list[list[tuple[list[int], int]]]:
  """Per pair and side: ids without outer markers, and tokens of the prompt."""
  texts, cuts = [], []
  for i, record in enumerate(records, start):
    if len(record.responses) != 2:
      raise ValueError(
        f"record {i} has {len(record.responses)} responses, expected 2; "
        "record.expand_rankings makes pairs of a ranking"
      )
    for response in record.responses:
      try:
        text, cut = tokenizer.sequence_text(record.prompt, response)
      except Exception as error:  # a chat template may raise anything
        error.add_note(f"in record {i}, id {record.id}")
        raise
      texts.append(text)
      cuts.append(cut)
  sides = []
  for encoding, cut, text in zip(
    tokenizer.encode_batch(texts), cuts, texts, strict=True
  ):
    ids = encoding.ids
    first = _first_token(encoding, cut, len(text))
    if ids and ids[0] == tokenizer.bos_id:  # written by a chat template
      ids, first = ids[1:], max(first - 1, 0)
    if ids and ids[-1] == tokenizer.eos_id:
      ids = ids[:-1]
    sides.append((ids, min(first, len(ids))))
  return [sides[i : i + 2] for i in range(0, len(sides), 2)]


def _first_token(
  encoding: tokenizers.Encoding, cut: int, num_chars: int
) -> int:
  """The first token that holds a character at or behind `cut`."""
  for position in range(cut, num_chars):
    token = encoding.char_to_token(position)
    if token is not None:
      return token
  return len(encoding.ids)


def _cut(
  sides: list[tuple[list[int], int]], room: int
) -> tuple[list[tuple[list[int], int]], bool, bool]:
  """Both sides within `room` tokens, and whether prompt or response lost any.

  One cut for both: what a model compares must not differ in the prompt.
  """
  excess = max(len(ids) for ids, _ in sides) - room
  if excess <= 0:
    return sides, False, False
  kept, cut_response = [], False
  for ids, prompt_length in sides:
    drop = min(excess, prompt_length)
    if len(ids) - drop > room:
      drop = len(ids) - room
      cut_response = True
    kept.append((ids[drop:], max(prompt_length - drop, 0)))
  return kept, True, cut_response


def _dataset(
  records: Sequence[Record],
  values: np.ndarray,
  lengths: np.ndarray,
  prompt_lengths: np.ndarray,
  source_names: Sequence[str] | None,
  group_names: Sequence[str] | None,
  max_length: int,
  counts: Mapping[str, int],
) -> PairDataset:
  absent = lambda value, default: default if value is None else value
  column = lambda entries: np.array(entries, np.float32)
  source, sources = _numbered(
    "source", [absent(r.source, "unnamed") for r in records], source_names
  )
  group, groups = _numbered("group", [r.group for r in records], group_names)
  annotator, annotators = _numbered(
    "annotator", [r.annotator for r in records], None
  )
  return PairDataset(
    values=values,
    offsets=np.concatenate([[0], np.cumsum(lengths.reshape(-1))]),
    prompt_lengths=prompt_lengths,
    chosen_prob=column([r.target_prob for r in records]),
    margin=column([absent(r.margin, 0.0) for r in records]),
    has_margin=np.array([r.margin is not None for r in records]),
    strength=column([absent(r.strength, np.nan) for r in records]),
    source=source,
    group=group,
    annotator=annotator,
    source_names=sources,
    group_names=groups,
    annotator_names=annotators,
    ids=tuple(r.id for r in records),
    max_length=max_length,
    counts=counts,
  )


def _numbered(
  what: str, labels: Sequence[str | None], names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels as indices into `names`, by default the sorted labels."""
  if names is None:
    names = sorted({label for label in labels if label is not None})
  index: dict[str | None, int] = {name: i for i, name in enumerate(names)}
  index[None] = -1
  for label in labels:
    if label not in index:
      raise ValueError(
        f"{what} must be one of {', '.join(names)}, got {label!r}"
      )
  return np.array([index[label] for label in labels], np.int32), tuple(names)
