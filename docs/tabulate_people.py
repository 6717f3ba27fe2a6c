r"""Latent groups among real people: a nested study of votes on statements.

    python docs/tabulate_features.py people --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/people

Each conversation and seed: a quarter of the people are held out by a hash;
layer, ridge and number of groups are chosen on the other people alone, by the
likelihood of a third of them under heads of the rest. Held-out people are
placed by their first 0, 1, 2 or 5 pairs and scored on the pairs after the fifth
that share no statement with these five, of those who have at least five of
them: a pair with a statement that has placed a person is half known. Beside the
mixture: the pooled head; heads of the groups that Polis published, placed in
the same way; personal rewards, the pooled head bent by a person's own pairs
under a Gaussian prior; two families of personal rewards with four numbers per
person, near a common head (low rank) or by distance from an ideal point, whose
prior is chosen on a quarter of the training people; and length, a bag of words
and both, fitted on the training people's pairs. The control draws all votes
anew by the pooled head: one taste, in which no method may gain.

Written down before nine conversations were run, when an earlier way of choosing
groups had given +0.016 on bowling-green and the present one +0.006 on
brexit-consensus. Claimed of five pairs:

1. The mixture is above the pooled head by 0.01 or more on bowling-green, and by
   0.01 or more as a mean over the nine, each counting the same.
2. In conversations with fewer than 100 people one taste is chosen in most
   seeds, and then nothing is gained and nothing lost.
3. Heads of the published groups, which were made of all votes, the held-out
   ones too, are no better than the mixture, as a mean over the nine.
4. The worst tenth of people, and the published group that the pooled head
   serves worst, gain by the mixture.
5. The two families are above the pooled head, and no better than the mixture.
6. In the control one taste is chosen and no method gains.

The smallest gain that can be shown (two-sided 5 %, power 80 %) is 2.8 standard
errors over people, about 0.4 / √people: 0.016 with 630, 0.03 with 180, 0.05
with 60, and 0.015 of the mean. Of nine intervals one may miss zero by chance,
so a conversation counts by itself only where its gain is above what can be
shown, which chance alone does in one of nine at most one time in twenty. Where
fewer than 20 people can be scored (a try of the script found 2 of
15-per-hour-seattle) a conversation is listed and does not count in the mean.

Added after three conversations had run, of which bowling-green has 509
statements: a bag of words was right on 0.749 of its pairs and the pooled head
on 0.692, as 128 directions cannot tell so many statements apart. Claimed of
its 512 leading directions (the table `people_wide`):

7. The pooled head is no more than 0.01 below the bag of words.
8. The mixture is above the pooled head by 0.01 or more all the same, and above
   the bag of words.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import people_tables
import words_and_length
from people_tables import BASELINES, FAMILIES, NAMES, SHOTS

from jaxalign.algorithms import linear_mixture, personal_rewards
from jaxalign.data.adapters import base
from jaxalign.data.records import reader
from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines
from jaxalign.experiments.reward_model import (
  latent_groups,
  text_features,
  user_assignment,
)

CONVERSATIONS = (
  "bowling-green", "land-bank-farmland", "nz-biodiversity", "nz-taxes",
  "nz-affordable-housing", "bg2050-volunteers", "canadian-electoral-reform",
  "brexit-consensus", "15-per-hour-seattle",
)  # fmt: skip
LAYERS = (12, 18, 24)
WIDE = 512  # directions of the rows that are named so
MORE = 5  # later pairs, of somebody who is scored
PRIORS = (0.3, 1.0, 3.0, 10.0, 30.0)  # variance of a person's own part
RANK, PULLS = 4, (3e-5, 3e-4, 3e-3)  # of the families
CONFIG = latent_groups.GroupsConfig(
  components=(1, 2, 3), folds=3, num_rounds=15, restarts=2
)


def personal(
  gaps: np.ndarray, apart: np.ndarray, seen: int, variance: float
) -> np.ndarray:
  """Gaps of one person's pairs under the pooled head and a part of their own.

  The part d maximises Σ log σ(gap_n + d·z_n) − |d|² / 2 variance over the pairs
  seen; it is a sum of their z, so the problem has as many unknowns as pairs.

  Args:
    gaps: under the pooled head, [n].
    apart: z, features of the chosen minus the rejected text, [n, P].
    seen: how many pairs, the first, are known.
    variance: of each coordinate of d before any pair.

  Returns:
    Gaps of all n pairs.
  """
  if not seen:
    return gaps
  kernel = variance * apart @ apart[:seen].T  # [n, seen]
  own = np.zeros(seen)
  for _ in range(20):
    miss = 1 / (1 + np.exp(gaps[:seen] + kernel[:seen] @ own))
    curvature = (miss * (1 - miss))[:, None]
    step = np.linalg.solve(np.eye(seen) + curvature * kernel[:seen], own - miss)
    own = own - step
  return gaps + kernel @ own


def families(
  judged: latent_groups.Judged,
  features: np.ndarray,
  train: np.ndarray,
  free: np.ndarray,
  head: np.ndarray,
  ridge: float,
  kind: str,
  seed: int,
  shots: Sequence[int] = SHOTS,
) -> np.ndarray:
  """Probabilities under personal rewards of a family, its prior chosen inside.

  Args:
    judged: the pairs.
    features: of the texts, [I, P].
    train: people to learn from, bool [U].
    free: pairs on which held-out people are scored, bool [N].
    head: the pooled one, to begin with, [P].
    ridge: its penalty.
    kind: of `PersonalConfig`.
    seed: of the first directions.
    shots: numbers of pairs that place a person.

  Returns:
    Of all pairs after each of `shots`, [S, N]; 0.5 where they are not free.
  """
  tuning = train & (latent_groups.fold_of(judged.people, 4, 2000 + seed) == 0)
  data = linear_mixture.Comparisons(
    features, judged.chosen, judged.rejected, judged.user
  )
  config = personal_rewards.PersonalConfig(kind, RANK)
  fitted = lambda who, pull: personal_rewards.fit(
    data, num_users=len(judged.people), config=config, ridge=ridge, pull=pull,
    head=head, key=jax.random.key(seed), where=who[judged.user],
  ).family  # fmt: skip
  last = shots[-1]
  later = latent_groups.apart(judged, last) & tuning[judged.user]
  likely = {}
  for pull in PULLS:
    probs = _placed(
      judged, fitted(train & ~tuning, pull), features, later, kind, (last,)
    )
    likely[pull] = np.log(np.maximum(probs[0, later], 1e-6)).sum()
  best = max(likely, key=lambda one: likely[one])
  return _placed(judged, fitted(train, best), features, free, kind, shots)


def _placed(
  judged: latent_groups.Judged,
  family: personal_rewards.Family,
  features: np.ndarray,
  free: np.ndarray,
  kind: str,
  shots: Sequence[int],
) -> np.ndarray:
  """Probabilities of the pairs of people who have free ones, [S, N]."""
  common, turned = map(
    np.asarray, personal_rewards.rewards(family, features, kind=kind)
  )
  mine = np.isin(judged.user, np.unique(judged.user[free]))
  place = user_assignment.place_of(judged.user)
  people, row = np.unique(judged.user[mine], return_inverse=True)
  shape = (len(people), max(place[mine].max(initial=0) + 1, max(shots)))
  gaps, apart = np.zeros(shape), np.zeros((*shape, turned.shape[1]))
  gaps[row, place[mine]] = judged.gaps(common)[mine]
  apart[row, place[mine]] = judged.gaps(turned)[mine]
  probs = np.full((len(shots), len(judged.user)), 0.5)
  for s, number in enumerate(shots):
    where = np.zeros(shape, bool)
    where[row, place[mine]] = place[mine] < number
    found = PLACE(*map(jnp.float32, (gaps, apart)), where)
    probs[s, mine] = np.asarray(found)[row, place[mine]]
  return probs


PLACE = jax.jit(
  jax.vmap(
    lambda gaps, apart, where: personal_rewards.win_probability(
      gaps, apart, personal_rewards.place(gaps, apart, where=where)
    )
  )
)


def words(
  judged: latent_groups.Judged, train: np.ndarray
) -> dict[str, np.ndarray]:
  """Gaps of all pairs by length, by words and by both, [N] each.

  Args:
    judged: the pairs.
    train: people to learn from, bool [U].
  """
  records = [
    Record(judged.texts[c][0], (judged.texts[c][1], judged.texts[r][1]))
    for c, r in zip(judged.chosen, judged.rejected, strict=True)
  ]
  where = np.flatnonzero(train[judged.user])
  fitted = baselines.BagOfWords.fit([records[n] for n in where])
  length = judged.gaps(np.log1p([len(text) for _, text in judged.texts]))
  found = fitted.gaps(records)
  both = words_and_length.together(found, length, where)
  return dict(zip(BASELINES, (length, found, both), strict=True))


class Study:
  """One conversation: pairs, features per layer, and what is fitted on them."""

  def __init__(
    self,
    judged: latent_groups.Judged,
    layers: dict[int, np.ndarray],
    dimensions: int,
    shots: Sequence[int] = SHOTS,
  ) -> None:
    """Turns features into principal directions.

    Args:
      judged: the pairs.
      layers: features of the texts by layer, [I, D].
      dimensions: directions at most.
      shots: numbers of pairs that place a person; pairs after the last of them
        are scored.
    """
    self.judged, self.shots = judged, tuple(shots)
    self.layers = {
      layer: latent_groups.projection(values, dimensions)(values)
      for layer, values in layers.items()
    }

  def seed(self, seed: int, *, control: bool) -> dict[str, Any]:
    """One split: choices, and what each method gets right of each person.

    Args:
      seed: of the split, of first assignments and of the control's votes.
      control: whether votes are drawn anew by a pooled head.

    Returns:
      Arrays and numbers for `np.savez`.
    """
    judged = self.judged
    train = latent_groups.fold_of(judged.people, 4, seed) > 0
    if control:
      judged = self._one_taste(train, seed)
    where = train[judged.user]
    fold = latent_groups.fold_of(judged.people, CONFIG.folds, 1000 + seed)
    pooled_only = latent_groups.GroupsConfig(
      components=(1,), ridges=CONFIG.ridges, folds=CONFIG.folds
    )
    likely = {
      layer: latent_groups.choose(
        judged, values, fold, pooled_only, seed, where
      ).table[0]["log_likelihood"]
      for layer, values in self.layers.items()
    }
    layer = max(likely, key=lambda one: likely[one])
    features = self.layers[layer]
    choice = latent_groups.choose(judged, features, fold, CONFIG, seed, where)
    fitted = lambda components: latent_groups.fit(
      judged, features, where, CONFIG,
      components=components, ridge=choice.ridge, seed=seed,
    )  # fmt: skip
    pooled, mixture = fitted(1), fitted(choice.components)
    heads = {
      "pooled": (pooled.heads, pooled.weights),
      "mixture": (mixture.heads, mixture.weights),
      "published": self._published(judged, features, train, choice.ridge, seed),
    }
    variance = self._variance(judged, features, pooled.heads[0], train)
    free = latent_groups.enough(
      judged, latent_groups.apart(judged, self.shots[-1]) & ~where, MORE
    )
    scored = np.unique(judged.user[free])
    right = np.full((len(NAMES), len(self.shots), len(scored)), np.nan)
    of_family = {
      kind: families(
        judged,
        features,
        train,
        free,
        pooled.heads[0],
        choice.ridge,
        kind,
        seed,
        self.shots,
      )
      for kind in FAMILIES
    }
    plain = words(judged, train)
    number = np.zeros(len(scored))
    for row, person in enumerate(scored):
      mine = np.flatnonzero(judged.user == person)
      apart = features[judged.chosen[mine]] - features[judged.rejected[mine]]
      later = free[mine]
      number[row] = later.sum()
      for m, method in enumerate(NAMES):
        for s, shots in enumerate(self.shots):
          if method in BASELINES:
            probs = 0.5 + plain[method][mine]  # its sign counts
          elif method in FAMILIES:
            probs = of_family[method][s, mine]
          elif method == "personal":
            gaps = personal(apart @ pooled.heads[0], apart, shots, variance)
            probs = 1 / (1 + np.exp(-gaps))
          else:
            if heads[method] is None:
              continue
            own, weights = heads[method]
            gaps = apart @ own.T
            shares = user_assignment.place_person(gaps[:shots], weights)
            probs = (1 / (1 + np.exp(-gaps))) @ shares
          right[m, s, row] = latent_groups.right(probs[later]).sum()
    return {
      "right": right, "number": number, "person": scored, "layer": layer,
      "ridge": choice.ridge, "components": choice.components,
      "variance": variance, "weights": np.sort(mixture.weights)[::-1],
      "group": np.array([str(judged.group[person]) for person in scored]),
      "shots": np.array(self.shots),
    }  # fmt: skip

  def _one_taste(self, train: np.ndarray, seed: int) -> latent_groups.Judged:
    """The same pairs, each decided by a coin of the pooled head."""
    judged, features = self.judged, next(iter(self.layers.values()))
    head = latent_groups.fit(
      judged, features, train[judged.user], CONFIG,
      components=1, ridge=1e-3, seed=seed,
    ).heads  # fmt: skip
    gaps = judged.gaps(features @ head.T)[:, 0]
    rng = np.random.default_rng(seed)
    stay = rng.random(len(gaps)) < 1 / (1 + np.exp(-gaps))
    return judged._replace(
      chosen=np.where(stay, judged.chosen, judged.rejected),
      rejected=np.where(stay, judged.rejected, judged.chosen),
    )

  def _published(
    self,
    judged: latent_groups.Judged,
    features: np.ndarray,
    train: np.ndarray,
    ridge: float,
    seed: int,
  ) -> tuple[np.ndarray, np.ndarray] | None:
    """A head per group that Polis published; None where there are not two."""
    names = np.array([str(name) for name in judged.group])
    known = [
      name
      for name in np.unique(names)
      if name != "None" and np.sum(train & (names == name)) >= 5
    ]
    if len(known) < 2:
      return None
    sizes = np.array([np.sum(train & (names == name)) for name in known])
    heads = [
      latent_groups.fit(
        judged, features,
        (train & (names == name))[judged.user], CONFIG,
        components=1, ridge=ridge, seed=seed,
      ).heads[0]
      for name in known
    ]  # fmt: skip
    return np.stack(heads), sizes / sizes.sum()

  def _variance(
    self,
    judged: latent_groups.Judged,
    features: np.ndarray,
    head: np.ndarray,
    train: np.ndarray,
  ) -> float:
    """The prior of personal parts under which training people are likeliest.

    Of those with enough pairs: later pairs of other texts, given the first.
    """
    last = self.shots[-1]
    free = latent_groups.enough(
      judged, latent_groups.apart(judged, last) & train[judged.user], MORE
    )
    people = np.unique(judged.user[free])[:200]
    total = dict.fromkeys(PRIORS, 0.0)
    for person in people:
      mine = np.flatnonzero(judged.user == person)
      apart = features[judged.chosen[mine]] - features[judged.rejected[mine]]
      for variance in PRIORS:
        gaps = personal(apart @ head, apart, last, variance)[free[mine]]
        total[variance] -= np.logaddexp(0, -gaps).mean()
    return max(total, key=lambda one: total[one])


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a conversation, with features of its statements."""
  name, _, kind = row.partition(":")
  records = reader.RecordStream(
    [f"{named.data}/polis/votes.csv.gz"], draw=base.Draw(), only_sources=(name,)
  )
  judged = latent_groups.of_records([*records])
  study = Study(
    judged,
    {
      layer: text_features.of_texts(
        named.model, judged.texts, cache=named.cache, layer=layer,
        pooling="mean",
      ).array()
      for layer in LAYERS
    },
    WIDE if kind == "wide" else CONFIG.dimensions,
  )  # fmt: skip
  return lambda seed: study.seed(seed, control=kind == "control")


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables and draws the picture."""
  found = {row: people_tables.summary(of_row) for row, of_row in runs.items()}
  for table in (people_tables.lines(found), people_tables.others(found)):
    sys.stdout.write("\n".join(table) + "\n\n")
  if png is not None:
    people_tables.draw(found, png)
