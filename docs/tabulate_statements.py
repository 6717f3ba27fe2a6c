r"""MaxMin on statements: the best of n for the worst-off group of residents.

    python docs/tabulate_features.py statements --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/statements --png=statements.png

Which of n statements would serve the worst-off group of a town? Each seed parts
the people of a Polis conversation in halves and its statements two to one, both
by a hash. Heads on frozen features learn from pairs of the one half of the
people on the two thirds of the statements; layer, ridge and number of groups
are chosen among these. Three sets to choose from: statements that the heads
have met (`known`), statements that they have not (`new`), and 32 answers of the
frozen language model itself to a question about the same subject (`answers`).
Statements are judged by the real votes of the other half of the people, 1, 0 or
-1 for agree, pass and disagree, as the mean in each published group; answers by
heads of these people's published groups, fitted on the statements that the
choosers have not met, as the chance that a group prefers the answer to such a
statement. So no vote and no statement is behind both a choice of a new
statement or an answer and its judgement. Published groups were made of all
votes, so they are an oracle as choosers; as judges they favour nobody else.

Choosers: the pooled head; of the groups' chances that a statement beats a known
one their mean, their least (MaxMin) and their product (Nash), over the mixture
found; MaxMin over a mixture of two whatever the likelihood says; mean and least
over heads of the published groups; length, words, both; and for known
statements what the training people voted, everybody's mean and the least of
published groups. Control: the published groups' names are dealt out at random
among the training people ("dealt"), so that MaxMin has nothing to find.

Written down before any of it was run. The paper (Chakraborty et al., 2024)
claims a third more for the minority at no cost to the majority. Claimed of n =
8, of means over the conversations that can be judged, against the pooled head:

1. Known statements: the worst-off group has 0.03 or more from MaxMin where two
   groups are found, and nothing is changed where one is.
2. New statements: the same direction, 0.01 or more.
3. The majority pays less than 0.02.
4. MaxMin is not above the mean of the same groups by 0.01 or more, and Nash
   lies between them.
5. The least over published groups is above MaxMin over the groups found, by
   less than 0.03.
6. Answers: the pooled head raises the worst-off group's chance by 0.05 over
   that of any answer, and MaxMin adds less than 0.01.
7. Control: heads of dealt groups change the worst-off group by less than 0.01.

The smallest effects that can be shown (two-sided 5 %, power 80 %) are 2.8
standard errors over people, expected at 0.02 for a mean over known statements
and at 0.03 for new ones; the table prints what it came to. Statements are taken
as they are: intervals are over people, and only the seeds part the statements
anew. A statement counts where each published group of the judging half has five
votes on it, and a conversation where eight such statements are left.
"""

import argparse
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import statement_tables
import statement_votes
import words_and_length
from statement_tables import CHOOSERS
from statement_votes import LEAST

from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines
from jaxalign.data.tokenization.turns import Turn
from jaxalign.experiments.policy import answers
from jaxalign.experiments.reward_model import latent_groups, text_features

QUESTIONS = {
  "bowling-green": "What should change in Bowling Green and Warren County to "
  "make it a better place to live, work and spend time?",
  "land-bank-farmland": "How should land be used and conserved in the San Juan "
  "Islands?",
  "nz-biodiversity": "How should New Zealand protect and restore its "
  "biodiversity?",
  "nz-taxes": "How should taxes in New Zealand change?",
  "nz-affordable-housing": "What would make housing in New Zealand affordable?",
  "bg2050-volunteers": "What should the Bowling Green of 2050 look like?",
  "canadian-electoral-reform": "How should Canada reform its elections?",
  "brexit-consensus": "What should happen with Brexit?",
  "15-per-hour-seattle": "What will a minimum wage of $15 do to Seattle?",
}
ASKED = "Write one short statement of opinion that answers this question: {}"
NUMBER = 32  # answers
LAYERS = (12, 18, 24)
CONFIG = latent_groups.GroupsConfig(
  components=(1, 2, 3), folds=3, num_rounds=15, restarts=2
)


def answered(named: argparse.Namespace, conversation: str) -> list[str]:
  """The language model's own answers, kept in the workdir."""
  file = named.workdir / f"answers_{conversation}.json"
  if not file.exists():
    asked = (Turn("user", ASKED.format(QUESTIONS[conversation])),)
    sampling = answers.SamplingConfig(
      max_prompt_length=96, max_new_tokens=40, temperature=1.0, top_p=0.9,
      batch_size=NUMBER,
    )  # fmt: skip
    answerer = answers.Answerer(named.model, sampling, jax.random.key(0))
    file.write_text(json.dumps(answerer([asked] * NUMBER, range(NUMBER))))
  return [whole(text) for text in json.loads(file.read_text())]


def whole(text: str) -> str:
  """The whole sentences of an answer that was cut, on one line."""
  line = " ".join(text.split())
  end = max(line.rfind(mark) for mark in ".!?")
  return line[: end + 1] if end > 0 else line


def wins(rewards: np.ndarray, others: np.ndarray) -> np.ndarray:
  """How probably texts [..., n] beat one of some others, [...], as a mean."""
  gaps = rewards[..., :, None] - others[..., None, :]
  won: np.ndarray = np.mean(1 / (1 + np.exp(-gaps)), axis=-1)
  return won


