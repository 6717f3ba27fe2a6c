r"""Hidden units and mixtures of layers against one layer's linear head.

    python docs/tabulate_features.py heads --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/heads

Residents' votes on two Polis conversations. One head for everybody is trained
on three quarters of the people and two thirds of the statements, the rest are
held out by hashes. New people are scored on pairs of statements that training
has met, and on pairs of two that it has not. The heads are the library's
(`head_units`, `mixed_layers`), on features of layers 12, 18 and 24, means over
the statement; a feature is divided by one number for all layers, so that a
mixture stays what it is. Layer, penalty and number of units are chosen inside
the training people and statements, by the likelihood of a quarter of these
people on the pairs of the kind that is scored, under heads of the others,
under two hashes. Gains are paired, their intervals over people, all seeds
together. The control draws all votes anew by a linear head on one layer: there
the others may gain nothing.

Written down before the first run, of differences to one layer's linear head:

1. Met statements: neither hidden units nor a mixture of layers gains 0.01 or
   more on either conversation: 576 features tell statements apart well enough
   for a linear head to give each of them its own reward.
2. New statements: hidden units gain nothing, and the mixture gains less than
   0.01, with an interval that holds 0, on both.
3. In the control no interval is above 0.

The smallest gain that can be shown (two-sided 5 %, power 80 %) is 2.8 standard
errors over people; it stands in the table.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import paired_tables

from jaxalign import models
from jaxalign.data.adapters import base
from jaxalign.data.records import reader
from jaxalign.experiments.reward_model import latent_groups, text_features
from jaxalign.losses import bradley_terry_loss

ROWS = ("bowling-green", "land-bank-farmland", "bowling-green:control")
LAYERS = (12, 18, 24)
UNITS = (8, 32)
PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
STEPS, RATE = 300, 0.03
INNER = 2  # splits by which is chosen
KINDS = ("met", "new")
METHODS = ("one layer", "hidden units", "mixture", "mixture, hidden units")
DRAWS = 2000


class Head(NamedTuple):
  """What reads features: the layers, and hidden units or None."""

  layers: tuple[int, ...]
  units: int | None


CANDIDATES = {
  "one layer": [Head((layer,), None) for layer in LAYERS],
  "hidden units": [Head((layer,), n) for layer in LAYERS for n in UNITS],
  "mixture": [Head(LAYERS, None)],
  "mixture, hidden units": [Head(LAYERS, n) for n in UNITS],
}


class Pairs(NamedTuple):
  """Who prefers which statement: numbers of both, and of the person, [N]."""

  chosen: np.ndarray
  rejected: np.ndarray
  user: np.ndarray

  def of(self, where: np.ndarray) -> "Pairs":
    """Some of them."""
    return Pairs(*(each[where] for each in self))


def held_out(names: Sequence[str], one_in: int, seed: int) -> np.ndarray:
  """One of so many, by a hash of the name alone, bool [n]."""
  return latent_groups.fold_of(names, one_in, seed) == 0


def split(
  pairs: Pairs, people: np.ndarray, statements: np.ndarray
) -> dict[str, np.ndarray]:
  """Pairs to train on and of held-out people by kind, bool [N] each.

  Args:
    pairs: all of them.
    people: who is held out, bool [U].
    statements: which are held out, bool [I].
  """
  sides = statements[pairs.chosen] + 0 + statements[pairs.rejected]
  mine = people[pairs.user]
  return {
    "train": ~mine & (sides == 0),
    "met": mine & (sides == 0),
    "new": mine & (sides == 2),
  }


@functools.lru_cache(maxsize=64)
def _model(head: Head, texts: int, width: int) -> models.Model:
  """The library's network on given features."""
  return models.reward_model(
    models.DecoderConfig(
      vocab_size=1, num_layers=head.layers[-1], num_heads=1, embed_dim=width,
      head_dim=2, mlp_dim=1, num_outputs=1, num_texts=texts,
      mixed_layers=head.layers if len(head.layers) > 1 else None,
      head_units=head.units,
    )
  )  # fmt: skip


