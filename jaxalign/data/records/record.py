"""Preference record: the one form that every file is read into."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jaxalign.data.records import chat, column_hints, columns
from jaxalign.data.records.chat import Text, Turn
from jaxalign.data.tokenization import turns


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
  """A prompt and its responses, the preferred one first. None means absent.

  Two responses are a pair, more a ranking; a single one is a demonstration, or
  a response that people rated by itself. None is a prompt to be answered.

  Attributes:
    prompt: text, or the chat turns before the response.
    responses: best first; a response of one assistant turn is its text, one of
      several turns (a multi-turn continuation) stays turns.
    num_ranked: leading responses whose order is known, the others being no
      better than these in no known order: 1 for a best-of-n choice; absent for
      a full ranking.
    chosen_prob: probability in [0, 1] that `responses[0]` is preferred to
      `responses[1]`.
    votes_chosen: people who preferred `responses[0]`.
    votes_rejected: people who preferred `responses[1]`.
    votes_tie: people who saw no difference.
    n_votes: people asked; at least the sum of the three counts.
    tie: whether the annotator saw no difference.
    margin: gap the pair should clear, in reward units.
    strength: how clear the preference is, on any scale; a vote share, or an
      ensemble's mean gap. May be negative for a doubtful label.
    strength_std: spread of `strength` over an ensemble, >= 0.
    judge_prob: probability in [0, 1] that `responses[0]` is preferred to
      `responses[1]` by a second judge: a model, an expert, or the truth where
      it is known. Never learned from; evaluation compares it.
    source: the data set or collection the preference comes from.
    annotator: who was asked.
    group: the annotator's group, or the kind of prompt.
    position: place at which the annotator saw `responses[0]`, 0 for first.
    ratings: per attribute one number per response, or a single number that
      rates the first response alone.
    labels: distributions over d classes, one per response, or a single one for
      the first response alone.
    label_votes: people who chose each of the d classes, in the same form; they
      make `labels` where those are absent.
    label_prior: distributions expected before any vote, in the same form.
    id: name of the pair.
    where: FILE:LINE that it was read from, for errors; no column, and equal
      records may come from anywhere.
    extra: columns beyond these that its reader was asked to keep, by name.
  """

  prompt: Text
  responses: tuple[Text, ...]
  num_ranked: int | None = None
  chosen_prob: float | None = None
  votes_chosen: int | None = None
  votes_rejected: int | None = None
  votes_tie: int | None = None
  n_votes: int | None = None
  tie: bool | None = None
  margin: float | None = None
  strength: float | None = None
  strength_std: float | None = None
  judge_prob: float | None = None
  source: str | None = None
  annotator: str | None = None
  group: str | None = None
  position: int | None = None
  ratings: Mapping[str, tuple[float, ...]] | None = None
  labels: tuple[tuple[float, ...], ...] | None = None
  label_votes: tuple[tuple[int, ...], ...] | None = None
  label_prior: tuple[tuple[float, ...], ...] | None = None
  id: str | None = None
  where: str | None = dataclasses.field(default=None, compare=False, repr=False)
  extra: Mapping[str, Any] | None = dataclasses.field(
    default=None, compare=False, repr=False
  )

  def place(self, number: int | None = None) -> str:
    """What an error about the record begins with: FILE:LINE where it is known.

    Args:
      number: of the record among others, for one that is from no file.
    """
    if self.where is not None:
      return self.where
    return f"record {'' if number is None else f'{number}, '}id {self.id}"

  def column(self, name: str) -> Any:
    """What the record has under a name: a field, or one of `extra`."""
    if name in FIELDS:
      return self.__getattribute__(name)
    return (self.extra or {}).get(name)

  @property
  def target_prob(self) -> float:
    """Probability that the first response wins, the target of every pair loss.

    `chosen_prob` if given, else the share of votes with ties as one half, else
    0.5 for a tie, else 1.
    """
    if self.chosen_prob is not None:
      return self.chosen_prob
    if self.votes_chosen is not None and self.votes_rejected is not None:
      ties = self.votes_tie if self.votes_tie is not None else 0
      total = self.votes_chosen + self.votes_rejected + ties
      return (2 * self.votes_chosen + ties) / (2 * total)
    return 0.5 if self.tie else 1.0

  def to_row(self) -> dict[str, Any]:
    """The record as JSON values that `parse_record` reads back unchanged."""
    row: dict[str, Any] = {}
    for name in FIELDS:
      value = self.__getattribute__(name)
      if value is not None:
        row[name] = _to_json(value)
    row["responses"] = _to_json(chat.of_one_form(self.responses))
    if not self.responses:
      del row["responses"]
    return row


T = TypeVar("T")

FIELDS = tuple(
  field.name
  for field in dataclasses.fields(Record)
  if field.name not in ("where", "extra")
)
COLUMNS = (*FIELDS, "chosen", "rejected", *turns.SHARED)


def parse_record(
  row: Mapping[str, Any], *, where: str, need_responses: bool = True
) -> Record:
  """A record from one row of a file.

  Accepts the columns of `Record`, `chosen` and `rejected` in place of
  `responses`, and TRL's preference formats: plain text, conversations as lists
  of {role, content}, also with `tool_calls` and `reasoning_content` and beside
  columns `tools` and `chat_template_kwargs`, and
  responses that are full transcripts sharing an unstated prompt. Such a prompt
  is what the transcripts have in common: whole turns, or text up to the last
  complete word, the space going to the response.
  Without `need_responses` also TRL's prompt-only format.

  Args:
    row: column to JSON value; null means absent.
    where: FILE:LINE, the start of every error.
    need_responses: whether a prompt alone is an error.

  Returns:
    The record.

  Raises:
    ValueError: `WHERE: ` and then what was got and what is allowed.
  """
  try:
    return _parse(row, need_responses, where)
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from None


def expand_rankings(records: Sequence[Record]) -> list[Record]:
  """Every ranking of K > 2 responses as its K (K - 1) / 2 pairs, in order.

  Of a partial ranking only pairs with a ranked response are made. Two responses
  with equal `ratings["overall"]` make a tie. Ratings and labels follow their
  responses; pairs are named `ID-i-j`. Records of fewer responses pass through.
  """
  return [pair for record in records for pair in pairs_of(record)]


def pairs_of(record: Record) -> list[Record]:
  """The pairs of one ranking; see `expand_rankings`."""
  number = len(record.responses)
  if number <= 2:
    return [record]
  ranked = number if record.num_ranked is None else record.num_ranked
  return [
    _pair(record, i, j) for i in range(ranked) for j in range(i + 1, number)
  ]


def _pair(record: Record, i: int, j: int) -> Record:
  """Responses i and j of a ranking, i preferred."""
  given = {} if record.ratings is None else record.ratings
  ratings = {
    name: pick
    for name, values in given.items()
    if (pick := _pick(values, i, j)) is not None
  }
  overall = ratings.get("overall", ())
  pick = lambda values: None if values is None else _pick(values, i, j)
  return dataclasses.replace(
    record,
    responses=(record.responses[i], record.responses[j]),
    ratings=ratings if ratings else None,
    labels=pick(record.labels),
    label_votes=pick(record.label_votes),
    label_prior=pick(record.label_prior),
    num_ranked=None,
    tie=True if len(overall) == 2 and overall[0] == overall[1] else None,
    id=None if record.id is None else f"{record.id}-{i}-{j}",
  )


def _pick(values: tuple[T, ...], i: int, j: int) -> tuple[T, ...] | None:
  """What belongs to responses i and j; a single value is the first one's."""
  if len(values) > 1:
    return values[i], values[j]
  return values if i == 0 else None


