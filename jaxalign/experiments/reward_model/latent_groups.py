"""Latent groups of people on frozen features: fitting, choosing, scoring.

Everything a person is scored on is out of sample: people are in folds, heads
are fitted on the other folds, and a person is placed by pairs that are not
scored.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxalign.algorithms import linear_mixture
from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.experiments.reward_model import user_assignment
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class GroupsConfig:
  """How latent groups are fitted on frozen features.

  Attributes:
    components: numbers of latent groups to try; kept is the smallest one under
      which held-out people are as likely as under the best, up to a standard
      error over people; no text of a person counts twice.
    ridges: penalties of a head to try, per pair, chosen in the same way for a
      single pooled head.
    dimensions: principal directions of the features that heads read.
    folds: parts of the people, each held out once.
    num_rounds: of E-step and M-step.
    restarts: random first assignments.
  """

  components: tuple[int, ...] = (1, 2, 3, 4)
  ridges: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
  dimensions: int = 128
  folds: int = 4
  num_rounds: int = 20
  restarts: int = 4

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    if not self.components or min(self.components) < 1:
      raise ValueError(
        f"components must be numbers >= 1, got {self.components}"
      )
    if not self.ridges or not min(self.ridges) > 0:
      raise ValueError(f"ridges must be numbers > 0, got {self.ridges}")
    checks.at_least(1, dimensions=self.dimensions, restarts=self.restarts)
    checks.at_least(2, folds=self.folds)


class Judged(NamedTuple):
  """Pairs as numbers: which texts, and who prefers which.

  Attributes:
    texts: each prompt with a response once, [I].
    chosen: the preferred text of each pair, int32 [N].
    rejected: the other one, int32 [N].
    user: who stated it, int32 [N].
    people: names, [U].
    group: of each person by name, None for none or several, [U].
    left_out: pairs of nobody, which place nobody.
  """

  texts: list[tuple[str, str]]
  chosen: np.ndarray
  rejected: np.ndarray
  user: np.ndarray
  people: list[str]
  group: list[str | None]
  left_out: int

  @property
  def counts(self) -> np.ndarray:
    """Pairs of each person, int [U]."""
    return np.bincount(self.user, minlength=len(self.people))

  @property
  def sides(self) -> np.ndarray:
    """Texts of each pair, the preferred one first, int32 [N, 2]."""
    return np.stack([self.chosen, self.rejected], axis=1)

  def gaps(self, rewards: np.ndarray) -> np.ndarray:
    """Reward of the chosen minus the rejected text of [I, ...] rewards."""
    gaps: np.ndarray = rewards[self.chosen] - rewards[self.rejected]
    return gaps


def of_records(records: Sequence[Record]) -> Judged:
  """The pairs of people who are named; ties are left out, as they rank nothing.

  Args:
    records: pairs.

  Returns:
    Them as numbers; people by name, pairs in the order given.

  Raises:
    ValueError: nobody is named.
  """
  texts: dict[tuple[str, str], int] = {}
  rows, users = [], []
  groups: dict[str, set[str | None]] = {}
  left_out = 0
  for record in records:
    if record.annotator is None or record.target_prob == 0.5:
      left_out += 1
      continue
    prompt = text_of(record.prompt)
    sides = [
      texts.setdefault((prompt, text_of(response)), len(texts))
      for response in record.responses[:2]
    ]
    rows.append(sides if record.target_prob > 0.5 else sides[::-1])
    users.append(record.annotator)
    groups.setdefault(record.annotator, set()).add(record.group)
  if not rows:
    raise ValueError(
      "latent groups are groups of people: no pair has an `annotator`"
    )
  people = sorted(groups)
  number = {name: k for k, name in enumerate(people)}
  pairs = np.array(rows, np.int32)
  return Judged(
    [*texts],
    pairs[:, 0],
    pairs[:, 1],
    np.array([number[name] for name in users], np.int32),
    people,
    [
      next(iter(groups[name])) if len(groups[name]) == 1 else None
      for name in people
    ],
    left_out,
  )


class Projection(NamedTuple):
  """Features as heads read them: standardised, in principal directions.

  Attributes:
    mean: of each feature, [D].
    directions: what standardises and turns, [D, P].
  """

  mean: np.ndarray
  directions: np.ndarray

  def __call__(self, features: np.ndarray) -> np.ndarray:
    """Features [I, D] as float32 [I, P]."""
    turned: np.ndarray = (features - self.mean) @ self.directions
    return turned.astype(np.float32)

  def raw(self, heads: np.ndarray) -> np.ndarray:
    """Heads [K, P] as heads of the features themselves, [K, D]."""
    turned: np.ndarray = np.asarray(heads, np.float64) @ self.directions.T
    return turned


def projection(features: np.ndarray, dimensions: int) -> Projection:
  """The leading principal directions of standardised features.

  Scaled so that the mean squared length of a text is 1: a ridge then means the
  same for every backbone.

  Args:
    features: of the texts that may be learned from, [I, D].
    dimensions: P at most.

  Returns:
    The projection.
  """
  wide = np.asarray(features, np.float64)
  mean, scale = wide.mean(axis=0), wide.std(axis=0)
  scale = np.where(scale > 1e-6 * max(scale.max(), 1e-30), scale, np.inf)
  standard = (wide - mean) / scale
  _, sizes, turned = np.linalg.svd(standard, full_matrices=False)
  kept = min(dimensions, int(np.sum(sizes > 1e-6 * max(sizes[0], 1e-30))))
  kept = max(kept, 1)
  length = np.sqrt(np.sum(sizes[:kept] ** 2) / len(wide)) or 1.0
  return Projection(mean, turned[:kept].T / scale[:, None] / length)


def fold_of(people: Sequence[str], folds: int, seed: int) -> np.ndarray:
  """The fold of each person, by a hash of the name alone, int [U]."""
  numbers = [
    int.from_bytes(hashlib.sha256(f"{seed}|fold|{name}".encode()).digest()[:8])
    for name in people
  ]
  return np.array([number % folds for number in numbers])


class Fitted(NamedTuple):
  """Heads for latent groups, [K, P], and the groups' shares, [K]."""

  heads: np.ndarray
  weights: np.ndarray
  responsibilities: np.ndarray


