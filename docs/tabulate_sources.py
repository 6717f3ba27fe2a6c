r"""MORE on real sources: how to weigh sources, by a head on frozen features.

    python docs/tabulate_features.py sources --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/sources --png=sources.png

Five sources that want different things (helpful and harmless answers, answers
to instructions, long answers, summaries), and three qualities of an argument on
the same pairs (webis, the table `qualities`). A linear head reads the mean over
a response of a frozen language model at one layer, in 128 principal directions.
Each seed holds out a quarter of the prompts by a hash, and a fifth of the
others tells how many of up to 1,600 steps of Adam (16 pairs per source, rate
0.003) are best, for each method by itself. All methods see the same pairs in
the same order.

Written down before the run. The paper (Zeng et al., 2024, table 2) claims of
min-norm weights against a mixture of the sources: (1) a calibration error lower
by 0.006 to 0.018 over five sources; (2) an accuracy no lower, by -0.6 to +1.0
points; (3) averaging the rewards of single models loses 7 to 17 points; and, of
figure 6, (4) that calibration on helpful and harmless falls as sources join,
from two to five. The smallest effects that can be shown (two-sided 5 %, power
80 %) are 2.8 standard errors over prompts, expected at 0.02 in accuracy and
0.015 in calibration for methods whose heads differ little; the table prints
what it came to. The layer, 18, is that of a study of other people and texts.
Control: the names of the sources are dealt out at random, so that there is no
conflict to solve; no method may gain.

Written down after two and three sources had run and before four, five and the
qualities: (5) under "l2" the source whose gradient has the lowest mean cosine
with the others gets the largest λ, and the highest the smallest, in every set;
(6) scores of the three qualities correlate at 0.92 by their authors, so their
gradients agree, all cosines above 0.2, and no way to weigh them differs from
equal weights by 0.01 in accuracy or calibration. A topic is a prompt there and
there are 17, so that less than about 0.03 cannot be shown against chance of
topics, though differences of heads that agree are smaller than that.
"""

import argparse
import dataclasses
import functools
import hashlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import source_tables
import words_and_length

from jaxalign import losses
from jaxalign.data.records import reader
from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines
from jaxalign.experiments.reward_model import latent_groups, text_features

