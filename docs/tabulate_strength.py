r"""Strength of preference on real pairs: does it find wrong labels, and help?

    python docs/tabulate_features.py strength --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/strength --png=strength.png

Ten linear heads on frozen features, the mean over a text of layer 18 in 128
principal directions, differ in their start and the order of their batches. The
mean of their gaps is a pair's strength, either of heads that were trained on it
too, as the paper has it, or of those that were not (one of five folds each).
Labels of HH (400 pairs each of helpful and harmless) are as recorded; labels of
1,500 jokes (humour) and of the arguments of seven debates (convarg) that at
least four fifths of three votes or more agree on are taken to be right. In each
seed a quarter of the prompts (HH), jokes or arguments is held out; pairs with
both texts there are judged, if their label is taken to be right. At most 3,000
other pairs, drawn from the seed, are trained on, with 0, 10, 20 or 30 % of the
labels turned round, or with one vote of each pair drawn as its label, also
where people disagree ("a vote"); that label is wrong if most of the other votes
say so. A fifth of the training pairs, with labels no better, tells how many of
up to 1,600 steps of Adam (32 pairs, rate 0.003) are best, for each method by
itself, by the likelihood under one scale that suits it. A head of a tenth of
the pairs takes as many as the plain one.

Written down before the run. The paper (Wang et al., 2024): a quarter of pairs
has a strength below 0; a model of the weakest tenth is right on 0.33 of
held-out pairs, of the tenth after on 0.35, of the strongest on 0.66, of those
before it on 0.68; flipping the weakest tenth, soft labels and margins are
within 0.003 of plain training at its best and 0.008 to 0.017 above it late.
Claimed here:

1. Low strength finds wrong labels: AUC of at least 0.7 on humour and convarg
   and of 0.6 on HH where labels are turned round, of 0.6 where a vote is drawn.
   Heads that have not seen a pair find it better, by 0.02 or more.
2. Between 0.15 and 0.35 of the pairs have a strength below 0, without noise.
3. At 20 and 30 % a head of the weakest tenth is below chance, and that of the
   strongest below the best of the others.
4. At 20 and 30 % flipping the weakest tenth, and soft labels with margins, gain
   0.01 or more over plain training; margins alone change less than 0.005. At
   0 %, where nothing is to be mended, flipping loses no more than 0.01.
5. Flipping a tenth that is drawn loses, and knowing the wrong labels gains.
6. The control deals labels at random: no head is off chance, and no strength
   finds a label that was turned round (AUC within 0.02 of 0.5).

Written down after "hh" had run, where one head for both kinds is at chance, so
that there was nothing to find: with a part of the head for each ("hh:apart")
claims 1 to 5 as they stand.

The smallest effects that can be shown, 2.8 standard errors over prompts, jokes
or arguments of a paired difference, are expected at 0.03 on HH (200 pairs a
seed) and convarg (180) and 0.04 on humour (115); the table prints what it came
to.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import strength_tables
import voted_pairs
from strength_tables import LEVELS, METHODS

from jaxalign import losses
from jaxalign.experiments.reward_model import latent_groups, text_features

LAYER, BATCH, RATE = 18, 32, 0.003
STEPS = (25, 50, 100, 200, 400, 800, 1600)
HEADS, FOLDS, MOST = 10, 5, 3000
ROWS = (
  "hh", "hh:apart", "humour", "convarg", "humour:control", "convarg:control",
)  # fmt: skip


@functools.partial(jax.jit, static_argnames=("batch", "steps"))
def train(
  seeds: jax.Array, starts: jax.Array, apart: jax.Array, prob: jax.Array,
  margin: jax.Array, rows: jax.Array, counts: jax.Array,
  *, batch: int = BATCH, steps: tuple[int, ...] = STEPS,
) -> jax.Array:  # fmt: skip
  """Adam on pairs for M heads at once.

  Args:
    seeds: of the batches of each head, [M].
    starts: where each head starts, [M, D].
    apart: features of the first text minus the second's, [N, D].
    prob: probability that the first is better, as each head is told, [M, N].
    margin: gap that it must clear, [M, N].
    rows: pairs that each head sees, the first of these numbers, [M, N].
    counts: how many these are, [M].
    batch: pairs in a step.
    steps: after which heads are kept.

  Returns:
    Heads after each of `steps`, [S, M, D].
  """
  adam = optax.adam(RATE)

  def one(
    seed: jax.Array, start: jax.Array, prob: jax.Array, margin: jax.Array,
    rows: jax.Array, count: jax.Array,
  ) -> jax.Array:  # fmt: skip
    def cost(head: jax.Array, seen: jax.Array) -> jax.Array:
      gaps = jnp.einsum("nd,d->n", apart[seen], head, precision="highest")
      lost = losses.soft_preference_loss(
        gaps, jnp.zeros_like(gaps), chosen_prob=prob[seen], margin=margin[seen]
      )
      return jnp.mean(lost)

    def step(carry: Any, drawn: jax.Array) -> tuple[Any, jax.Array]:
      head, state = carry
      seen = rows[jnp.floor(drawn * count).astype(jnp.int32)]
      with jax.numpy_dtype_promotion("standard"):  # as optax counts steps
        updates, state = adam.update(jax.grad(cost)(head, seen), state)
      head = optax.apply_updates(head, updates)
      return (head, state), head

    drawn = jax.random.uniform(jax.random.key(seed), (steps[-1], batch))
    _, heads = jax.lax.scan(step, (start, adam.init(start)), drawn)
    return heads[jnp.array(steps) - 1]

  heads = jax.vmap(one)(seeds, starts, prob, margin, rows, counts)
  return jnp.swapaxes(heads, 0, 1)


def told(
  strength: np.ndarray, unseen: np.ndarray, wrong: np.ndarray, seed: int
) -> list[losses.PreferenceTargets]:
  """Labels and margins under each of `METHODS`, of pairs as labelled.

  Args:
    strength: of heads that have seen the pairs, [N].
    unseen: of heads that have not, [N].
    wrong: pairs whose label is known to be wrong, bool [N].
    seed: of the flips that are drawn.
  """
  given, other = jnp.asarray(strength), jnp.asarray(unseen)
  flip = functools.partial(losses.flip_mask, given)
  shuffled = jnp.asarray(
    np.random.default_rng(seed).permutation(len(strength)), jnp.float32
  )
  found = {
    "plain": losses.flip_targets(given, flipped=flip(fraction=0.0)),
    "flip 10 %": losses.flip_targets(given, flipped=flip(fraction=0.1)),
    "flip 20 %": losses.flip_targets(given, flipped=flip(fraction=0.2)),
    "flip 10 %, unseen": losses.flip_targets(
      other, flipped=losses.flip_mask(other, fraction=0.1)
    ),
    "flip 10 %, drawn": losses.flip_targets(
      given, flipped=losses.flip_mask(shuffled, fraction=0.1)
    ),
    "smooth": losses.smooth_targets(given),
    "margin": losses.margin_targets(given),
    "flip 10 % + margin": losses.flip_margin_targets(
      given, flipped=flip(fraction=0.1)
    ),
    "smooth + margin": losses.smooth_margin_targets(given),
    "wrong labels known": losses.flip_targets(
      given, flipped=jnp.asarray(wrong)
    ),
  }
  return [found[name] for name in METHODS]


def found_by(strength: np.ndarray, wrong: np.ndarray, known: np.ndarray) -> Any:
  """Probability that a wrong label is weaker than a right one, ties one half.

  Args:
    strength: [N].
    wrong: bool [N].
    known: pairs of which that is known, bool [N].
  """
  low, high = strength[known & wrong], strength[known & ~wrong]
  if not len(low) or not len(high):
    return np.nan
  ordered = np.sort(high)
  above = len(high) - np.searchsorted(ordered, low, side="right")
  equal = len(high) - np.searchsorted(ordered, low, side="left") - above
  return float(np.mean(above + equal / 2) / len(high))


def labelled(
  votes: np.ndarray, level: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Labels with noise: which pairs are turned, which are wrong, which known.

  Args:
    votes: for the first side, the other and neither, [N, 3].
    level: one of `LEVELS`.
    rng: draws.

  Returns:
    Three bool [N]; a pair is turned if its label is the other side.
  """
  every = np.ones(len(votes), bool)
  if level != "a vote":
    number = round(float(level.split()[0]) / 100 * len(votes))
    turned = np.zeros(len(votes), bool)
    turned[rng.choice(len(votes), number, replace=False)] = True
    return turned, turned, every
  shares = votes[:, 1] / votes[:, :2].sum(axis=1)
  turned = rng.random(len(votes)) < shares
  for_it = np.where(turned, votes[:, 1], votes[:, 0]) - 1
  against = np.where(turned, votes[:, 0], votes[:, 1])
  return turned, against > for_it, against != for_it


