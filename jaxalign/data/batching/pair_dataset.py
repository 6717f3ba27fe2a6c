"""Pair dataset: preferences as flat arrays of token ids, cheap at a million."""

import array
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxalign.data.batching import numbering, sharded_tokens
from jaxalign.data.batching.token_store import Sequences
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.encoding import Tokenise
from jaxalign.data.tokenization.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class PairDataset:
  """N tokenised pairs; side 0 is the chosen response, side 1 the rejected.

  Attributes:
    sequences: sequence 2 i + side is that side of pair i.
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
    labels: shares of d labels per side, float32 [N, 2, d]; None without a use
      for labels, as after `encode_pairs`.
    labelled: which sides have labels, bool [N, 2]; None with `labels`.
    ref_log_probs: log-probability of each side under a reference policy,
      float32 [N, 2]; None where no policy is trained.
    views: other texts of the responses, numbered as `sequences`; None without.
  """

  sequences: Sequences
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
  labels: np.ndarray | None = None
  labelled: np.ndarray | None = None
  ref_log_probs: np.ndarray | None = None
  views: Sequences | None = None

  def __len__(self) -> int:
    """Number of pairs."""
    return len(self.chosen_prob)

  @property
  def lengths(self) -> np.ndarray:
    """Tokens per sequence, int64 [N, 2]."""
    return self.sequences.lengths.reshape(-1, 2)

  @property
  def widths(self) -> np.ndarray:
    """Tokens of the longest side, in either view, int64 [N]."""
    widths = self.lengths.max(axis=1)
    if self.views is None:
      return widths
    return np.maximum(widths, self.views.lengths.reshape(-1, 2).max(axis=1))

  @property
  def prompt_lengths(self) -> np.ndarray:
    """Leading tokens that are marker or prompt, int32 [N, 2]."""
    return self.sequences.prompt_lengths.reshape(-1, 2)

  @functools.cached_property
  def texts(self) -> np.ndarray:
    """Number of each side's text, int64 [N, 2]; equal ids have one number."""
    self.hold(np.arange(len(self)))
    known: dict[bytes, int] = {}
    found = [
      known.setdefault(self.sequences[number].tobytes(), len(known))
      for number in range(2 * len(self))
    ]
    return np.array(found, np.int64).reshape(-1, 2)

  @property
  def counts(self) -> Mapping[str, int]:
    """What was cut, name -> pairs."""
    return self.sequences.counts

  def first(self, number: int) -> "PairDataset":
    """The first pairs alone; names keep their numbers."""
    rows = {
      field.name: value[:number]
      for field in dataclasses.fields(self)
      if isinstance(value := getattr(self, field.name), np.ndarray)
    }
    kept = {"sequences": self.sequences.first(2 * number)}
    if self.views is not None:
      kept["views"] = self.views.first(2 * number)
    return dataclasses.replace(self, **kept, **rows)

  def hold(self, rows: np.ndarray) -> None:
    """Makes sure that the ids of some pairs are there, int [...]."""
    for held in (self.sequences, self.views):
      if held is not None:
        held.hold(2 * rows[..., None] + np.arange(2))

  def sequence(self, pair: int, side: int) -> np.ndarray:
    """Ids of one sequence, int32 [tokens]."""
    return self.sequences[2 * pair + side]

  def collate(
    self, rows: np.ndarray, length: int, pad_id: int
  ) -> dict[str, np.ndarray]:
    """Some pairs as fresh arrays.

    Args:
      rows: which pairs, int [B].
      length: T, at least the width of each.
      pad_id: id under the mask.

    Returns:
      tokens [B, 2, T] int32, mask [B, 2, T] bool and prompt_lengths [B, 2]
      int32, the tokens before a response, chosen response first;
      chosen_prob, margin [B] float32; source, group, annotator [B] int32;
      labels [B, 2, d], labelled [B, 2] where the dataset has them; and where it
      has `ref_log_probs`, those [B, 2] and response [B, 2, T] bool, True on the
      tokens of responses; and where it has `views`, view_tokens, view_mask and
      view_prompt_lengths of the other texts.
    """
    sides = 2 * rows[:, None] + np.arange(2)
    tokens, mask = self.sequences.padded(sides, length, pad_id)
    further = {}
    if self.labels is not None and self.labelled is not None:
      further = {"labels": self.labels[rows], "labelled": self.labelled[rows]}
    if self.ref_log_probs is not None:
      prompt = self.prompt_lengths[rows][..., None]
      further["response"] = mask & (np.arange(length) >= prompt)
      further["ref_log_probs"] = self.ref_log_probs[rows]
    if self.views is not None:
      other, other_mask = self.views.padded(sides, length, pad_id)
      further |= {
        "view_tokens": other,
        "view_mask": other_mask,
        "view_prompt_lengths": self.views.prompt_lengths[sides],
      }
    return further | {
      "tokens": tokens,
      "mask": mask,
      "prompt_lengths": self.prompt_lengths[rows],
      "chosen_prob": self.chosen_prob[rows],
      "margin": self.margin[rows],
      "source": self.source[rows],
      "group": self.group[rows],
      "annotator": self.annotator[rows],
    }


