"""Cross-field validation: columns of a record that contradict each other."""

from collections.abc import Mapping
from typing import Any

from jaxalign.data.records import columns

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
