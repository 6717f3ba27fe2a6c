"""Whether annotators, groups or sources want different things."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import metrics
from jaxalign.data.records.record import Record
from jaxalign.data.stats import duplicates, style


def find(
  pairs: Sequence[Record], *, num_samples: int, num_rows: int, seed: int
) -> list[dict[str, Any]]:
  """Permutation tests against one shared taste, for each kind of label.

  Style features stand for taste: what a single taste in length and words leaves
  over is compared between annotators, between groups and between sources. Where
  people judged the same pairs, votes are exchanged within a pair only. Groups
  whose members are known are compared person by person, so that two people who
  differ do not count as a group that does.

  Args:
    pairs: preferences.
    num_samples: permutations.
    num_rows: pairs looked at, at most; drawn at random from more.
    seed: of the draw and the permutations.

  Returns:
    One entry per label that takes two values or more: `label`, `units`, `rows`,
    `share`, `expected`, `p_value` and `within_pairs`. A label that divides the
    pairs exactly as an earlier one is left out.
  """
  rng = np.random.default_rng(seed)
  if len(pairs) > num_rows:
    kept = np.sort(rng.choice(len(pairs), num_rows, replace=False))
    pairs = [pairs[i] for i in kept]
  scores = np.asarray(
    metrics.shared_taste_scores(
      style.style_features(pairs).astype(np.float32),
      np.array([record.target_prob for record in pairs], np.float32),
    )
  )
  person, people = _numbered([record.annotator for record in pairs])
  found: list[dict[str, Any]] = []
  divisions = []
  for i, label in enumerate(("annotator", "group", "source")):
    unit, units = _numbered([r.__getattribute__(label) for r in pairs])
    known = unit >= 0
    rows, unit, block = scores[known], unit[known], None
    if units < 2 or any(_same(unit, known, *other) for other in divisions):
      continue
    divisions.append((unit, known))
    if (
      label != "annotator" and people > 1 and _is_of_people(unit, person[known])
    ):
      rows, unit = _per_person(rows, unit, person[known])
    else:
      block = _shared_pairs([pairs[n] for n in np.flatnonzero(known)], unit)
    if len(rows) <= units and label == "annotator":
      continue  # one pair each tells nobody apart
    test = metrics.permutation_test(
      rows,
      unit=unit,
      num_units=units,
      key=jax.random.fold_in(jax.random.key(seed), i),
      block=block,
      num_samples=num_samples,
    )
    found.append(
      {
        "label": label,
        "units": units,
        "rows": len(rows),
        "within_pairs": block is not None,
        **{name: float(value) for name, value in test._asdict().items()},
      }
    )
  return found


def _numbered(labels: Sequence[str | None]) -> tuple[np.ndarray, int]:
  """Labels as int32 [N], -1 where absent, and how many there are."""
  index: dict[str | None, int] = {None: -1}
  for label in labels:
    index.setdefault(label, len(index) - 1)
  return np.array([index[label] for label in labels], np.int32), len(index) - 1


def _same(
  unit: np.ndarray, known: np.ndarray, other: np.ndarray, known_too: np.ndarray
) -> bool:
  """Whether two labels divide the same rows in the same way."""
  if not np.array_equal(known, known_too):
    return False
  both = {*zip(unit.tolist(), other.tolist(), strict=True)}
  return len(both) == len({*unit.tolist()}) == len({*other.tolist()})


def _is_of_people(unit: np.ndarray, person: np.ndarray) -> bool:
  """Whether everyone is named and belongs to one unit, with two people each."""
  if (person < 0).any():
    return False
  both = {*zip(unit.tolist(), person.tolist(), strict=True)}
  return len(both) == len({*person.tolist()}) >= 2 * len({*unit.tolist()})


def _per_person(
  scores: np.ndarray, unit: np.ndarray, person: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean score and unit of every person."""
  names, row, count = np.unique(person, return_inverse=True, return_counts=True)
  means = np.zeros((len(names), scores.shape[1]), scores.dtype)
  np.add.at(means, row, scores)
  of = np.zeros(len(names), unit.dtype)
  of[row] = unit
  return means / count[:, None].astype(scores.dtype), of


def _shared_pairs(
  pairs: Sequence[Record], unit: np.ndarray
) -> np.ndarray | None:
  """Numbers of the pairs, int32 [N], where several units judged most of them.

  Where a pair belongs to one unit, as to its source, nothing could be exchanged
  within it.
  """
  index: dict[object, int] = {}
  number = np.array(
    [
      index.setdefault(duplicates.pair_key(record), len(index))
      for record in pairs
    ],
    np.int32,
  )
  both = np.unique(np.stack([number, unit]), axis=1)
  several = np.bincount(both[0], minlength=len(index)) > 1
  return number if several[number].mean() > 0.5 else None