class _Columns:
  """What else is kept of each pair, taken as the records pass by."""

  def __init__(
    self,
    source_names: Sequence[str] | None,
    group_names: Sequence[str] | None,
  ) -> None:
    self.chosen_prob = array.array("f")
    self.margin = array.array("f")
    self.has_margin = array.array("b")
    self.strength = array.array("f")
    self.origins = numbering.Origins(source_names, group_names)
    self.annotator = numbering.Numbering("annotator")

  def collected(self, records: Iterable[Record]) -> Iterator[Record]:
    """The same records; their columns stay here."""
    absent = lambda value, default: default if value is None else value
    for i, record in enumerate(records):
      if len(record.responses) != 2:
        raise ValueError(
          f"{record.place(i)}: {len(record.responses)} responses, expected 2; "
          "record.expand_rankings makes pairs of a ranking, a single rated "
          "response makes none"
        )
      self.chosen_prob.append(record.target_prob)
      self.margin.append(absent(record.margin, 0.0))
      self.has_margin.append(record.margin is not None)
      self.strength.append(absent(record.strength, np.nan))
      self.origins.add(record)
      self.annotator.add(record.annotator)
      yield record


def encode_pairs(
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  source_names: Sequence[str] | None = None,
  group_names: Sequence[str] | None = None,
  on_disk: bool = False,
  processes: sharded_tokens.Processes | None = None,
  tokenise: Tokenise | None = None,
) -> PairDataset:
  """Tokenises pairs; `token_store.encode` says how.

  Args:
    records: pairs, read once, or again and again by several processes; rankings
      go through `record.expand_rankings` first.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a sequence, markers included, in tokens.
    source_names: fixes the numbering, e.g. to that of the training data;
      default: the names that occur, sorted.
    group_names: the same for groups.
    on_disk: keep the ids in a temporary file; about 60 bytes per pair stay in
      memory.
    processes: who shares the work; ids come in with `PairDataset.hold` then.
      None tokenises everything here.
    tokenise: as of `token_store.encode`.

  Returns:
    The pairs, in the order of `records`.

  Raises:
    ValueError: a ranking; no record; a name outside the fixed ones; a bound
      that leaves no room for a token.
  """
  columns = _Columns(source_names, group_names)
  found = sharded_tokens.encode_some(
    columns.collected(records),
    records,
    tokenizer,
    processes,
    max_length=max_length,
    on_disk=on_disk,
    tokenise=tokenise,
  )
  floats = lambda values: np.frombuffer(values, np.float32).copy()
  annotator, annotators = columns.annotator.finish()
  return PairDataset(
    sequences=found,
    chosen_prob=floats(columns.chosen_prob),
    margin=floats(columns.margin),
    has_margin=np.frombuffer(columns.has_margin, np.bool_).copy(),
    strength=floats(columns.strength),
    annotator=annotator,
    annotator_names=annotators,
    **columns.origins.columns(),
  )