def fit(
  judged: Judged,
  features: np.ndarray,
  where: np.ndarray,
  config: GroupsConfig,
  *,
  components: int,
  ridge: float,
  seed: int,
) -> Fitted:
  """EM on some of the pairs.

  Args:
    judged: all pairs.
    features: of the texts, as `Projection` gives them, float32 [I, P].
    where: pairs to learn from, bool [N].
    config: rounds and restarts.
    components: K.
    ridge: penalty per pair.
    seed: of the first assignments.

  Returns:
    The heads and everybody's responsibilities by the pairs learned from.
  """
  found = linear_mixture.fit(
    linear_mixture.Comparisons(
      features, judged.chosen, judged.rejected, judged.user
    ),
    num_users=len(judged.people),
    config=linear_mixture.LinearMixtureConfig(
      components, num_rounds=config.num_rounds, restarts=config.restarts
    ),
    ridge=ridge,
    key=jax.random.key(seed),
    where=where,
  )
  heads, weights, shares, _ = jax.device_get(found)
  return Fitted(heads, weights, shares)


class CrossFit(NamedTuple):
  """Heads of every fold, fitted on the people of all others.

  Attributes:
    gaps: of each pair under heads that have not met its person, [N, K].
    weights: of the fold that each person is held out in, [U, K].
    log_likelihood: of each held-out person, in nats, [U].
    counted: pairs behind it: no text of a person counts twice, bool [N].
  """

  gaps: np.ndarray
  weights: np.ndarray
  log_likelihood: np.ndarray
  counted: np.ndarray


def cross_fit(
  judged: Judged,
  features: np.ndarray,
  fold: np.ndarray,
  config: GroupsConfig,
  *,
  components: int,
  ridge: float,
  seed: int,
  where: np.ndarray | None = None,
) -> CrossFit:
  """Fits without each fold of the people and scores that fold.

  Args:
    judged: all pairs.
    features: [I, P].
    fold: of each person, int [U].
    config: rounds and restarts.
    components: K.
    ridge: penalty per pair.
    seed: of the first assignments.
    where: pairs that are there at all, bool [N]; None for all.

  Returns:
    Gaps and weights out of sample, and how likely held-out people are.
  """
  there = np.ones(len(judged.user), bool) if where is None else where
  gaps = np.zeros((len(judged.user), components))
  weights = np.zeros((len(judged.people), components))
  for k in np.unique(fold):
    held_out = fold[judged.user] == k
    found = fit(
      judged,
      features,
      there & ~held_out,
      config,
      components=components,
      ridge=ridge,
      seed=seed,
    )
    mine = there & held_out
    gaps[mine] = judged.gaps(features @ found.heads.T)[mine]
    weights[fold == k] = found.weights
  counted = there.copy()
  counted[there] = user_assignment.first_said(
    judged.user[there], judged.sides[there]
  )
  joint = _joint(gaps, weights, judged.user, counted)
  return CrossFit(gaps, weights, np.logaddexp.reduce(joint, axis=1), counted)


def _joint(
  gaps: np.ndarray, weights: np.ndarray, user: np.ndarray, where: np.ndarray
) -> np.ndarray:
  """Log π_uk + Σ log σ(gap_nk) over some pairs of each person, [U, K]."""
  joint = np.log(np.maximum(weights, 1e-30))
  np.add.at(joint, user[where], -np.logaddexp(0.0, -gaps[where]))
  return joint


class Choice(NamedTuple):
  """What held-out likelihood decides.

  Attributes:
    components: K.
    ridge: penalty per pair.
    table: one line per number of components tried: `components`, `ridge`,
      `log_likelihood` of held-out people in nats per pair, and how far it is
      below that of the best, with its standard error over people.
    fits: the cross-fit of each number of components.
  """

  components: int
  ridge: float
  table: list[dict[str, Any]]
  fits: dict[int, CrossFit]