SOURCES = (
  "hh_helpful", "hh_harmless", "pandalm", "qa_feedback", "cnndm_summaries",
)  # fmt: skip
QUALITIES = ("webis_rhetorical", "webis_logical", "webis_dialectical")
MOST = 400  # pairs of a source; all of the three qualities
LAYER, BATCH, RATE = 18, 16, 0.003
STEPS = (25, 50, 100, 200, 400, 800, 1600)
SETS = {
  "two": SOURCES[:2], "three": SOURCES[:3], "four": SOURCES[:4],
  "five": SOURCES, "webis": QUALITIES,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Pairs as numbers: texts, source and prompt.

  Attributes:
    records: the preferred response first.
    sides: text of each side, int [N, 2].
    source: number in `names`, int [N].
    prompt: number of the prompt, int [N].
    names: of the sources.
    texts: (prompt, response), [I].
  """

  records: list[Record]
  sides: np.ndarray
  source: np.ndarray
  prompt: np.ndarray
  names: tuple[str, ...]
  texts: list[tuple[str, str]]


def _share(text: str, seed: int) -> float:
  """A number in [0, 1) that a text and a seed decide."""
  digest = hashlib.sha256(f"{seed}|{text}".encode()).digest()
  return int.from_bytes(digest[:6]) / 2**48


def chosen_by(share: np.ndarray, held: np.ndarray) -> np.ndarray:
  """Pairs that tell the number of steps: a fifth of prompts, one at least.

  Args:
    share: of each pair's prompt, in [0, 1), [N].
    held: pairs of prompts that are held out, bool [N].

  Returns:
    bool [N], also of held-out prompts.
  """
  return (
    share < 0.2 if (share[~held] < 0.2).any() else share == share[~held].min()
  )


def read(folder: str, names: Sequence[str]) -> Pairs:
  """The pairs of some sources, ties left out.

  Args:
    folder: with a folder per source.
    names: of sources.

  Returns:
    Of each source the pairs of prompts that a hash names first.
  """
  records: list[Record] = []
  for name in names:
    spec = f"{folder}/{name}/pairs_*"
    if name in QUALITIES:
      spec = f"{folder}/webis_argquality/comparisons_*"
    mine = [
      one
      for one in reader.RecordStream([spec], only_sources=(name,))
      if one.target_prob != 0.5
    ]
    mine.sort(
      key=lambda one: hashlib.sha256(text_of(one.prompt).encode()).digest()
    )
    records += mine[:MOST] if name in SOURCES else mine
  texts: dict[tuple[str, str], int] = {}
  prompts: dict[str, int] = {}
  sides, source, prompt, ordered = [], [], [], []
  for record in records:
    if record.target_prob < 0.5:
      record = dataclasses.replace(
        record, responses=record.responses[1::-1], chosen_prob=1.0
      )
    asked = text_of(record.prompt)
    sides.append(
      [
        texts.setdefault((asked, text_of(one)), len(texts))
        for one in record.responses[:2]
      ]
    )
    source.append(names.index(str(record.source)))
    prompt.append(prompts.setdefault(asked, len(prompts)))
    ordered.append(record)
  return Pairs(
    ordered, np.array(sides), np.array(source), np.array(prompt),
    tuple(names), [*texts],
  )  # fmt: skip


def source_weights(
  method: str, gradients: jax.Array, means: jax.Array
) -> jax.Array:
  """λ [K] of a method, for head gradients [K, D] and mean losses [K]."""
  if method.startswith("min_norm"):
    normalise = method.split()[1]
    return losses.more_weights(
      gradients,
      normalise=normalise,
      losses=means if normalise.startswith("loss") else None,
    )
  if method == "pcgrad":
    return losses.pcgrad_weights(gradients)
  if method == "cagrad":
    return losses.cagrad_weights(gradients)
  return jnp.full(len(gradients), 1 / len(gradients))


def head_gradients(
  head: jax.Array, apart: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Gradients in the head [K, D] and mean losses [K] of pairs [K, B, D]."""
  gaps = jnp.einsum("kbd,d->kb", apart, head, precision="highest")
  miss = jax.nn.sigmoid(-gaps)
  gradients = -jnp.einsum("kb,kbd->kd", miss, apart, precision="highest")
  return gradients / gaps.shape[1], jnp.mean(jax.nn.softplus(-gaps), axis=1)


@functools.partial(jax.jit, static_argnames=("method", "batch"))
def train(
  method: str, apart: jax.Array, counts: jax.Array, seed: int, batch: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Adam on pairs of K sources under a method.

  Args:
    method: one of `source_tables.METHODS` that trains on all sources.
    apart: features of the preferred minus the other text, [K, N, D].
    counts: pairs of each source, [K].
    seed: of the batches.
    batch: pairs of each source in a step.

  Returns:
    The head after each of `STEPS`, [S, D]; and, as means over all steps, λ [K]
    and the cosines between the sources' gradients [K, K].
  """
  sources = len(apart)
  number = jnp.arange(sources)
  adam = optax.adam(RATE)

  def step(
    carry: Any, at: tuple[jax.Array, jax.Array]
  ) -> tuple[Any, jax.Array]:
    head, state, sums = carry
    now, step_key = at
    drawn = jax.random.uniform(step_key, (sources, batch))
    rows = jnp.floor(drawn * counts[:, None]).astype(jnp.int32)
    gradients, means = head_gradients(head, apart[number[:, None], rows])
    weights = source_weights(method, gradients, means)
    if method == "sequential":
      weights = (number == now * sources // STEPS[-1]).astype(head.dtype)
    seen = losses.more_diagnostics(gradients, weights)
    with jax.numpy_dtype_promotion("standard"):  # as optax counts steps
      updates, state = adam.update(weights @ gradients, state)
    sums = jax.tree.map(jnp.add, sums, (weights, seen.cosines))
    head = optax.apply_updates(head, updates)
    return (head, state, sums), head

  head = jnp.zeros(apart.shape[2])
  zeros = jnp.zeros(sources), jnp.zeros((sources, sources))
  steps = (
    jnp.arange(STEPS[-1]),
    jax.random.split(jax.random.key(seed), STEPS[-1]),
  )
  (_, _, sums), heads = jax.lax.scan(
    step, (head, adam.init(head), zeros), steps
  )
  weights, cosines = jax.tree.map(lambda x: x / STEPS[-1], sums)
  return heads[jnp.array(STEPS) - 1], weights, cosines


def stacked(
  apart: np.ndarray, source: np.ndarray, number: int
) -> tuple[jax.Array, jax.Array]:
  """Pairs [N, D] by source, [K, most, D], and how many each has, [K]."""
  counts = np.bincount(source, minlength=number)
  found = np.zeros((number, -(-counts.max() // 256) * 256, apart.shape[1]))
  for k in range(number):
    found[k, : counts[k]] = apart[source == k]
  return jnp.asarray(found, jnp.float32), jnp.asarray(counts, jnp.float32)


def best_step(
  heads: np.ndarray, apart: np.ndarray, source: np.ndarray
) -> np.ndarray:
  """The head [D] under which the mean over sources of the loss is least."""
  lost = np.logaddexp(0, -apart @ heads.T)
  each = [lost[source == k].mean(axis=0) for k in np.unique(source)]
  found: np.ndarray = heads[np.argmin(np.mean(each, axis=0))]
  return found


class Study:
  """Some sources: their pairs and the features of their texts."""

  def __init__(self, pairs: Pairs, features: np.ndarray) -> None:
    """Takes pairs, and features of their texts [I, D]."""
    self.pairs = pairs
    self.features = features

  def seed(
    self, seed: int, names: Sequence[str], methods: Sequence[str],
    *, control: bool,
  ) -> dict[str, Any]:  # fmt: skip
    """One split: gaps of held-out pairs under every method.

    Args:
      seed: of the split, of batches and of the control.
      names: sources that take part.
      methods: that are trained; the others' gaps are NaN.
      control: whether names of sources are dealt out at random.

    Returns:
      Arrays for `np.savez`: `gaps` by method [M, n] of held-out pairs, their
      `source` and `prompt`, and λ and cosines of each method.
    """
    pairs = self.pairs
    there = np.isin(pairs.source, [pairs.names.index(one) for one in names])
    asked = [text_of(one.prompt) for one in pairs.records]
    held = np.array([_share(one, seed) < 0.25 for one in asked])
    told = chosen_by(
      np.array([_share(one, 1000 + seed) for one in asked]), held
    )
    test, tune, fit = (
      np.flatnonzero(there & which)
      for which in (held, ~held & told, ~held & ~told)
    )
    used = np.unique(pairs.sides[np.concatenate([fit, tune])])
    turn = latent_groups.projection(self.features[used], 128)(self.features)
    apart = turn[pairs.sides[:, 0]] - turn[pairs.sides[:, 1]]
    source = np.searchsorted(np.unique(pairs.source[there]), pairs.source)
    dealt = source.copy()
    if control:
      both = np.concatenate([fit, tune])
      dealt[both] = np.random.default_rng(seed).permutation(dealt[both])
    number = len(names)
    ordered = lambda rows: (apart[rows], dealt[rows])
    data = stacked(*ordered(fit), number)
    gaps, weights, cosines = {}, {}, {}
    for method in methods:
      given, batch = data, BATCH
      if method == "proportional":
        given, batch = stacked(apart[fit], 0 * dealt[fit], 1), BATCH * number
      heads, weight, cosine = jax.device_get(train(method, *given, seed, batch))
      gaps[method] = apart[test] @ best_step(heads, *ordered(tune))
      weights[method], cosines[method] = weight, cosine
    missing = np.full(len(test), np.nan)
    singles = []
    for k in range(number):
      mine, others = fit[dealt[fit] == k], tune[dealt[tune] == k]
      heads, _, _ = jax.device_get(
        train(
          "single", *stacked(apart[mine], 0 * mine, 1), seed, BATCH * number
        )
      )
      singles.append(best_step(heads, apart[others], 0 * others))
    every = apart[test] @ np.array(singles).T
    gaps["single"] = every[np.arange(len(test)), source[test]]
    gaps["averaging"] = every.mean(axis=1)
    gaps |= self._baselines(fit, tune, test, source)
    return {
      "gaps": np.array([gaps.get(m, missing) for m in source_tables.NAMES]),
      "source": source[test], "prompt": pairs.prompt[test],
      "weights": np.array([weights.get(m, np.full(number, np.nan))
                           for m in source_tables.WEIGHED]),
      "cosines": cosines["uniform"],
    }  # fmt: skip

  def _baselines(
    self, fit: np.ndarray, tune: np.ndarray, test: np.ndarray,
    source: np.ndarray,
  ) -> dict[str, np.ndarray]:  # fmt: skip
    """Length, words, and both, of each source by itself."""
    pairs = self.pairs
    sizes = np.log1p([len(text) for _, text in pairs.texts])
    longer = sizes[pairs.sides[:, 0]] - sizes[pairs.sides[:, 1]]
    found = {name: np.zeros(len(test)) for name in source_tables.BASELINES}
    found["always longer"] = longer[test]
    take = lambda rows: [pairs.records[row] for row in rows]
    for k in np.unique(source[test]):
      mine, others, asked = (
        rows[source[rows] == k] for rows in (fit, tune, test)
      )
      words = baselines.BagOfWords.fit(take(mine))
      gaps = words.gaps(take([*others, *asked]))
      here = source[test] == k
      found["bag of words"][here] = gaps[len(others) :]
      both = words_and_length.together(
        gaps, longer[[*others, *asked]], np.arange(len(others))
      )
      found["bag of words + length"][here] = both[len(others) :]
    return found


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a set of sources, with features of their texts."""
  names, control = SETS[row.partition(":")[0]], row.endswith(":control")
  pairs = read(named.data, names)
  found = text_features.of_texts(
    named.model, pairs.texts, layer=LAYER, pooling="mean", cache=named.cache,
    max_length=160, batch_size=8, buckets=(48, 64, 80, 96, 112, 128, 144, 160),
  )  # fmt: skip
  study = Study(pairs, found.array())
  methods = source_tables.METHODS[:-2]
  if row in ("two", "four"):
    methods = source_tables.FEW
  return lambda seed: study.seed(seed, names, methods, control=control)


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables and draws the picture."""
  found = {row: source_tables.Scores(of_row) for row, of_row in runs.items()}
  for row, scores in found.items():
    names = SETS[row.partition(":")[0]]
    tables = [
      source_tables.lines(scores),
      source_tables.by_source(scores, names),
      source_tables.conflicts(runs[row], names),
    ]
    for table in tables:
      sys.stdout.write("\n".join([row, *table]) + "\n\n")
  sys.stdout.write("\n".join(source_tables.joining(found)) + "\n\n")
  if png is not None:
    most = max(
      (row for row in found if ":" not in row),
      key=lambda row: (len(SETS[row]), row),
    )
    source_tables.draw(found[most], png)
