r"""A shift of texts: contrastive views and a look ahead on real pairs.

    python docs/tabulate_features.py shift --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/shift

A reward head of 64 tanh units on frozen features, the mean over a text of layer
18 in 128 principal directions, learns from pairs of one kind and is judged on
another: helpful answers and then harmless ones (HH), jokes and jokes it has not
seen (1,500 of humour), arguments of some of seven debates and of others
(convarg). Pairs of humour and convarg have a label that at least four fifths of
three votes or more agree on; of HH there are 400 of each kind. Two fifths of
the jokes or debates are not trained on; half of the texts (in HH of the
prompts) there are for the look ahead, without labels, the other half is judged.
A quarter of the helpful prompts, and of the jokes or arguments at hand, is held
out too, to judge without a shift. At most 3,000 pairs are trained on, 32 in a
step of Adam (rate 0.003, at most 1,600); a fifth of them tells how many steps
are best, for each method by itself. All methods start at the same numbers and
see the same pairs in the same order.

Two views are two draws of which twentieth of the features is dropped, and
Bradley-Terry is taken of both; "two views" has the weight 0. SimCSE finds a
text, or a difference, by its other view (temperature 0.05, weight 1), SwAV by
prototypes (50, weight 0.1), both on the 64 units that the reward reads. MetaRM
steps to where rewards of the two texts of 32 pairs without labels differ more,
along Adam's direction at the rate of the optimiser or ten times that, and takes
the gradient there; "none" is the same program with a step of 0.

Written down before the run. The paper (Wang et al., 2024): SimCSE on pairs
makes the best of its policies; MetaRM keeps the accuracy where it was trained
and tells responses under a shift apart. Claimed here:

1. Under a shift SimCSE on pairs is above two views by 0.01 or more, as a mean
   of the three sources.
2. MetaRM is within 0.01 of none without a shift and above it by 0.01 or more
   under one; the rewards of shifted pairs lie further apart, by its own
   measure.
3. Trained on helpful answers, every method is below chance on harmless ones:
   one head for both was at chance, and here none is told of the other.
4. The control deals labels at random: every method is at chance. A step of 0 is
   plain training bit for bit.

The smallest effects that can be shown, 2.8 standard errors over prompts, jokes
or arguments of a paired difference, are expected at 0.03 on HH (200 pairs a
seed) and convarg and 0.05 on humour; the table prints what it came to. Debates
are seven, of which three are judged in a seed: chance of debates is not in the
intervals.
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
import shift_tables
import tabulate_strength
import voted_pairs
from shift_tables import METHODS

from jaxalign import losses
from jaxalign.experiments.reward_model import latent_groups

BATCH, RATE, UNITS, DROPPED, MOST = 32, 0.003, 64, 0.05, 3000
STEPS = (25, 50, 100, 200, 400, 800, 1600)
ROWS = ("hh", "humour", "convarg", "hh:control", "humour:control")
Head = dict[str, jax.Array]


def start(width: int, seed: int) -> Head:
  """A head of tanh units on features of a width, and prototypes."""
  keys = jax.random.split(jax.random.key(seed), 3)
  return {
    "in": jax.random.normal(keys[0], (width, UNITS)),
    "bias": jnp.zeros(UNITS),
    "out": jax.random.normal(keys[1], (UNITS,)) / UNITS**0.5,
    "prototypes": jax.random.normal(keys[2], (50, UNITS)),
  }


def units_of(head: Head, features: jax.Array) -> jax.Array:
  """What the reward reads of features [..., D], [..., UNITS]."""
  before = features @ head["in"]
  return jnp.tanh(before + jnp.broadcast_to(head["bias"], before.shape))


def rewards(head: Head, features: jax.Array) -> jax.Array:
  """Rewards of texts with features [..., D]."""
  return units_of(head, features) @ head["out"]


def cost_of(
  method: str, head: Head, chosen: jax.Array, rejected: jax.Array,
  key: jax.Array,
) -> jax.Array:  # fmt: skip
  """Mean loss of pairs with features [B, D] each, of views where it has some.

  Args:
    method: one of `METHODS`.
    head: see `start`.
    chosen: features of the preferred texts.
    rejected: of the others.
    key: of what is dropped.
  """
  if method not in shift_tables.VIEWED:
    lost = losses.bradley_terry_loss(
      rewards(head, chosen), rewards(head, rejected)
    )
    return jnp.mean(lost)
  kept = jax.random.bernoulli(key, 1 - DROPPED, (2, 2, *chosen.shape))
  sides = jnp.stack([chosen, rejected])[None] / (1 - DROPPED)
  sides = jnp.where(kept, sides, 0.0)
  units = units_of(head, sides)  # view, side, pair
  scores = units @ head["out"]
  ranked = jnp.mean(losses.bradley_terry_loss(scores[:, 0], scores[:, 1]))
  if method == "two views":
    return ranked
  rows = losses.difference_rows if "differences" in method else losses.pair_rows
  first, second = (rows(*view) for view in units)
  if "SwAV" in method:
    found = losses.swav_loss(first, second, head["prototypes"])
    return ranked + 0.1 * jnp.mean(found)
  return ranked + jnp.mean(losses.simcse_loss(first, second))


@functools.partial(jax.jit, static_argnames=("method", "steps"))
def train(
  method: str, head: Head, pairs: jax.Array, count: jax.Array,
  ahead: jax.Array, others: jax.Array, seed: jax.Array,
  *, steps: tuple[int, ...] = STEPS,
) -> Head:  # fmt: skip
  """Adam on pairs under a method.

  Args:
    method: one of `METHODS`.
    head: to start from.
    pairs: features of the preferred text and of the other, [N, 2, D], of which
      the first are pairs.
    count: how many these are.
    ahead: the same of pairs without labels, [M, 2, D].
    others: how many these are.
    seed: of the batches.
    steps: after which heads are kept.

  Returns:
    Heads after each of `steps`, a leading axis.
  """
  adam = optax.adam(RATE)

  def step(carry: Any, at: Any) -> tuple[Any, Head]:
    head, state = carry
    drawn, key = at
    seen = pairs[jnp.floor(drawn[0] * count).astype(jnp.int32)]
    cost = lambda head: cost_of(method, head, seen[:, 0], seen[:, 1], key)
    if method in shift_tables.LOOKING:
      fresh = ahead[jnp.floor(drawn[1] * others).astype(jnp.int32)]
      direction = functools.partial(
        losses.adam_precondition, second_moment=state[0].nu,
        count=state[0].count,
      )  # fmt: skip
      _, gradient = losses.lookahead_gradient(
        cost, lambda head: jnp.mean(losses.reward_spread(rewards(head, fresh))),
        head, step_size=RATE * shift_tables.LOOKING[method],
        precondition=direction,
      )  # fmt: skip
    else:
      gradient = jax.grad(cost)(head)
    with jax.numpy_dtype_promotion("standard"):  # as optax counts steps
      updates, state = adam.update(gradient, state)
    head = optax.apply_updates(head, updates)
    return (head, state), head

  keys = jax.random.split(jax.random.key(seed), steps[-1] + 1)
  drawn = jax.random.uniform(keys[-1], (steps[-1], 2, BATCH))
  _, heads = jax.lax.scan(step, (head, adam.init(head)), (drawn, keys[:-1]))
  return jax.tree.map(lambda x: x[jnp.array(steps) - 1], heads)


def parted(pairs: voted_pairs.Pairs, name: str, seed: int) -> list[np.ndarray]:
  """Pairs to train on, to judge without a shift, to look ahead, to judge.

  Args:
    pairs: all of them.
    name: of the source.
    seed: of the split.

  Returns:
    Numbers of pairs, four times.
  """
  share = voted_pairs.share_of(pairs.names, seed)
  half = voted_pairs.share_of(pairs.names, 1000 + seed) < 0.5
  if name == "hh":
    there = pairs.kind == 0
  elif name == "convarg":
    debates = [f"debate {k}" for k in range(int(pairs.kind.max()) + 1)]
    rank = np.argsort(np.argsort(voted_pairs.share_of(debates, seed)))
    there = rank[pairs.kind] >= 0.4 * len(debates)
  else:
    there = voted_pairs.within(pairs, share >= 0.4)
  away = voted_pairs.within(pairs, share < 0.4) if name == "humour" else ~there
  # Shares of jokes at hand begin at 0.4.
  spared = share < (0.4 + 0.25 * 0.6 if name == "humour" else 0.25)
  clear = pairs.clear
  found = (
    clear & there & voted_pairs.within(pairs, ~spared),
    clear & there & voted_pairs.within(pairs, spared),
    away & voted_pairs.within(pairs, half),  # no vote decides
    clear & away & voted_pairs.within(pairs, ~half),
  )
  return [np.flatnonzero(one) for one in found]


class Study:
  """Pairs of a source, and features of their texts."""

  def __init__(
    self, name: str, pairs: voted_pairs.Pairs, features: np.ndarray,
    steps: tuple[int, ...] = STEPS,
  ) -> None:  # fmt: skip
    """Takes a name, pairs, features of texts [I, D] and numbers of steps."""
    self.name, self.pairs, self.features = name, pairs, features
    self.steps = steps

  def seed(self, seed: int, *, control: bool) -> dict[str, Any]:
    """One split: gaps of pairs with and without a shift, by method.

    Args:
      seed: of the split, the heads and the control.
      control: whether labels are dealt at random.

    Returns:
      Arrays for `np.savez`: `gaps` [M, n], `spread` of rewards by MetaRM's
      measure [M, n], `baselines` [B, n], `units` [n, 2] and `shifted` [n].
    """
    pairs, rng = self.pairs, np.random.default_rng(seed)
    trained, near, ahead, far = parted(pairs, self.name, seed)
    trained = rng.permutation(trained)[:MOST]
    sides = pairs.sides[trained]
    if control:
      dealt = rng.random(len(sides)) < 0.5
      sides = np.where(dealt[:, None], sides[:, ::-1], sides)
    tune, fit = sides[: len(sides) // 5], sides[len(sides) // 5 :]
    turn = latent_groups.projection(self.features[np.unique(sides)], 128)
    wide = turn(self.features)
    # Which side was preferred says nothing to a look ahead.
    fresh = pairs.sides[rng.permutation(ahead)[:MOST]]
    judged = np.concatenate([near, far])
    seen = jnp.asarray(wide[pairs.sides[judged]])
    told = jnp.asarray(wide[tune])
    begin = start(wide.shape[1], seed)
    gaps, spread = [], []
    for method in METHODS:
      heads = train(
        method, begin, jnp.asarray(_filled(wide[fit])),
        jnp.float32(len(fit)), jnp.asarray(_filled(wide[fresh])),
        jnp.float32(len(fresh)), jnp.int32(seed), steps=self.steps,
      )  # fmt: skip
      both = jax.vmap(rewards, in_axes=(0, None))
      lost = np.asarray(both(heads, told))
      best = np.argmin(voted_pairs.scaled_loss(lost[..., 0] - lost[..., 1]))
      scores = rewards(jax.tree.map(lambda x, best=best: x[best], heads), seen)
      gaps.append(np.asarray(scores[:, 0] - scores[:, 1]))
      spread.append(np.asarray(losses.reward_spread(scores)))
    return {
      "gaps": np.array(gaps), "spread": np.array(spread),
      "baselines": voted_pairs.baseline_gaps(
        pairs, fit, tune, pairs.sides[judged]
      ),
      "units": pairs.units[judged],
      "shifted": np.arange(len(judged)) >= len(near),
    }  # fmt: skip


def _filled(features: np.ndarray) -> np.ndarray:
  """Features of pairs [N, 2, D] with zeros after them, `MOST` in all."""
  return np.pad(features, ((0, MOST - len(features)), (0, 0), (0, 0)))


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a source, with features of its texts."""
  name, _, control = row.partition(":")
  pairs = voted_pairs.read(named.data, name)
  study = Study(name, pairs, tabulate_strength.features_of(named, pairs.texts))
  return lambda seed: study.seed(seed, control=control == "control")


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables; there is no picture."""
  del png
  found = {row: shift_tables.Scores(of_row) for row, of_row in runs.items()}
  for row, scores in found.items():
    sys.stdout.write("\n".join([row, *shift_tables.lines(scores)]) + "\n\n")
  sys.stdout.write("\n".join(shift_tables.over_sources(found)) + "\n\n")
  every = {row: one for row, one in found.items() if ":" not in row}
  sys.stdout.write("\n".join(shift_tables.means(every)) + "\n\n")