def rewards_of(
  head: Head,
  features: dict[int, np.ndarray],
  pairs: Pairs,
  seed: int,
  penalties: Sequence[float],
) -> np.ndarray:
  """Rewards of all texts under heads trained on some pairs, [P, I].

  Args:
    head: what reads.
    features: of the texts by layer, [I, D].
    pairs: to train on.
    seed: of the first parameters.
    penalties: half of each is the price of a squared parameter.
  """
  table = np.concatenate([features[layer] for layer in head.layers], axis=1)
  texts = np.arange(len(table), dtype=np.int32)[:, None]
  model = _model(head, len(table), features[head.layers[0]].shape[1])
  given = {"features": jnp.asarray(table)}
  mask = np.ones(texts.shape, bool)
  params = model.init(jax.random.key(seed), texts[:1], mask[:1])
  params.pop("features")
  return np.asarray(
    _train(
      model.apply, given, params, texts, mask, pairs.chosen, pairs.rejected,
      jnp.asarray(penalties, jnp.float32),
    )
  )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _train(
  apply: Callable[..., models.RewardOutput],
  given: Any,
  start: Any,
  texts: jax.Array,
  mask: jax.Array,
  chosen: jax.Array,
  rejected: jax.Array,
  penalties: jax.Array,
) -> jax.Array:
  """Rewards [P, I] after `STEPS` of Adam on all pairs at a time."""
  rewards = lambda params: apply({**given, **params}, texts, mask).rewards[:, 0]
  rule = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

  def trained(penalty: jax.Array) -> jax.Array:
    def loss(params: Any) -> jax.Array:
      found = rewards(params)
      size = optax.tree.norm(params, squared=True)
      fit = bradley_terry_loss(found[chosen], found[rejected]).mean()
      return fit + 0.5 * penalty * size

    def step(carry: Any, _: None) -> Any:
      params, state = carry
      change, state = rule.update(jax.grad(loss)(params), state, params)
      return (optax.apply_updates(params, change), state), None

    (params, _), _ = jax.lax.scan(
      step, (start, rule.init(start)), None, length=STEPS
    )
    return rewards(params)

  return jax.vmap(trained)(penalties)


def likely(rewards: np.ndarray, pairs: Pairs) -> np.ndarray:
  """Mean log-likelihood of pairs under rewards [P, I], [P]."""
  gaps = rewards[:, pairs.chosen] - rewards[:, pairs.rejected]
  return -np.logaddexp(0, -gaps.astype(np.float64)).mean(axis=1)


def scaled(
  layers: dict[int, np.ndarray], where: np.ndarray
) -> dict[int, np.ndarray]:
  """Features without their mean over some texts, of unit power over layers."""
  centred = {k: v - v[where].mean(axis=0) for k, v in layers.items()}
  every = np.concatenate([v[where] for v in centred.values()])
  power = np.sqrt(np.mean(np.square(every), axis=0)) + 1e-6
  return {k: (v / power).astype(np.float32) for k, v in centred.items()}


