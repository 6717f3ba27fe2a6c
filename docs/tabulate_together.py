r"""Four papers together: label shares, MORE and MaxMin inside a mixture.

    python docs/tabulate_features.py together --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/together

The splits, the sets to choose from and the judges are those of
`tabulate_statements`: the best of n statements, by the real votes of people
whom nothing has learned from, in the published group that is worst off. A vote
is one of three labels, agree, pass or disagree, of utility 1, 0 and -1, so that
a head can predict each group's shares of them (DPRM, exact transport on the
line with some cross-entropy, targets with a prior of two votes, the number of
steps chosen on a fifth of the known statements), and its expected utility is
the mean vote, which has a zero where the reward of pairs has none. Groups are
those of the mixture of pairs, two at least, each training person in the
likelier one.

Parts alone: the pooled head of pairs; the mixture of pairs, mean and least
("MaxMin") of the groups' chances to beat a known statement; one head of labels
on everybody's votes; one on the groups as sources that count the same ("even"),
or under min-norm weights (MORE; without normalisation, as two gradients of unit
length always weigh one half each). Two parts: a head of labels per group, mean
and MaxMin. All: heads per group that begin at MORE's, MaxMin ("together"); to
see what the weights add, the same from "even". Control: training people are
dealt out to groups of the same sizes ("dealt, together"). Without any model:
for known statements, the least of the found groups' mean votes.

Written down before any of it was run, and before `tabulate_statements` was. Of
n = 8, of the worst-off published group, means over conversations:

1. Labels by group with MaxMin are above the mixture of pairs with MaxMin by
   0.02 or more on known statements: passes count, and utilities have a zero.
2. One head under MORE is above one on everybody's votes by 0.02 or more on
   known statements, and costs the largest group.
3. Together is above every part alone by 0.02 or more on known statements, and
   by 0.01 on new ones.
4. What MORE adds to the whole, together less the same from "even", is less than
   0.01 in size.
5. Control: "dealt, together" is within 0.01 of one head on everybody's votes.

Written down after nz-biodiversity and nz-taxes had run, where the best number
of steps on other statements was none, so that heads of labels knew nothing: in
rows whose name ends in ":people" steps are chosen on a fifth of the training
people, over the same known statements, and heads learn from the others. Claims
1 to 5 as they stand.

The smallest effects that can be shown, 2.8 standard errors over people, are
expected at 0.02 for known statements and 0.03 for new ones.
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
import statement_tables
import statement_votes
import tabulate_statements
from statement_votes import LEAST
from tabulate_statements import CONFIG, LAYERS, QUESTIONS, wins

from jaxalign import losses
from jaxalign.algorithms import dprm
from jaxalign.experiments.reward_model import latent_groups, text_features

CHOOSERS = (
  "pooled", "together", "mixture, mean", "mixture, MaxMin", "labels",
  "labels, even", "labels, MORE", "labels by group, mean",
  "labels by group, MaxMin", "even, together", "dealt, together", "longer",
  "words", "words and length", "votes, MaxMin", "any",
)  # fmt: skip
ROWS = (*QUESTIONS, *(f"{name}:people" for name in QUESTIONS))
UTILITIES = (1.0, 0.0, -1.0)
LABELS = dprm.LabelsConfig(("agree", "pass", "disagree"), UTILITIES, None, None)
DPRM = dprm.DprmConfig("dprm", LABELS, "line")
RATE, PRIOR = 0.03, 2.0
STEPS = (0, 25, 50, 100, 200, 400)


def counted(
  votes: statement_votes.Votes, groups: Sequence[np.ndarray]
) -> np.ndarray:
  """Votes of each label by group and statement, [K, I, 3].

  Args:
    votes: the conversation.
    groups: their people, bool [U] each.
  """
  of_label = [votes.value == int(utility) for utility in UTILITIES]
  found = [[one[mine].sum(axis=0) for one in of_label] for mine in groups]
  return np.moveaxis(np.array(found), 1, 2)


def shares(counts: np.ndarray, rows: np.ndarray) -> jax.Array:
  """What a head is taught, [K, I, 3]: votes with a prior at the mean of some.

  Args:
    counts: by group, [K, I, 3].
    rows: statements whose mean shares are the prior of a group.
  """
  total = counts[:, rows].sum(axis=1) + 1.0
  return jnp.stack(
    [
      losses.label_posterior(
        jnp.asarray(prior / prior.sum(), jnp.float32),
        jnp.asarray(of_group, jnp.float32), prior_strength=PRIOR,
      )
      for prior, of_group in zip(total, counts, strict=True)
    ]
  )  # fmt: skip


def group_losses(
  head: jax.Array, features: jax.Array, taught: jax.Array
) -> jax.Array:
  """The mean loss of a head [D, 3] on each group's shares [K, n, 3], [K]."""
  logits = jnp.einsum("nd,dk->nk", features, head, precision="highest")
  each = jax.vmap(lambda one: dprm.label_losses(logits, one, DPRM))(taught)
  return jnp.mean(each, axis=1)


