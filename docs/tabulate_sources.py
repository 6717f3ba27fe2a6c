r"""MORE on real sources: how to weigh sources, by a head on frozen features.

    python docs/tabulate_sources.py --model=FOLDER --data=$JAXALIGN_DATA \
        --workdir=runs/sources_study --png=sources.png

Five sources that want different things (helpful and harmless answers, answers
to instructions, long answers, summaries), and three qualities of an argument on
the same pairs (webis). A linear head reads the mean over a response of a frozen
language model at one layer, in 128 principal directions. Each seed holds out a
quarter of the prompts by a hash, and a fifth of the others tells how many of up
to 1,600 steps of Adam (16 pairs per source, rate 0.003) are best, for each
method by itself. All methods see the same pairs in the same order.

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

Seeds that are done are kept in the workdir; the same command goes on.
"""

import argparse
import dataclasses
import functools
import hashlib
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import source_tables

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
BATCH, RATE = 16, 0.003
STEPS = (25, 50, 100, 200, 400, 800, 1600)
SETS = {
  "two": SOURCES[:2], "three": SOURCES[:3], "four": SOURCES[:4],
  "five": SOURCES, "three:control": SOURCES[:3], "five:control": SOURCES,
  "webis": QUALITIES,
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
    told = np.array([_share(one, 1000 + seed) < 0.2 for one in asked])
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
      both = np.stack([gaps, longer[[*others, *asked]]], axis=1)
      scale = both[: len(others)].std(axis=0) + 1e-9
      weights = _logistic(both[: len(others)] / scale)
      found["bag of words + length"][here] = (both / scale)[
        len(others) :
      ] @ weights
    return found


def _logistic(apart: np.ndarray) -> np.ndarray:
  """Weights [D] of Bradley-Terry on pairs [N, D], with a penalty of one."""
  weights = np.zeros(apart.shape[1])
  for _ in range(30):
    miss = 1 / (1 + np.exp(apart @ weights))
    hessian = (apart.T * (miss * (1 - miss))) @ apart + np.eye(len(weights))
    weights += np.linalg.solve(hessian, apart.T @ miss - weights)
  return weights


def main() -> None:
  """Runs what is not there yet, prints the tables and draws the picture."""
  parser = argparse.ArgumentParser()
  parser.add_argument("sets", nargs="*", default=[*SETS])
  parser.add_argument("--model", required=True)
  parser.add_argument("--data", required=True)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--cache")
  parser.add_argument("--layer", type=int, default=18)
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--png", type=pathlib.Path)
  named = parser.parse_args()
  named.workdir.mkdir(parents=True, exist_ok=True)
  found, studies = {}, {}
  for name in named.sets:
    names, control = SETS[name], name.endswith(":control")
    files = [
      named.workdir / f"{name.replace(':', '_')}_{seed}.npz"
      for seed in range(named.seeds)
    ]
    for seed, file in enumerate(files):
      if not file.exists():
        if names not in studies:
          studies[names] = _load(named, names)
        methods = source_tables.METHODS[:-2]
        if name in ("two", "four"):
          methods = source_tables.FEW
        run = studies[names].seed(seed, names, methods, control=control)
        np.savez(file, **run)
        sys.stderr.write(f"{file.name}\n")
    runs = [dict(np.load(file)) for file in files]
    found[name] = source_tables.Scores(runs)
    tables = [
      source_tables.lines(found[name]),
      source_tables.by_source(found[name], names),
    ]
    tables.append(source_tables.conflicts(runs, names))
    for table in tables:
      sys.stdout.write("\n".join([name, *table]) + "\n\n")
  sys.stdout.write("\n".join(source_tables.joining(found)) + "\n")
  if named.png is not None:
    most = max(
      (name for name in found if name in ("three", "five")),
      key=lambda name: len(SETS[name]),
    )
    source_tables.draw(found[most], named.png)


def _load(named: argparse.Namespace, names: Sequence[str]) -> Study:
  """Pairs of some sources with features of their texts."""
  pairs = read(named.data, names)
  found = text_features.of_texts(
    named.model, pairs.texts, layer=named.layer, pooling="mean",
    cache=named.cache or str(named.workdir / "features"), max_length=160,
    batch_size=8, buckets=(48, 64, 80, 96, 112, 128, 144, 160),
  )  # fmt: skip
  return Study(pairs, found.array())


if __name__ == "__main__":
  main()