class Study:
  """Pairs, and features of their texts."""

  def __init__(
    self, pairs: voted_pairs.Pairs, features: np.ndarray,
    steps: tuple[int, ...] = STEPS, *, apart: bool = False,
  ) -> None:  # fmt: skip
    """Takes pairs and features of their texts.

    Args:
      pairs: all of them.
      features: of their texts, [I, D].
      steps: of Adam, after which a head may be taken.
      apart: whether each kind of pair has a part of the head for itself.
    """
    self.pairs, self.features, self.steps = pairs, features, steps
    self.kinds = int(pairs.kind.max()) + 1 if apart else 1

  def seed(self, seed: int, *, control: bool) -> dict[str, Any]:
    """One split: what strengths find, and gaps of held-out pairs.

    Args:
      seed: of the split, the noise, the heads and the control.
      control: whether labels are dealt at random.

    Returns:
      Arrays for `np.savez`, by level: `gaps` of the methods and `tenths` of
      heads of a tenth, [L, M, n] and [L, 10, n]; `baselines` [L, B, n]; `auc`
      of strengths that have seen a pair and that have not, [L, 2]; `wrong` by
      tenth, [L, 10], and `noise`, over all, and `negative`, the share of
      strengths below 0, [L]; and `units` of the held-out pairs [n, 2].
    """
    pairs = self.pairs
    held = voted_pairs.share_of(pairs.names, seed) < 0.25
    test = np.flatnonzero(voted_pairs.within(pairs, held) & pairs.clear)
    others = voted_pairs.within(pairs, ~held)
    sides = pairs.sides
    found: dict[str, list[Any]] = {}
    for number, level in enumerate(LEVELS):
      rng = np.random.default_rng([seed, number])
      natural = level == "a vote"
      enough = pairs.votes[:, :2].sum(axis=1) >= 3
      rows = np.flatnonzero(others & (enough if natural else pairs.clear))
      if not len(rows):  # of single votes none can be drawn
        continue
      rows = np.sort(rng.permutation(rows)[:MOST])
      turned, wrong, known = labelled(pairs.votes[rows], level, rng)
      ordered = np.where(turned[:, None], sides[rows, ::-1], sides[rows])
      if control:
        dealt = rng.random(len(rows)) < 0.5
        ordered = np.where(dealt[:, None], ordered[:, ::-1], ordered)
      parted = voted_pairs.share_of([f"{row}" for row in rows], seed) < 0.2
      level_of = self._level(rows, ordered, parted, wrong, known, test, seed)
      for name, value in level_of.items():
        found.setdefault(name, []).append(value)
    return {
      **{name: np.array(values) for name, values in found.items()},
      "units": pairs.units[test],
    }  # fmt: skip

  def _level(
    self, rows: np.ndarray, ordered: np.ndarray, tune: np.ndarray,
    wrong: np.ndarray, known: np.ndarray, test: np.ndarray, seed: int,
  ) -> dict[str, Any]:  # fmt: skip
    """One noise: texts of pairs as labelled [N, 2], and the rest of `seed`."""
    fit = ~tune
    turn = latent_groups.projection(self.features[np.unique(ordered)], 128)
    wide = turn(self.features)

    def gaps_of(sides: np.ndarray, number: np.ndarray) -> np.ndarray:
      """Features of pairs, in the part of their kind, [n, K D]."""
      gaps = wide[sides[:, 0]] - wide[sides[:, 1]]
      kind = self.pairs.kind[number] if self.kinds > 1 else 0 * number
      own = np.eye(self.kinds, dtype=np.float32)[kind]
      return np.einsum("nk,nd->nkd", own, gaps).reshape(len(gaps), -1)

    apart, asked = (gaps_of(ordered[one], rows[one]) for one in (fit, tune))
    judged = gaps_of(self.pairs.sides[test], test)
    wrong, known = wrong[fit], known[fit]
    size = len(apart)
    padded = -(-size // 256) * 256
    data = jnp.asarray(np.pad(apart, ((0, padded - size), (0, 0))))

    def heads_of(
      seeds: np.ndarray, starts: np.ndarray, prob: np.ndarray,
      margin: np.ndarray, subsets: Sequence[np.ndarray],
    ) -> np.ndarray:  # fmt: skip
      fill = lambda x: np.pad(x, ((0, 0), (0, padded - size)))
      rows = np.stack(
        [
          np.pad(np.flatnonzero(one), (0, padded - one.sum()))
          for one in subsets
        ]
      )
      counts = np.array([one.sum() for one in subsets], np.float32)
      return np.asarray(
        train(
          jnp.asarray(seeds), jnp.asarray(starts, jnp.float32), data,
          jnp.asarray(fill(prob), jnp.float32),
          jnp.asarray(fill(margin), jnp.float32), jnp.asarray(rows),
          jnp.asarray(counts), steps=self.steps,
        )
      )  # fmt: skip

    fold = np.random.default_rng(seed).permutation(size) % FOLDS
    rng = np.random.default_rng([seed, 1])
    starts = rng.normal(0, 0.1, (2 * HEADS, apart.shape[1]))
    every = np.ones(size, bool)
    subsets = [every] * HEADS + [fold != n % FOLDS for n in range(HEADS)]
    flat = np.ones((2 * HEADS, size)), np.zeros((2 * HEADS, size))
    seeds = 1000 * seed + np.arange(2 * HEADS)
    ensemble = heads_of(seeds, starts, *flat, subsets)
    lost = voted_pairs.scaled_loss(np.einsum("nd,smd->smn", asked, ensemble))
    best = ensemble[np.argmin(lost[:, :HEADS].mean(axis=1))]
    margins = best @ apart.T
    strength = np.asarray(
      losses.preference_strength(jnp.asarray(margins[:HEADS])).mean
    )
    folds = np.array([fold == n % FOLDS for n in range(HEADS)])
    unseen = np.mean(
      margins[HEADS:].T[folds.T].reshape(size, HEADS // FOLDS), axis=1
    )
    tenths = [
      np.asarray(
        losses.strength_slice(
          jnp.asarray(strength), low=n / 10, high=(n + 1) / 10
        )
      )
      for n in range(10)
    ]
    targets = told(strength, unseen, wrong & known, seed)
    number = len(METHODS)
    heads = heads_of(
      np.full(number + 10, 1000 * seed + 999),
      np.zeros((number + 10, apart.shape[1])),
      np.array([one.chosen_prob for one in targets] + [np.ones(size)] * 10),
      np.array([one.margin for one in targets] + [np.zeros(size)] * 10),
      [every] * number + tenths,
    )  # fmt: skip
    lost = voted_pairs.scaled_loss(
      np.einsum("nd,smd->smn", asked, heads[:, :number])
    )
    chosen = np.argmin(lost, axis=0)
    kept = heads[chosen, np.arange(number)]
    return {
      "gaps": kept @ judged.T,
      "tenths": heads[chosen[METHODS.index("plain")], number:] @ judged.T,
      "baselines": voted_pairs.baseline_gaps(
        self.pairs, ordered[fit], ordered[tune], self.pairs.sides[test]
      ),
      "auc": [found_by(one, wrong, known) for one in (strength, unseen)],
      "wrong": [wrong[one & known].mean() for one in tenths],
      "noise": wrong[known].mean(), "negative": np.mean(strength < 0),
    }  # fmt: skip


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a source, with features of its texts."""
  name, _, control = row.partition(":")
  pairs = voted_pairs.read(named.data, name)
  study = Study(
    pairs, features_of(named, pairs.texts), apart=control == "apart"
  )
  return lambda seed: study.seed(seed, control=control == "control")


def features_of(
  named: argparse.Namespace, texts: Sequence[tuple[str, str]]
) -> np.ndarray:
  """Features of texts, [I, D]."""
  return text_features.of_texts(
    named.model, texts, layer=LAYER, pooling="mean", cache=named.cache,
    max_length=160, batch_size=8,
    buckets=(16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160),
  ).array()  # fmt: skip


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables and draws the picture."""
  found = {row: strength_tables.Scores(of_row) for row, of_row in runs.items()}
  for row, scores in found.items():
    for table in (
      strength_tables.finding(runs[row]), strength_tables.methods(scores),
      strength_tables.tenths(scores),
    ):  # fmt: skip
      sys.stdout.write("\n".join([row, *table]) + "\n\n")
  table = strength_tables.over_sources(runs, found)
  sys.stdout.write("\n".join(table) + "\n\n")
  if png is not None:
    strength_tables.draw(
      {row: one for row, one in found.items() if "control" not in row}, png
    )