class Study:
  """One conversation: pairs, features by layer, and what is fitted on them."""

  def __init__(
    self, judged: latent_groups.Judged, layers: dict[int, np.ndarray]
  ) -> None:
    """Takes what is the same for every seed."""
    self.people = judged.people
    self.names = [text for _, text in judged.texts]
    self.pairs = Pairs(judged.chosen, judged.rejected, judged.user)
    self.layers = layers

  def seed(self, seed: int, *, control: bool) -> dict[str, Any]:
    """One split: what is chosen, and what each head gets right of each person.

    Args:
      seed: of the split, of first parameters and of the control's votes.
      control: whether votes are drawn anew by a linear head on one layer.

    Returns:
      Arrays for `np.savez`: `right` [methods, kinds, U] and `number` [kinds, U]
      count pairs; `layer`, `units` and `penalty` [methods, kinds] are chosen.
    """
    out = held_out(self.people, 4, seed), held_out(self.names, 3, 500 + seed)
    features = scaled(self.layers, ~out[1])
    pairs = self._one_layer(features, seed) if control else self.pairs
    parts = split(pairs, *out)
    tables = self._inner(pairs, parts["train"], out, features, seed)
    shape = len(METHODS), len(KINDS)
    found: dict[str, Any] = {
      "right": np.zeros((*shape, len(self.people))),
      "number": np.zeros((len(KINDS), len(self.people))),
      "layer": np.zeros(shape), "units": np.zeros(shape),
      "penalty": np.zeros(shape),
    }  # fmt: skip
    for k, kind in enumerate(KINDS):
      scored = pairs.of(parts[kind])
      np.add.at(found["number"][k], scored.user, 1)
      for m, method in enumerate(METHODS):
        options = [(head, p) for head in CANDIDATES[method] for p in PENALTIES]
        scores = np.concatenate(
          [tables[head][kind] for head in CANDIDATES[method]]
        )
        head, penalty = options[int(np.argmax(scores))]
        (rewards,) = rewards_of(
          head, features, pairs.of(parts["train"]), seed, (penalty,)
        )
        gaps = rewards[scored.chosen] - rewards[scored.rejected]
        ok = (gaps > 0) + 0.5 * (gaps == 0)
        np.add.at(found["right"][m, k], scored.user, ok)
        found["layer"][m, k] = head.layers[0] if len(head.layers) == 1 else 0
        found["units"][m, k] = head.units or 0
        found["penalty"][m, k] = penalty
    return found

  def _inner(
    self,
    pairs: Pairs,
    train: np.ndarray,
    out: tuple[np.ndarray, np.ndarray],
    features: dict[int, np.ndarray],
    seed: int,
  ) -> dict[Head, dict[str, np.ndarray]]:
    """Log-likelihood by head, kind and penalty inside the training pairs."""
    every = {head for heads in CANDIDATES.values() for head in heads}
    found = {
      head: {kind: np.zeros(len(PENALTIES)) for kind in KINDS} for head in every
    }
    inside = pairs.of(train)
    for inner in range(INNER):
      number = 1000 * (inner + 1) + seed
      parts = split(
        inside,
        held_out(self.people, 4, number) & ~out[0],
        held_out(self.names, 3, 500 + number) & ~out[1],
      )
      for head in sorted(every, key=str):
        rewards = rewards_of(
          head, features, inside.of(parts["train"]), number, PENALTIES
        )
        for kind in KINDS:
          found[head][kind] += likely(rewards, inside.of(parts[kind]))
    return found

  def _one_layer(self, features: dict[int, np.ndarray], seed: int) -> Pairs:
    """The same pairs, each decided by a coin of a linear head on layer 18."""
    (rewards,) = rewards_of(
      Head((LAYERS[1],), None), features, self.pairs, seed, (1e-2,)
    )
    gaps = rewards[self.pairs.chosen] - rewards[self.pairs.rejected]
    stay = np.random.default_rng(seed).random(len(gaps)) < 1 / (
      1 + np.exp(-gaps)
    )
    return Pairs(
      np.where(stay, self.pairs.chosen, self.pairs.rejected),
      np.where(stay, self.pairs.rejected, self.pairs.chosen),
      self.pairs.user,
    )


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
  )  # fmt: skip
  return lambda seed: study.seed(seed, control=kind == "control")


class Compared(NamedTuple):
  """Methods on one kind of pairs.

  Attributes:
    rates: accuracy of each, [methods].
    gains: over the first method, [methods].
    ends: of the 95 % interval of each gain over people, [2, methods].
    least: the smallest gain that can be shown, [methods].
    people: who was scored.
  """

  rates: np.ndarray
  gains: np.ndarray
  ends: np.ndarray
  least: np.ndarray
  people: int


def compared(runs: Sequence[dict[str, Any]], kind: int) -> Compared:
  """All seeds together, people drawn again."""
  right = np.sum([run["right"][:, kind] for run in runs], axis=0)
  number = np.sum([run["number"][kind] for run in runs], axis=0)
  right, number = right[:, number > 0], number[number > 0]
  draws = np.random.default_rng(0).integers(
    0, len(number), (DRAWS, len(number))
  )
  rates = right[:, draws].sum(-1) / number[draws].sum(-1)
  gains = rates - rates[0]
  mean = right.sum(1) / number.sum()
  return Compared(
    mean, mean - mean[0], np.quantile(gains, (0.025, 0.975), axis=1),
    2.8 * gains.std(axis=1), len(number),
  )  # fmt: skip


def lines(runs: dict[str, Sequence[dict[str, Any]]]) -> list[str]:
  """The table, and what was chosen."""
  rows, chosen = [], []
  for row, of_row in runs.items():
    for k, kind in enumerate(KINDS):
      found = compared(of_row, k)
      cells = [
        f"{gain:+.3f} [{low:+.3f}, {high:+.3f}] ({least:.3f})"
        for gain, low, high, least in zip(
          found.gains, *found.ends, found.least, strict=True
        )
      ][1:]
      first = f"{found.rates[0]:.3f}"
      rows.append([row, kind, str(found.people), first, *cells])
      of = lambda name, m, k=k, runs=of_row: " ".join(
        f"{run[name][m, k]:g}" for run in runs
      )
      chosen.append([row, kind, of("layer", 0), of("layer", 1), of("units", 1)])
  head = ["", "statements", "people", METHODS[0], *METHODS[1:]]
  layers = ["", "statements", "layer", "layer of hidden units", "units"]
  return [
    *paired_tables.table(head, rows),
    *paired_tables.table(layers, chosen),
  ]


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables; there is no picture."""
  del png
  sys.stdout.write("\n".join(lines(runs)) + "\n")