def _to_json(value: Any) -> Any:
  if isinstance(value, Turn):
    return turns.message(value)
  if isinstance(value, tuple):
    return [_to_json(entry) for entry in value]
  if isinstance(value, Mapping):
    return {name: _to_json(entry) for name, entry in value.items()}
  return value


def _parse(row: Mapping[str, Any], need_responses: bool, where: str) -> Record:
  for name in row:
    if name not in COLUMNS:
      raise ValueError(
        f"unknown column {name!r}{column_hints.hint(name, row, COLUMNS)}; "
        f"allowed: {', '.join(sorted(COLUMNS))}; data.extra_columns names "
        "columns to ignore"
      )
  given = {name: value for name, value in row.items() if value is not None}
  prompt, responses = chat.parse_texts(given, need_responses=need_responses)
  values: dict[str, Any] = {"where": where}
  for name, parse in columns.PARSERS.items():
    if name in given:
      values[name] = parse(name, given[name])
  if not responses:
    check_alone(given)
    return Record(prompt=prompt, responses=(), **values)
  for name, parse_all in columns.PER_RESPONSE.items():
    if name in given:
      values[name] = parse_all(given[name], len(responses))
  check_classes(values)
  if "label_votes" in values:
    values.setdefault("labels", shares_of(values["label_votes"]))
  if not 1 <= values.get("num_ranked", 1) <= len(responses):
    raise ValueError(
      f"num_ranked must be in [1, {len(responses)}], got {values['num_ranked']}"
    )
  values |= implied_votes(values, len(responses))
  return Record(prompt=prompt, responses=responses, **values)


