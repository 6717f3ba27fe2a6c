r"""DPRM on real crowds: how to learn the labels that many people give a text.

    python docs/tabulate_features.py labels --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/labels --png=labels.png

DICES: replies of a chatbot that 70 to 123 raters each called safe, unsafe or
were unsure of (utilities 1, -1 and 0). Humour and convarg: 1,500 jokes, and the
arguments of seven debates, that people compared two by two; each vote is a win
of one text and a loss of the other (1 and -1), and in convarg may be even (0).
Vader: 1,200 snippets of reviews, the nine marks of about 20 raters joined into
five labels (1 to -1). A hash says which jokes, debates and snippets.

A linear head on frozen features, the mean over the text of layer 18 in 128
principal directions, predicts the shares of the labels, by optimal transport
with some cross-entropy, by the exact transport on the line of utilities, or by
cross-entropy alone; or it gives one reward, by Bradley-Terry on pairs of texts,
the one preferred whose votes are better on average. Training texts have 1, 3,
10 or 50 votes each (or half of the votes, where that is less), as they are,
with a prior of two votes at the mean shares of the training texts, with
targeted smoothing of 0.1, and with both. A quarter of the texts is held out in
each seed and judged by votes that nothing is trained on: another half of the
raters, in convarg half of the people, in humour half of the votes. A fifth of
the others tells how many of up to 400 steps of Adam are best, for each method
by its own loss; a head begins at the mean shares of its texts. The layer is
that of a study of other people and texts.

Written down before the run. The paper (Li et al., 2024) claims that transport
learns a crowd's shares better than cross-entropy, and that the posterior with a
prior and the smoothing help. Claimed here, of held-out texts:

1. Transport is nearer to the crowd on the line than cross-entropy by 0.01 or
   more at 1 and 3 votes, and its expected utility too; at 50 they are alike.
2. Exact transport on the line is like transport, within 0.01.
3. The prior brings all of them nearer by 0.01 or more at one vote, and changes
   less than 0.005 at 50. Smoothing does the same, less.
4. Expected utilities rank texts no worse than Bradley-Terry at every number
   of votes, and better at 1.
5. The control deals the votes out over the texts: nobody is nearer to the
   crowd than the mean shares of the training texts.
6. Where there are two labels (humour) transport knows no more than
   cross-entropy: its lead at one vote is larger on vader, which has five.
7. The head ranks texts better than a bag of words with length by 0.02 or more
   at the most votes, but for arguments, whose length says most.

Written down after DICES 350 had run: heads began at equal shares and took at
least 25 steps, after which all were further from the crowd than its mean
shares, so that what differed was how fast each overfits. Since then they begin
at the mean shares and may stay there; the claims stand as they are.

The smallest effects that can be shown, 2.8 standard errors over texts of a
paired difference, are expected at 0.02 of 2 on the line with 76 to 115 texts a
seed (DICES 350, convarg), 0.015 with 200 to 340 (DICES 990, vader, humour); the
table prints what it came to.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import crowd_labels
import jax
import jax.numpy as jnp
import label_tables
import numpy as np
import optax
import voted_pairs
import words_and_length
from crowd_labels import counted
from label_tables import LOSSES, TREATED

from jaxalign import losses
from jaxalign.algorithms import dprm
from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines
from jaxalign.experiments.reward_model import latent_groups, text_features

LAYER, RATE = 18, 0.03
STEPS = (3, 6, 12, 25, 50, 100, 200, 400)
OTHERS = 8  # replies that each is compared with
ROWS = (
  "dices350", "dices990", "humour", "convarg", "vader", "dices350:control",
  "humour:control",
)  # fmt: skip


@functools.cache
def config_of(loss: str, utilities: tuple[float, ...]) -> dprm.DprmConfig:
  """The recipe for labels of some utilities."""
  names = tuple(f"label {k}" for k in range(len(utilities)))
  labels = dprm.LabelsConfig(names, utilities, None, None)
  with jax.ensure_compile_time_eval():  # also where a loss is being traced
    return dprm.DprmConfig("dprm", labels, loss)


def targets(
  counts: np.ndarray, fit: np.ndarray, utilities: tuple[float, ...]
) -> np.ndarray:
  """What a head is taught, under each of `TREATED`, [T, N, d].

  Args:
    counts: votes, [N, d].
    fit: replies whose mean shares are the prior, numbers.
    utilities: of the labels.
  """
  given = jnp.asarray(counts, jnp.float32)
  prior = np.mean(counts[fit] / counts[fit].sum(1, keepdims=True), axis=0)
  cost = config_of(LOSSES[0], utilities).labels.label_set().cost
  found = []
  for strength, epsilon in TREATED.values():
    shares = losses.label_posterior(
      jnp.asarray(prior, jnp.float32), given, prior_strength=strength
    )
    if epsilon:
      shares = losses.targeted_label_smoothing(
        shares, epsilon=epsilon, cost=cost
      )
    found.append(np.asarray(shares))
  return np.stack(found)


def better(worth: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
  """Pairs of replies, the better one first and -1 for ties, [n, 2].

  Args:
    worth: mean utility of the votes on each reply, [N].
    rows: replies to be compared, numbers.
    seed: of who is compared with whom.
  """
  rng = np.random.default_rng(seed)
  left = np.repeat(rows, OTHERS)
  right = rng.choice(rows, len(left))
  first = np.where(worth[left] > worth[right], left, right)
  second = np.where(worth[left] > worth[right], right, left)
  tied = worth[left] == worth[right]
  return np.where(tied[:, None], -1, np.stack([first, second], axis=1))


def heads_of(
  loss: str, utilities: tuple[float, ...], features: jax.Array,
  taught: jax.Array,
) -> jax.Array:  # fmt: skip
  """Heads before and after each of `STEPS` of Adam on all texts at once.

  The first predicts the mean of the shares for every text.

  Args:
    loss: of `DprmConfig`, or "bradley_terry".
    utilities: of the d labels.
    features: of the texts, the last one constant, [N, D].
    taught: shares [N, d], or pairs [n, 2] of "bradley_terry".

  Returns:
    [1 + S, D, d], or [1 + S, D, 1].
  """
  adam = optax.adam(RATE)
  cost = functools.partial(
    cost_of, loss, utilities, features=features, taught=taught
  )

  def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
    head, state = carry
    with jax.numpy_dtype_promotion("standard"):  # as optax counts steps
      updates, state = adam.update(jax.grad(cost)(head), state)
    head = optax.apply_updates(head, updates)
    return (head, state), head

  outputs = 1 if loss == "bradley_terry" else len(utilities)
  head = jnp.zeros((features.shape[1], outputs))
  if loss != "bradley_terry":
    shares = jnp.maximum(jnp.mean(taught, axis=0), 1e-3)
    head = head.at[-1].set(jnp.log(shares) / features[0, -1])
  _, heads = jax.lax.scan(step, (head, adam.init(head)), length=STEPS[-1])
  return jnp.concatenate([head[None], heads[jnp.array(STEPS) - 1]])


def cost_of(
  loss: str, utilities: tuple[float, ...], head: jax.Array,
  *, features: jax.Array, taught: jax.Array,
) -> jax.Array:  # fmt: skip
  """The mean loss of a head [D, outputs]; see `heads_of`."""
  logits = jnp.einsum("nd,dk->nk", features, head, precision="highest")
  if loss == "bradley_terry":
    there = taught[:, 0] >= 0
    gaps = logits[taught[:, 0], 0] - logits[taught[:, 1], 0]
    lost = jnp.sum(jax.nn.softplus(-gaps), where=there)
    return lost / jnp.maximum(jnp.sum(there), 1).astype(lost.dtype)
  config = config_of(loss, utilities)
  return jnp.mean(dprm.label_losses(logits, taught, config))


@functools.partial(jax.jit, static_argnames=("loss", "utilities"))
def fitted(
  loss: str,
  utilities: tuple[float, ...],
  features: jax.Array,
  fit: tuple[jax.Array, jax.Array],
  tune: tuple[jax.Array, jax.Array],
) -> jax.Array:
  """Heads of many targets, each at the step that is best on other replies.

  Args:
    loss: see `heads_of`.
    utilities: of the labels.
    features: of all replies, [N, D].
    fit: numbers of replies [n], and what they are taught [B, n, d]; or pairs,
      [B, n, 2], and then the numbers say nothing.
    tune: the same of other replies.

  Returns:
    [B, D, outputs].
  """
  take = lambda rows: features if loss == "bradley_terry" else features[rows]

  def one(taught: jax.Array, told: jax.Array) -> jax.Array:
    heads = heads_of(loss, utilities, take(fit[0]), taught)
    of_head = functools.partial(
      cost_of, loss, utilities, features=take(tune[0]), taught=told
    )
    return heads[jnp.argmin(jax.vmap(of_head)(heads))]

  return jax.vmap(one)(fit[1], tune[1])


class Study:
  """A crowd and features of the texts that it judged."""

  def __init__(self, crowd: crowd_labels.Crowd, features: np.ndarray) -> None:
    """Takes a crowd, and features of its texts [N, D]."""
    self.crowd, self.features = crowd, features

  def seed(self, seed: int, *, control: bool) -> dict[str, Any]:
    """One split: what every method predicts of the held-out texts.

    Args:
      seed: of the split, the votes and the pairs.
      control: whether votes are dealt out over the texts.

    Returns:
      Arrays for `np.savez`: `probs` [losses, votes, treatments, n, d] and
      `scores` of Bradley-Terry [votes, n]; `mean`, the training texts' shares
      [votes, d]; `baselines` [baselines, votes, n, d]; `judged`, votes that
      nobody was trained on, [n, d]; `item`, numbers of the texts; `utilities`;
      `votes`, as asked for, and `given`, how many there were.
    """
    crowd, utilities = self.crowd, self.crowd.utilities
    order = np.arange(len(crowd.texts))
    if control:
      order = np.random.default_rng(seed).permutation(order)
    names = [f"{a}\n{b}" for a, b in crowd.texts]
    test, tune, fit = np.split(
      np.argsort(voted_pairs.share_of(names, seed)),
      [len(names) // 4, len(names) * 2 // 5],
    )
    turn = latent_groups.projection(self.features[[*fit, *tune]], 128)
    wide = turn(self.features)
    wide = np.concatenate([wide, np.full((len(wide), 1), 0.3)], axis=1)
    features = jnp.asarray(wide, jnp.float32)
    judged, votes = crowd.votes(seed, order)
    learned = [
      counted([one[:number] for one in votes], len(utilities))
      for number in crowd.numbers
    ]
    taught = np.concatenate([targets(one, fit, utilities) for one in learned])
    probs = []
    for loss in LOSSES:
      heads = fitted(
        loss, utilities, features,
        (jnp.asarray(fit), jnp.asarray(taught[:, fit])),
        (jnp.asarray(tune), jnp.asarray(taught[:, tune])),
      )  # fmt: skip
      logits = np.einsum("nd,bdk->bnk", wide[test], np.asarray(heads))
      probs.append(np.asarray(jax.nn.softmax(jnp.asarray(logits))))
    worth = [one @ np.array(utilities) / one.sum(axis=1) for one in learned]
    pairs = lambda rows: np.stack([better(one, rows, seed) for one in worth])
    told = [(jnp.zeros(0, jnp.int32), jnp.asarray(pairs(rows)))
            for rows in (fit, tune)]  # fmt: skip
    heads = np.asarray(fitted("bradley_terry", utilities, features, *told))
    shape = (len(LOSSES), len(crowd.numbers), len(TREATED), len(test),
             len(utilities))  # fmt: skip
    plain = taught.reshape(len(learned), len(TREATED), *taught.shape[1:])[:, 0]
    return {
      "probs": np.stack(probs).reshape(shape),
      "scores": np.einsum("nd,bd->bn", wide[test], heads[:, :, 0]),
      "mean": plain[:, fit].mean(axis=1),
      "baselines": self._baselines(
        (pairs(fit), pairs(tune)), plain[:, tune], tune, test
      ),
      "judged": judged[test], "item": test, "utilities": np.array(utilities),
      "votes": np.array(crowd.numbers),
      "given": np.array([one[fit].sum(axis=1).mean() for one in learned]),
    }  # fmt: skip

  def _baselines(
    self, pairs: tuple[np.ndarray, np.ndarray], taught: np.ndarray,
    tune: np.ndarray, test: np.ndarray,
  ) -> np.ndarray:  # fmt: skip
    """Shares by length, by words and by both, [baselines, votes, n, d].

    Words learn from pairs of texts, as Bradley-Terry does; the shares at a
    length or a score of words are a head on that number alone, of the texts
    that tell how many steps are best.

    Args:
      pairs: to fit and to weigh words and length with, [votes, m, 2] each.
      taught: shares of the texts `tune`, [votes, t, d].
      tune: numbers of texts.
      test: the same of held-out texts.
    """
    texts, utilities = self.crowd.texts, self.crowd.utilities
    sizes = np.log1p([len(text) for _, text in texts])
    asked = np.concatenate([tune, test])
    alone = [Record("", (texts[n][1], "")) for n in asked]
    found = []
    for fit, told, shares in zip(*pairs, taught, strict=True):
      fit, told = fit[fit[:, 0] >= 0], told[told[:, 0] >= 0]
      record = lambda a, b: Record("", (texts[a][1], texts[b][1]))
      words = baselines.BagOfWords.fit([record(*one) for one in fit])
      gaps = words.gaps([*(record(*one) for one in told), *alone])
      longer = np.concatenate([sizes[told[:, 0]] - sizes[told[:, 1]],
                               sizes[asked]])  # fmt: skip
      both = words_and_length.together(gaps, longer, np.arange(len(told)))
      found.append([
        _shares_at(score[len(told) :], shares, utilities)
        for score in (longer, gaps, both)
      ])  # fmt: skip
    return np.swapaxes(np.array(found), 0, 1)


def _shares_at(
  score: np.ndarray, shares: np.ndarray, utilities: tuple[float, ...]
) -> np.ndarray:
  """Shares of labels over a number, learned of the first texts, [n, d].

  Args:
    score: of all texts, the ones to learn from first, [t + n].
    shares: of the labels, [t, d].
    utilities: of the labels.
  """
  first = len(shares)
  score = (score - score[:first].mean()) / (score[:first].std() + 1e-9)
  wide = np.stack([score, np.ones(len(score))], axis=1).astype(np.float32)
  rows = jnp.arange(first), jnp.asarray(shares[None], jnp.float32)
  head = fitted("cross_entropy", utilities, jnp.asarray(wide), rows, rows)[0]
  return np.asarray(jax.nn.softmax(jnp.asarray(wide[first:]) @ head))


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a crowd, with features of the texts it judged."""
  name, _, control = row.partition(":")
  crowd = crowd_labels.read(named.data, name)
  features = text_features.of_texts(
    named.model, crowd.texts, layer=LAYER, pooling="mean", cache=named.cache,
    max_length=160, batch_size=8,
    buckets=(16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160),
  )  # fmt: skip
  study = Study(crowd, features.array())
  return lambda seed: study.seed(seed, control=control == "control")


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables and draws the picture."""
  found = {row: label_tables.Scores(of_row) for row, of_row in runs.items()}
  for row, scores in found.items():
    for table in (label_tables.lines(scores), label_tables.treated(scores)):
      sys.stdout.write("\n".join([row, *table]) + "\n\n")
  sys.stdout.write("\n".join(label_tables.summary(found)) + "\n\n")
  if png is not None:
    label_tables.draw(
      {row: one for row, one in found.items() if ":" not in row}, png
    )
