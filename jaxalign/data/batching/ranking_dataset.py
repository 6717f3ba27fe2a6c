"""Ranking dataset: K-way rankings, best-of-n choices and rated responses."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxalign.data.batching import numbering, sharded_tokens
from jaxalign.data.batching.token_store import Sequences
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class ResponseDataset:
  """N records of 1..K responses, best first, S responses in all.

  Attributes:
    sequences: one per response, in the order of the records.
    first: record i has sequences first[i] to first[i + 1] - 1, int64 [N + 1].
    num_ranked: leading responses whose order is known; the others are only
      known to be no better, int32 [N].
    labels: distribution over d classes, 0 where absent, float32 [S, d].
    label_votes: people behind each class, 0 where absent, int32 [S, d].
    label_where: whether a response has a distribution, bool [S].
    ratings: per attribute, 0 where absent, float32 [S, A].
    rating_where: whether a response has that rating, bool [S, A].
    attributes: names of the A attributes, sorted.
    source: index into `source_names`, int32 [N].
    group: index into `group_names`, -1 where absent, int32 [N].
    source_names: sorted.
    group_names: sorted.
  """

  sequences: Sequences
  first: np.ndarray
  num_ranked: np.ndarray
  labels: np.ndarray
  label_votes: np.ndarray
  label_where: np.ndarray
  ratings: np.ndarray
  rating_where: np.ndarray
  attributes: tuple[str, ...]
  source: np.ndarray
  group: np.ndarray
  source_names: tuple[str, ...]
  group_names: tuple[str, ...]

  def __len__(self) -> int:
    """Number of records."""
    return len(self.num_ranked)

  @property
  def max_responses(self) -> int:
    """K, the most responses that a record has."""
    return int(np.diff(self.first).max())

  @property
  def widths(self) -> np.ndarray:
    """Tokens of the longest response of each record, int64 [N]."""
    return np.maximum.reduceat(self.sequences.lengths, self.first[:-1])

  @property
  def counts(self) -> Mapping[str, int]:
    """What was cut, name -> records."""
    return self.sequences.counts

  def hold(self, rows: np.ndarray) -> None:
    """Makes sure that the ids of some records are there, int [...]."""
    wanted = np.zeros(len(self), np.bool_)
    wanted[rows] = True
    self.sequences.hold(np.flatnonzero(np.repeat(wanted, np.diff(self.first))))

  def collate(
    self, rows: np.ndarray, length: int, pad_id: int
  ) -> dict[str, np.ndarray]:
    """Some records as fresh arrays, K responses each.

    Args:
      rows: which records, int [B].
      length: T, at least the width of each.
      pad_id: id under the mask.

    Returns:
      tokens int32, mask bool [B, K, T]; prompt_lengths int32, response_where,
      label_where bool [B, K]; labels float32, label_votes int32 [B, K, d];
      ratings float32, rating_where bool [B, K, A]; num_ranked, source, group
      int32 [B]. Where `response_where` is False the first response stands
      again, so that no row is without a token to attend to.
    """
    numbers = self.first[rows][:, None] + np.arange(self.max_responses)
    where = numbers < self.first[rows + 1][:, None]
    numbers = np.where(where, numbers, self.first[rows][:, None])
    tokens, mask = self.sequences.padded(numbers, length, pad_id)
    return {
      "tokens": tokens,
      "mask": mask,
      "prompt_lengths": self.sequences.prompt_lengths[numbers],
      "response_where": where,
      "num_ranked": self.num_ranked[rows],
      "labels": self.labels[numbers],
      "label_votes": self.label_votes[numbers],
      "label_where": self.label_where[numbers] & where,
      "ratings": self.ratings[numbers],
      "rating_where": self.rating_where[numbers] & where[..., None],
      "source": self.source[rows],
      "group": self.group[rows],
    }


class _Columns:
  """What else is kept of each record, taken as the records pass by."""

  def __init__(
    self,
    source_names: Sequence[str] | None,
    group_names: Sequence[str] | None,
  ) -> None:
    self.num_responses: list[int] = []
    self.num_ranked: list[int] = []
    self.labels: list[tuple[float, ...] | None] = []
    self.votes: list[tuple[int, ...] | None] = []
    self.ratings: list[dict[str, float]] = []
    self.origins = numbering.Origins(source_names, group_names)

  def collected(self, records: Iterable[Record]) -> Iterator[Record]:
    """The same records; their columns stay here."""
    for record in records:
      number = len(record.responses)
      ranked = number if record.num_ranked is None else record.num_ranked
      self.num_responses.append(number)
      self.num_ranked.append(ranked)
      # What is given once belongs to the first response alone.
      self.labels += _filled(record.labels, number)
      self.votes += _filled(record.label_votes, number)
      ratings: list[dict[str, float]] = [{} for _ in range(number)]
      for name, values in (record.ratings or {}).items():
        for response, value in zip(ratings, values, strict=False):
          response[name] = value
      self.ratings += ratings
      self.origins.add(record)
      yield record


def encode_responses(
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  source_names: Sequence[str] | None = None,
  group_names: Sequence[str] | None = None,
  on_disk: bool = False,
  processes: sharded_tokens.Processes | None = None,
) -> ResponseDataset:
  """Tokenises records of any number of responses; see `token_store.encode`.

  Args:
    records: read once, or again and again by several processes.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a sequence, markers included, in tokens.
    source_names: fixes the numbering; default: the names that occur, sorted.
    group_names: the same for groups.
    on_disk: keep the ids in a temporary file.
    processes: who shares the work; ids come in with `ResponseDataset.hold`
      then. None tokenises everything here.

  Returns:
    The records, in their order.

  Raises:
    ValueError: no record; distributions over different numbers of classes; a
      name outside the fixed ones; a bound that leaves no room for a token.
  """
  columns = _Columns(source_names, group_names)
  found = sharded_tokens.encode_some(
    columns.collected(records),
    records,
    tokenizer,
    processes,
    max_length=max_length,
    on_disk=on_disk,
  )
  attributes = tuple(sorted({name for r in columns.ratings for name in r}))
  rated = [[r.get(a) for a in attributes] for r in columns.ratings]
  shape = (len(found), len(attributes))
  num_classes = {len(e) for e in (*columns.labels, *columns.votes) if e}
  if len(num_classes) > 1:
    raise ValueError(
      "labels must be distributions over the same classes in all records, got "
      f"{' and '.join(map(str, sorted(num_classes)))} classes"
    )
  absent = (0,) * next(iter(num_classes), 0)
  filled = lambda rows: [absent if row is None else row for row in rows]
  labels = np.array(filled(columns.labels), np.float32)
  votes = np.array(filled(columns.votes), np.int32)
  return ResponseDataset(
    sequences=found,
    first=np.concatenate([[0], np.cumsum(columns.num_responses)]),
    num_ranked=np.array(columns.num_ranked, np.int32),
    labels=labels,
    label_votes=votes,
    label_where=np.array([row is not None for row in columns.labels]),
    ratings=np.array(
      [[0.0 if v is None else v for v in r] for r in rated], np.float32
    ).reshape(shape),
    rating_where=np.array(
      [[v is not None for v in r] for r in rated], bool
    ).reshape(shape),
    attributes=attributes,
    **columns.origins.columns(),
  )


def _filled(
  given: Sequence[tuple[float, ...]] | None, number: int
) -> list[tuple[float, ...] | None]:
  """One entry per response; what is missing is None."""
  found = list(given or ())
  return found + [None] * (number - len(found))