VOTES = ("votes_chosen", "votes_rejected", "votes_tie")
PAIR_COLUMNS = (
  "chosen_prob",
  *VOTES,
  "n_votes",
  "tie",
  "margin",
  "strength",
  "judge_prob",
  "position",
)

OF_RESPONSES = (
  *PAIR_COLUMNS,
  "num_ranked",
  "strength_std",
  *columns.PER_RESPONSE,
)


def check_classes(values: dict[str, Any]) -> None:
  """Raises ValueError if distributions and their votes do not go together."""
  given = [n for n in ("labels", "label_votes", "label_prior") if n in values]
  forms = [f"{len(values[n])} x {len(values[n][0])}" for n in given]
  if len({*forms}) > 1:
    raise ValueError(
      f"{' and '.join(given)} must have the same form, got "
      f"{' and '.join(forms)}"
    )


def shares_of(
  votes: tuple[tuple[int, ...], ...],
) -> tuple[tuple[float, ...], ...]:
  """Vote counts as distributions."""
  return tuple(tuple(n / sum(row) for n in row) for row in votes)


def check_alone(given: Mapping[str, Any]) -> None:
  """Raises ValueError, by name, for a column that only responses can have."""
  for name in OF_RESPONSES:
    if name in given:
      raise ValueError(f"{name} belongs to responses, there are none")


def implied_votes(given: dict[str, Any], num_responses: int) -> dict[str, int]:
  """`votes_rejected` where `n_votes` implies it, once nothing contradicts.

  Args:
    given: parsed columns without absent ones.
    num_responses: K.

  Returns:
    The column to add, if any.

  Raises:
    ValueError: votes, `tie`, `chosen_prob` and K contradict each other.
  """
  of_pairs = [name for name in PAIR_COLUMNS if name in given]
  if num_responses != 2 and of_pairs:
    raise ValueError(
      f"{of_pairs[0]} belongs to a pair, got {num_responses} responses"
    )
  if given.get("tie") and given.get("chosen_prob", 0.5) != 0.5:
    raise ValueError(
      f"tie is true but chosen_prob is {given['chosen_prob']}, not 0.5"
    )
  votes = {name: given[name] for name in VOTES if name in given}
  total = sum(votes.values())
  if total > given.get("n_votes", total):
    raise ValueError(
      f"votes sum to {total}, more than n_votes = {given['n_votes']}"
    )
  if not votes:
    return {}
  if "votes_chosen" not in votes:
    raise ValueError(f"{next(iter(votes))} is given without votes_chosen")
  added = {}
  if "votes_rejected" not in votes:
    if "n_votes" not in given:
      raise ValueError("votes_chosen needs votes_rejected or n_votes")
    added = {"votes_rejected": given["n_votes"] - total}
  votes |= added
  if not sum(votes.values()):
    raise ValueError("votes_chosen, votes_rejected and votes_tie are all 0")
  if given.get("tie") and votes["votes_chosen"] != votes["votes_rejected"]:
    raise ValueError(
      f"tie is true but votes are {votes['votes_chosen']} to "
      f"{votes['votes_rejected']}"
    )
  return added