def choose(
  judged: Judged,
  features: np.ndarray,
  fold: np.ndarray,
  config: GroupsConfig,
  seed: int,
  where: np.ndarray | None = None,
) -> Choice:
  """The ridge of a pooled head, then K, by the likelihood of held-out people.

  Args:
    judged: all pairs.
    features: [I, P].
    fold: of each person, int [U].
    config: what is tried.
    seed: of the first assignments.
    where: pairs that are there at all, bool [N]; None for all.

  Returns:
    The choice, with the cross-fit of a pooled head among its fits.
  """
  crossed = functools.partial(
    cross_fit, judged, features, fold, config, seed=seed, where=where
  )
  pooled = {
    ridge: crossed(components=1, ridge=ridge) for ridge in config.ridges
  }
  ridge = max(pooled, key=lambda value: pooled[value].log_likelihood.sum())
  fits = {1: pooled[ridge]}
  number = int(fits[1].counted.sum())
  for components in config.components:
    if components > 1:
      fits[components] = crossed(components=components, ridge=ridge)
  tried = sorted({*config.components} & {*fits})
  best = max(tried, key=lambda k: fits[k].log_likelihood.sum())
  table, enough = [], []
  for k in sorted(fits):
    below = fits[best].log_likelihood - fits[k].log_likelihood
    error = below.std(ddof=1) * np.sqrt(len(below))
    if k in tried and below.sum() <= error:
      enough.append(k)
    table.append(
      {
        "components": k,
        "ridge": ridge,
        "log_likelihood": float(fits[k].log_likelihood.sum() / number),
        "below_best": float(below.sum() / number),
        "standard_error": float(error / number),
      }
    )
  return Choice(enough[0], ridge, table, fits)


def predicted(
  found: CrossFit,
  judged: Judged,
  num_pairs: int,
) -> np.ndarray:
  """How probably each pair goes as stated, after some pairs of its person.

  Args:
    found: gaps and weights out of sample.
    judged: the pairs.
    num_pairs: the first pairs of each person, by which they are placed.

  Returns:
    Σ_k ρ_uk σ(gap_k), float64 [N]; for the pairs that place a person too.
  """
  seen = user_assignment.place_of(judged.user) < num_pairs
  joint = _joint(found.gaps, found.weights, judged.user, seen)
  joint -= joint.max(axis=1, keepdims=True)
  shares = np.exp(joint) / np.exp(joint).sum(axis=1, keepdims=True)
  each = np.exp(-np.logaddexp(0.0, -found.gaps))
  probs: np.ndarray = np.sum(shares[judged.user] * each, axis=1)
  return probs


def apart(judged: Judged, num_pairs: int) -> np.ndarray:
  """Pairs on which people who were placed by their first pairs can be scored.

  A text of a pair that placed a person says what they think of it; a later pair
  with the same text would be half known.

  Args:
    judged: the pairs.
    num_pairs: the first pairs of each person, by which they are placed.

  Returns:
    True for later pairs that share no text with those, bool [N].
  """
  return user_assignment.apart(judged.user, judged.sides, num_pairs)


def enough(judged: Judged, where: np.ndarray, least: int) -> np.ndarray:
  """The pairs among `where` of people who have `least` of them, bool [N]."""
  counts = np.bincount(judged.user[where], minlength=len(judged.people))
  kept: np.ndarray = where & (counts >= least)[judged.user]
  return kept


def right(probs: np.ndarray) -> np.ndarray:
  """1 for a preference predicted, a half for none, 0 for the opposite."""
  found: np.ndarray = (np.sign(np.asarray(probs) - 0.5) + 1) / 2
  return found


def worst_tenth(accuracy: np.ndarray) -> float:
  """Mean accuracy of the tenth of people who are served worst."""
  number = max(1, round(len(accuracy) / 10))
  return float(np.sort(accuracy)[:number].mean())


def worst_tenth_scores(
  each: dict[str, np.ndarray], counts: np.ndarray, num_samples: int, seed: int
) -> dict[str, Any]:
  """The worst tenth with intervals over people, and what chance alone makes.

  Args:
    each: accuracy per person, [U], by name of a prediction.
    counts: pairs behind each, [U].
    num_samples: resamples.
    seed: of them.

  Returns:
    By name `value`, `low`, `high`, and `if_alike`: the worst tenth that would
    be seen if everybody were served equally well.
  """
  rng = np.random.default_rng(seed)
  rows = rng.integers(0, len(counts), (num_samples, len(counts)))
  found = {}
  for name, accuracy in each.items():
    drawn = [worst_tenth(accuracy[row]) for row in rows]
    low, high = np.quantile(drawn, (0.025, 0.975))
    mean = float(np.average(accuracy, weights=counts))
    alike = [
      worst_tenth(rng.binomial(counts, mean) / counts)
      for _ in range(min(num_samples, 200))
    ]
    found[name] = {
      "value": worst_tenth(accuracy),
      "low": float(low),
      "high": float(high),
      "if_alike": float(np.mean(alike)),
    }
  return found