@functools.partial(jax.jit, static_argnames=("more",))
def trained(
  start: jax.Array,
  fit: tuple[jax.Array, jax.Array],
  tune: tuple[jax.Array, jax.Array],
  *,
  more: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Adam on K groups as sources, to the step that is best on other statements.

  Args:
    start: a head, [D, 3].
    fit: features [n, D] and each group's shares [K, n, 3].
    tune: the same of other statements.
    more: whether groups weigh as MORE has it, or the same.

  Returns:
    The head, and the mean weights of the groups [K].
  """
  adam = optax.adam(RATE)
  groups = len(fit[1])

  def step(carry: Any, _: None) -> tuple[Any, Any]:
    head, state = carry
    gradients = jax.jacrev(group_losses)(head, *fit)
    weights = jnp.full(groups, 1 / groups)
    if more:
      flat = gradients.reshape(groups, -1)
      weights = losses.more_weights(flat, normalise="none")
    together = jnp.tensordot(weights, gradients, 1, precision="highest")
    with jax.numpy_dtype_promotion("standard"):  # as optax counts steps
      updates, state = adam.update(together, state)
    return (optax.apply_updates(head, updates), state), (head, weights)

  _, (heads, weights) = jax.lax.scan(
    step, (start, adam.init(start)), length=STEPS[-1] + 1
  )
  tried = heads[jnp.array(STEPS)]
  lost = jax.vmap(lambda head: jnp.mean(group_losses(head, *tune)))(tried)
  return tried[jnp.argmin(lost)], jnp.mean(weights, axis=0)


def own_heads(
  start: jax.Array,
  fit: tuple[jax.Array, jax.Array],
  tune: tuple[jax.Array, jax.Array],
) -> jax.Array:
  """A head per group from a common one, each on its own shares, [K, D, 3]."""
  return jnp.stack(
    [
      trained(start, (fit[0], mine[None]), (tune[0], told[None]))[0]
      for mine, told in zip(fit[1], tune[1], strict=True)
    ]
  )


class Study(tabulate_statements.Study):
  """One conversation with features of its statements."""

  by_people = False  # whether other people say how many steps are best

  def seed(self, seed: int) -> dict[str, Any]:
    """One split: what each chooser thinks, and what the others voted.

    Args:
      seed: of the split, the pairs and the control.

    Returns:
      Arrays for `np.savez`, as `tabulate_statements.Study.seed` has them, and
      the mean `weights` of the groups under MORE.
    """
    votes = self.votes
    judging, new = self.split(seed)
    judged = statement_votes.pairs(votes, new, seed)
    where = ~judging[judged.user] & ~new[judged.chosen] & (judged.user >= 0)
    layer, features, choice = self.chosen(judged, where, new, seed)
    fitted = lambda components: latent_groups.fit(
      judged, features, where, CONFIG, components=components,
      ridge=choice.ridge, seed=seed,
    )  # fmt: skip
    mixture = fitted(max(2, choice.components))
    rewards = (features @ mixture.heads.T).T
    found = wins(rewards, rewards[:, ~new])
    paired = np.bincount(judged.user[where], minlength=len(votes.people)) > 0
    home = np.where(paired, mixture.responsibilities.argmax(axis=1), -1)
    dealt = home.copy()
    dealt[paired] = np.random.default_rng(seed).permutation(home[paired])
    score, weights = self._labels(features, new, home, ~judging)
    control, _ = self._labels(features, new, dealt, ~judging)
    score |= {
      "pooled": features @ fitted(1).heads[0],
      "mixture, mean": found.mean(axis=0),
      "mixture, MaxMin": found.min(axis=0),
      "dealt, together": control["together"],
      **self._baselines(judged, where), "any": np.zeros(len(features)),
    }  # fmt: skip
    return {
      "score": np.array([score[name] for name in CHOOSERS]), "new": new,
      "person": np.flatnonzero(judging), "group": votes.group[judging],
      "votes": votes.value[judging], "judge": np.full((1, 1), np.nan),
      "layer": layer, "ridge": choice.ridge, "weights": weights,
      "components": choice.components,
    }  # fmt: skip

  def _labels(
    self, features: np.ndarray, new: np.ndarray, home: np.ndarray,
    learning: np.ndarray,
  ) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """Expected utilities by name, and MORE's mean weights.

    Args:
      features: of the statements, [I, D].
      new: statements that nothing is learned of, bool [I].
      home: group of each training person, −1 for none, int [U].
      learning: the training people, bool [U].
    """
    groups = [home == k for k in range(home.max() + 1)]
    groups = [mine for mine in groups if mine.sum() >= LEAST]
    known = np.flatnonzero(~new)
    wide = jnp.asarray(
      np.concatenate([features, np.full((len(features), 1), 0.3)], axis=1),
      jnp.float32,
    )
    counts = counted(self.votes, groups)
    taught = self._told(wide, known, groups)
    everyone = self._told(wide, known, [learning])
    zero = jnp.zeros((wide.shape[1], len(UTILITIES)))
    more, weights = trained(zero, *taught, more=True)
    even, _ = trained(zero, *taught)
    worth = lambda heads: (
      np.asarray(jax.nn.softmax(jnp.einsum("id,...dk->...ik", wide, heads)))
      @ np.array(UTILITIES)
    )
    each = worth(own_heads(zero, *taught))
    mean = counts @ np.array(UTILITIES) / np.maximum(counts.sum(axis=2), 1)
    return {
      "labels": worth(trained(zero, *everyone)[0]),
      "labels, even": worth(even), "labels, MORE": worth(more),
      "labels by group, mean": each.mean(axis=0),
      "labels by group, MaxMin": each.min(axis=0),
      "together": worth(own_heads(more, *taught)).min(axis=0),
      "even, together": worth(own_heads(even, *taught)).min(axis=0),
      "votes, MaxMin": np.where(new, np.nan, mean.min(axis=0)),
    }, np.asarray(weights)  # fmt: skip

  def _told(
    self, wide: jax.Array, known: np.ndarray, groups: Sequence[np.ndarray]
  ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Features and shares to learn from, and those that say how long.

    Args:
      wide: features of the statements, [I, D].
      known: numbers of those to learn from.
      groups: their people, bool [U] each.
    """
    if self.by_people:
      other = latent_groups.fold_of(self.votes.people, 5, 7) == 0
      of = lambda some: shares(
        counted(self.votes, [mine & some for mine in groups]), known
      )[:, known]
      return (wide[known], of(~other)), (wide[known], of(other))
    part = latent_groups.fold_of([text for _, text in self.texts], 5, 7)
    fit, tune = known[part[known] > 0], known[part[known] == 0]
    taught = shares(counted(self.votes, groups), fit)
    return (wide[fit], taught[:, fit]), (wide[tune], taught[:, tune])


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a conversation, with features of its statements."""
  name, _, kind = row.partition(":")
  votes = statement_votes.read(f"{named.data}/polis", name)
  layers = {
    layer: text_features.of_texts(
      named.model, votes.texts, cache=named.cache, layer=layer, pooling="mean"
    ).array()
    for layer in LAYERS
  }
  study = Study(votes, [], layers)
  study.by_people = kind == "people"
  return study.seed


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables; there is no picture."""
  del png
  found = {row: statement_tables.Chosen(seeds) for row, seeds in runs.items()}
  for table in (
    statement_tables.lines(found, CHOOSERS, ("pooled", "together", "labels")),
    statement_tables.by_conversation(found, CHOOSERS, "together"),
  ):
    sys.stdout.write("\n".join(table) + "\n\n")