def influence(
  judged: latent_groups.Judged,
  features: np.ndarray,
  where: np.ndarray,
  head: np.ndarray,
  ridge: float,
) -> np.ndarray:
  """How a head moves when a person counts once more, by one Newton step.

    d head = H⁻¹ Σ_{n of the person} σ(−gap_n) z_n

  Args:
    judged: the pairs.
    features: [I, P].
    where: pairs that the head was fitted on, bool [N].
    head: the fit, [P].
    ridge: its penalty per pair.

  Returns:
    [U, P]; zero for people without such pairs.
  """
  rows = np.flatnonzero(where)
  apart = features[judged.chosen[rows]] - features[judged.rejected[rows]]
  miss = 1 / (1 + np.exp(apart @ head))
  hessian = (apart.T * (miss * (1 - miss))) @ apart
  hessian += ridge * len(rows) * np.eye(len(head))
  pushed = np.zeros((len(judged.people), len(head)))
  np.add.at(pushed, judged.user[rows], miss[:, None] * apart)
  moved: np.ndarray = np.linalg.solve(hessian, pushed.T).T
  return moved


class Study:
  """One conversation with features of its statements and of the answers."""

  def __init__(
    self,
    votes: statement_votes.Votes,
    written: Sequence[tuple[str, str]],
    layers: dict[int, np.ndarray],
  ) -> None:
    """Takes votes, answers [A] and features by layer, [I + A, D]."""
    self.votes, self.layers = votes, layers
    self.texts = [*votes.texts, *written]

  def split(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """People who judge, bool [U], and statements that are new, bool [I]."""
    share = lambda text: hashlib.sha256(f"{seed}|{text}".encode()).digest()[0]
    new = np.array([share(text) < 85 for _, text in self.votes.texts])
    return latent_groups.fold_of(self.votes.people, 2, seed) == 0, new

  def chosen(
    self, judged: latent_groups.Judged, where: np.ndarray, new: np.ndarray,
    seed: int,
  ) -> tuple[int, np.ndarray, latent_groups.Choice]:  # fmt: skip
    """Layer, features in known statements' directions, and ridge and K.

    Args:
      judged: pairs.
      where: those of training people on known statements, bool [N].
      new: statements whose features are not looked at, bool [I].
      seed: of folds and first assignments.
    """
    fold = latent_groups.fold_of(judged.people, CONFIG.folds, 1000 + seed)
    pooled = latent_groups.GroupsConfig(
      components=(1,), ridges=CONFIG.ridges, folds=CONFIG.folds, num_rounds=1
    )
    known = np.flatnonzero(~new)
    turned, likely = {}, {}
    for layer, wide in self.layers.items():
      turn = latent_groups.projection(wide[known], CONFIG.dimensions)
      found = turn(wide)
      rest = CONFIG.dimensions - found.shape[1]  # one shape for all seeds
      turned[layer] = np.pad(found, ((0, 0), (0, rest)))
      table = latent_groups.choose(
        judged, turned[layer][: len(new)], fold, pooled, seed, where
      ).table
      likely[layer] = table[0]["log_likelihood"]
    layer = max(likely, key=lambda one: likely[one])
    found = turned[layer]
    choice = latent_groups.choose(
      judged, found[: len(new)], fold, CONFIG, seed, where
    )
    return layer, found, choice

  def seed(self, seed: int) -> dict[str, Any]:
    """One split: what each chooser thinks, and what the others say of it.

    Args:
      seed: of the split, the pairs and the control.

    Returns:
      Arrays for `np.savez`: `score` by chooser of statements and answers,
      [C, I + A], and which statements are `new`, [I]; of the people who judge
      `person`, `group` [J] and `votes` [J, I]; rewards of new statements and
      answers under their groups' heads, `judge` [G, I + A], with what one more
      of a person adds to that of their group, `moved` [J, I + A].
    """
    votes = self.votes
    judging, new = self.split(seed)
    judged = statement_votes.pairs(votes, new, seed)
    side = new[judged.chosen]
    there = judged.user >= 0
    where = there & ~judging[judged.user] & ~side
    layer, features, choice = self.chosen(judged, where, new, seed)
    items = features[: len(new)]
    fitted = lambda which, components=1: latent_groups.fit(
      judged, items, which, CONFIG, components=components,
      ridge=choice.ridge, seed=seed,
    )  # fmt: skip
    rewards = lambda heads: (features @ np.atleast_2d(heads).T).T
    of_group = lambda group: self._of_groups(judged, where, group, fitted)
    known = np.concatenate([~new, np.zeros(len(features) - len(new), bool)])
    chance = lambda heads: wins(rewards(heads), rewards(heads)[:, known])
    mixture = fitted(where, choice.components)
    found, two = chance(mixture.heads), chance(fitted(where, 2).heads)
    published = chance(of_group(votes.group))
    dealt = votes.group.copy()
    learning = np.flatnonzero(~judging)
    dealt[learning] = np.random.default_rng(seed).permutation(dealt[learning])
    score = {
      "pooled": rewards(fitted(where).heads)[0], "mean": found.mean(axis=0),
      "MaxMin": found.min(axis=0), "Nash": np.log(found).sum(axis=0),
      "MaxMin of two": two.min(axis=0), "published, mean": published.mean(0),
      "published, MaxMin": published.min(axis=0),
      "dealt, MaxMin": chance(of_group(dealt)).min(axis=0),
      **self._baselines(judged, where), **self._counts(~judging, new),
      "any": np.zeros(len(features)),
    }  # fmt: skip
    judge, moved = self._judges(
      judged, features, there & side, judging, choice.ridge
    )
    missing = np.full(len(features), np.nan)
    return {
      "score": np.array([score.get(name, missing) for name in CHOOSERS]),
      "new": new, "person": np.flatnonzero(judging),
      "group": votes.group[judging], "votes": votes.value[judging],
      "judge": judge, "moved": moved[judging], "layer": layer,
      "ridge": choice.ridge, "components": choice.components,
      "weights": np.sort(mixture.weights)[::-1],
    }  # fmt: skip

  def _of_groups(
    self, judged: latent_groups.Judged, where: np.ndarray, group: np.ndarray,
    fitted: Callable[[np.ndarray], latent_groups.Fitted],
  ) -> np.ndarray:  # fmt: skip
    """A head per group of people, [G, P]; NaN for a group of too few."""
    found = []
    for g in range(self.votes.group.max() + 1):
      mine = where & (group == g)[judged.user]
      heads = fitted(mine).heads[0]
      few = len(np.unique(judged.user[mine])) < LEAST
      found.append(heads + np.nan if few else heads)
    return np.array(found)

  def _judges(
    self, judged: latent_groups.Judged, features: np.ndarray,
    new: np.ndarray, judging: np.ndarray, ridge: float,
  ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Rewards of the judging groups [G, I + A], and by person [U, I + A]."""
    votes, items = self.votes, features[: len(self.votes.texts)]
    moved = np.zeros((len(votes.people), len(features)), np.float32)
    found = []
    for g in range(votes.group.max() + 1):
      where = new & judging[judged.user] & (votes.group == g)[judged.user]
      if len(np.unique(judged.user[where])) < LEAST:
        found.append(np.full(len(features), np.nan))
        continue
      head = latent_groups.fit(
        judged, items, where, CONFIG, components=1, ridge=ridge, seed=0
      ).heads[0]
      found.append(features @ head)
      moved += influence(judged, items, where, head, ridge) @ features.T
    return np.array(found), moved

  def _baselines(
    self, judged: latent_groups.Judged, where: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Length, words, and both, of every text."""
    length = np.log1p([len(text) for _, text in self.texts])
    record = lambda a, b: Record("", (self.texts[a][1], self.texts[b][1]))
    rows = np.flatnonzero(where)
    fitted = baselines.BagOfWords.fit(
      [record(judged.chosen[n], judged.rejected[n]) for n in rows]
    )
    words = fitted.gaps([record(i, 0) for i in range(len(self.texts))])
    both = np.stack([words, length], axis=1)
    apart = both[judged.chosen[rows]] - both[judged.rejected[rows]]
    scale = apart.std(axis=0) + 1e-9
    weights = words_and_length.logistic(apart / scale) / scale
    return {
      "longer": length, "words": words, "words and length": both @ weights,
    }  # fmt: skip

  def _counts(
    self, learning: np.ndarray, new: np.ndarray
  ) -> dict[str, np.ndarray]:
    """What training people voted on known statements, as two scores."""
    value, group = self.votes.value, self.votes.group
    mean = lambda who: statement_tables.mean_votes(
      value[who], np.ones((1, who.sum()))
    )[0]
    of_group = [mean(learning & (group == g)) for g in range(group.max() + 1)]
    found = {"votes, all": mean(learning), "votes, MaxMin": np.min(of_group, 0)}
    for name, values in found.items():
      found[name] = np.full(len(self.texts), np.nan)
      found[name][: len(new)] = np.where(new, np.nan, values)
    return found


def load(
  named: argparse.Namespace, row: str
) -> Callable[[int], dict[str, Any]]:
  """What runs a seed of a conversation, with features of all its texts."""
  votes = statement_votes.read(f"{named.data}/polis", row)
  prompt = votes.texts[0][0]
  written = [(prompt, f" {text}") for text in answered(named, row)]
  layers = {
    layer: text_features.of_texts(
      named.model, [*votes.texts, *written], cache=named.cache, layer=layer,
      pooling="mean",
    ).array()
    for layer in LAYERS
  }  # fmt: skip
  return Study(votes, written, layers).seed


def show(
  runs: dict[str, Sequence[dict[str, Any]]], png: pathlib.Path | None
) -> None:
  """Prints the tables and draws the picture."""
  found = {row: statement_tables.Chosen(seeds) for row, seeds in runs.items()}
  for table in (
    statement_tables.lines(found),
    statement_tables.by_conversation(found),
  ):
    sys.stdout.write("\n".join(table) + "\n\n")
  if png is not None:
    statement_tables.draw(found, png)
