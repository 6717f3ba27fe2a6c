r"""DPRM on real crowds: how to learn the labels that many raters give a reply.

    python docs/tabulate_features.py labels --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/labels

DICES: replies of a chatbot that 70 to 123 raters each called safe, unsafe or
were unsure of (utilities 1, -1 and 0). A linear head on frozen features, the
mean over the reply of layer 18 in 128 principal directions, predicts the three
shares, by optimal transport with some cross-entropy, by the exact transport on
the line of utilities, or by cross-entropy alone; or it gives one reward, by
Bradley-Terry on pairs of replies, the one preferred whose votes are better on
average. Training replies have 1, 3, 10 or 50 votes each (or half of the raters,
where that is less), as they are, with a prior of two votes at the mean shares
of the training replies, with targeted smoothing of 0.1, and with both. A
quarter of the replies is held out in each seed and judged by the other half of
the votes, which no reply is trained on; a fifth of the others tells how many of
up to 400 steps of Adam are best, for each method by its own loss.

Written down before the run. The paper (Li et al., 2024) claims that transport
learns a crowd's shares better than cross-entropy, and that the posterior with a
prior and the smoothing help. Claimed here, of held-out replies:

1. Transport is nearer to the crowd on the line than cross-entropy by 0.01 or
   more at 1 and 3 votes, and its expected utility too; at 50 they are alike.
2. Exact transport on the line is like transport, within 0.01.
3. The prior brings all of them nearer by 0.01 or more at one vote, and changes
   less than 0.005 at 50. Smoothing does the same, less.
4. Expected utilities rank replies no worse than Bradley-Terry at every number
   of votes, and better at 1.
5. The control deals the votes out over the replies: nobody is nearer to the
   crowd than the mean shares of the training replies.

The smallest effects that can be shown, 2.8 standard errors over replies of a
paired difference, are expected at 0.02 of 2 on the line with 230 replies and
0.01 with 630; the table prints what it came to.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import label_tables
import numpy as np
import optax
from label_tables import LOSSES, TREATED, UTILITIES, VOTES

from jaxalign import losses
from jaxalign.algorithms import dprm
from jaxalign.data.records import reader
from jaxalign.data.records.chat import text_of
from jaxalign.experiments.reward_model import latent_groups, text_features

LABELS = dprm.LabelsConfig(("safe", "unsure", "unsafe"), UTILITIES, None, None)
CONFIGS = {loss: dprm.DprmConfig("dprm", LABELS, loss) for loss in LOSSES}
LAYER, RATE = 18, 0.03
STEPS = (25, 50, 100, 200, 400)
OTHERS = 8  # replies that each is compared with
ROWS = ("dices350", "dices990", "dices350:control")


def ordered_votes(counts: np.ndarray, seed: int) -> list[np.ndarray]:
  """The votes on each reply one by one, in an order drawn from a seed."""
  rng = np.random.default_rng(seed)
  return [rng.permutation(np.repeat(np.arange(3), row)) for row in counts]


def shares_of(votes: Sequence[np.ndarray]) -> np.ndarray:
  """Counts of the labels in some votes on each reply, [N, 3]."""
  return np.stack([np.bincount(one, minlength=3) for one in votes])


def targets(counts: np.ndarray, fit: np.ndarray) -> np.ndarray:
  """What a head is taught, under each of `TREATED`, [T, N, 3].

  Args:
    counts: votes, [N, 3].
    fit: replies whose mean shares are the prior, numbers.
  """
  given = jnp.asarray(counts, jnp.float32)
  prior = np.mean(counts[fit] / counts[fit].sum(1, keepdims=True), axis=0)
  found = []
  for strength, epsilon in TREATED.values():
    shares = losses.label_posterior(
      jnp.asarray(prior, jnp.float32), given, prior_strength=strength
    )
    if epsilon:
      shares = losses.targeted_label_smoothing(
        shares, epsilon=epsilon, cost=LABELS.label_set().cost
      )
    found.append(np.asarray(shares))
  return np.stack(found)


def better(counts: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
  """Pairs of replies, the better one first and -1 for ties, [n, 2].

  Args:
    counts: votes, [N, 3].
    rows: replies to be compared, numbers.
    seed: of who is compared with whom.
  """
  rng = np.random.default_rng(seed)
  worth = (counts @ np.array(UTILITIES)) / counts.sum(axis=1)
  left = np.repeat(rows, OTHERS)
  right = rng.choice(rows, len(left))
  first = np.where(worth[left] > worth[right], left, right)
  second = np.where(worth[left] > worth[right], right, left)
  tied = worth[left] == worth[right]
  return np.where(tied[:, None], -1, np.stack([first, second], axis=1))


def heads_of(loss: str, features: jax.Array, taught: jax.Array) -> jax.Array:
  """Heads after each of `STEPS` of Adam on all replies at once.

  Args:
    loss: of `DprmConfig`, or "bradley_terry".
    features: of the replies, [N, D].
    taught: shares [N, 3], or pairs [n, 2] of "bradley_terry".

  Returns:
    [S, D, 3], or [S, D, 1].
  """
  adam = optax.adam(RATE)
  cost = functools.partial(cost_of, loss, features=features, taught=taught)

  def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
    head, state = carry
    with jax.numpy_dtype_promotion("standard"):  # as optax counts steps
      updates, state = adam.update(jax.grad(cost)(head), state)
    head = optax.apply_updates(head, updates)
    return (head, state), head

  outputs = 1 if loss == "bradley_terry" else len(UTILITIES)
  head = jnp.zeros((features.shape[1], outputs))
  _, heads = jax.lax.scan(step, (head, adam.init(head)), length=STEPS[-1])
  return heads[jnp.array(STEPS) - 1]


def cost_of(
  loss: str, head: jax.Array, *, features: jax.Array, taught: jax.Array
) -> jax.Array:
  """The mean loss of a head [D, outputs]; see `heads_of`."""
  logits = jnp.einsum("nd,dk->nk", features, head, precision="highest")
  if loss == "bradley_terry":
    there = taught[:, 0] >= 0
    gaps = logits[taught[:, 0], 0] - logits[taught[:, 1], 0]
    lost = jnp.sum(jax.nn.softplus(-gaps), where=there)
    return lost / jnp.maximum(jnp.sum(there), 1).astype(lost.dtype)
  return jnp.mean(dprm.label_losses(logits, taught, CONFIGS[loss]))


@functools.partial(jax.jit, static_argnames=("loss",))
def fitted(
  loss: str,
  features: jax.Array,
  fit: tuple[jax.Array, jax.Array],
  tune: tuple[jax.Array, jax.Array],
) -> jax.Array:
  """Heads of many targets, each at the step that is best on other replies.

  Args:
    loss: see `heads_of`.
    features: of all replies, [N, D].
    fit: numbers of replies [n], and what they are taught [B, n, 3]; or pairs,
      [B, n, 2], and then the numbers say nothing.
    tune: the same of other replies.

  Returns:
    [B, D, outputs].
  """
  take = lambda rows: features if loss == "bradley_terry" else features[rows]

  def one(taught: jax.Array, told: jax.Array) -> jax.Array:
    heads = heads_of(loss, take(fit[0]), taught)
    of_head = functools.partial(
      cost_of, loss, features=take(tune[0]), taught=told
    )
    return heads[jnp.argmin(jax.vmap(of_head)(heads))]

  return jax.vmap(one)(fit[1], tune[1])


class Study:
  """Replies with the votes on them and features of their texts."""

  def __init__(
    self, texts: Sequence[tuple[str, str]], counts: np.ndarray,
    features: np.ndarray,
  ) -> None:  # fmt: skip
    """Takes (prompt, reply), votes [N, 3] and features [N, D]."""
    self.texts, self.counts, self.features = texts, counts, features

  def seed(self, seed: int, *, control: bool) -> dict[str, Any]:
    """One split: what every method predicts of the held-out replies.

    Args:
      seed: of the split, the votes and the pairs.
      control: whether votes are dealt out over the replies.

    Returns:
      Arrays for `np.savez`: `probs` [losses, votes, treatments, n, 3] and
      `scores` of Bradley-Terry [votes, n]; `mean`, the training replies' shares
      [votes, 3]; `length` [n]; `judged`, votes that nobody was trained on,
      [n, 3]; and `item`, numbers of the replies.
    """
    counts = self.counts
    if control:
      counts = np.random.default_rng(seed).permutation(counts)
    part = latent_groups.fold_of([f"{a}\n{b}" for a, b in self.texts], 20, seed)
    test, tune, fit = (
      np.flatnonzero(where)
      for where in (part < 5, (part >= 5) & (part < 8), part >= 8)
    )
    turn = latent_groups.projection(self.features[[*fit, *tune]], 128)
    wide = turn(self.features)
    wide = np.concatenate([wide, np.full((len(wide), 1), 0.3)], axis=1)
    features = jnp.asarray(wide, jnp.float32)
    votes = ordered_votes(counts, seed)
    judged = shares_of([one[: len(one) // 2] for one in votes])
    learned = [
      shares_of([one[len(one) // 2 :][:number] for one in votes])
      for number in VOTES
    ]
    taught = np.concatenate([targets(one, fit) for one in learned])
    probs = []
    for loss in LOSSES:
      heads = fitted(
        loss, features, (jnp.asarray(fit), jnp.asarray(taught[:, fit])),
        (jnp.asarray(tune), jnp.asarray(taught[:, tune])),
      )  # fmt: skip
      logits = np.einsum("nd,bdk->bnk", wide[test], np.asarray(heads))
      probs.append(np.asarray(jax.nn.softmax(jnp.asarray(logits))))
    pairs = lambda rows: (
      jnp.zeros(0, jnp.int32),
      jnp.asarray(np.stack([better(one, rows, seed) for one in learned])),
    )
    heads = np.asarray(
      fitted("bradley_terry", features, pairs(fit), pairs(tune))
    )
    shape = (len(LOSSES), len(VOTES), len(TREATED), len(test), len(UTILITIES))
    return {
      "probs": np.stack(probs).reshape(shape),
      "scores": np.einsum("nd,bd->bn", wide[test], heads[:, :, 0]),
      "mean": np.stack([targets(one, fit)[0, fit].mean(0) for one in learned]),
      "length": np.array([len(self.texts[n][1]) for n in test]),
      "judged": judged[test], "item": test,
    }  # fmt: skip


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a set of replies, with features of their texts."""
  name, _, control = row.partition(":")
  found = {}
  for record in reader.RecordStream([f"{named.data}/dices/{name}*"]):
    text = text_of(record.prompt), text_of(record.responses[0])
    if record.label_votes is not None:
      found[text] = record.label_votes[0]
  features = text_features.of_texts(
    named.model, [*found], layer=LAYER, pooling="mean", cache=named.cache,
    max_length=160, batch_size=8, buckets=(48, 64, 80, 96, 112, 128, 144, 160),
  )  # fmt: skip
  study = Study([*found], np.array([*found.values()]), features.array())
  return lambda seed: study.seed(seed, control=control == "control")


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables and draws the picture."""
  found = {row: label_tables.Scores(of_row) for row, of_row in runs.items()}
  for row, scores in found.items():
    for table in (label_tables.lines(scores), label_tables.treated(scores)):
      sys.stdout.write("\n".join([row, *table]) + "\n\n")
  if png is not None:
    label_tables.draw(found, png)
