r"""Latent groups among real people: a nested study of votes on statements.

    python docs/tabulate_people.py --model=FOLDER --votes=votes.csv.gz \
        --workdir=runs/people_study bowling-green bowling-green:control

Each conversation and seed: a quarter of the people are held out by a hash;
layer, ridge and number of groups are chosen on the other people alone, by the
likelihood of a third of them under heads of the rest. Held-out people are
placed by their first 0, 1, 2 or 5 pairs and scored on the pairs after the fifth
that share no statement with these five, of those who have at least five of
them: a pair with a statement that has placed a person is half known. Beside the
mixture: the pooled head; heads of the groups that Polis published, placed in
the same way; personal rewards, the pooled head bent by a person's own pairs
under a Gaussian prior; and two families of personal rewards with four numbers
per person, near a common head (low rank) or by distance from an ideal point,
whose prior is chosen on a quarter of the training people. The control draws all
votes anew by the pooled head: one taste, in which no method may gain.

Written down before the run. Claimed: after five pairs the mixture is above the
pooled head, by 0.02 or more on bowling-green (seen before, on other splits:
0.026), with the sign the same elsewhere; heads of the published groups are no
better than it; the worst tenth gains as well; the two families are above the
pooled head and no better than the mixture; the control gains nothing. The
smallest gain that can be shown (two-sided 5 %, power 80 %) is 2.8 standard
errors over people: about 0.012 on bowling-green over five seeds, 0.03 to 0.05
with 150 to 300 people, more below. The table prints what it came to.

Finished seeds are kept in the workdir; the same command goes on and prints.
"""

import argparse
import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from jaxalign.algorithms import linear_mixture, personal_rewards
from jaxalign.data.adapters import base
from jaxalign.data.records import reader
from jaxalign.experiments.reward_model import (
  latent_groups,
  text_features,
  user_assignment,
)

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

SHOTS = (0, 1, 2, 5)
LAST, MORE = SHOTS[-1], 5
FAMILIES = ("low_rank", "ideal_points")
METHODS = ("pooled", "mixture", "published", "personal", *FAMILIES)
PRIORS = (0.3, 1.0, 3.0, 10.0, 30.0)  # variance of a person's own part
RANK, PULLS = 4, (3e-5, 3e-4, 3e-3)  # of the families
CONFIG = latent_groups.GroupsConfig(
  components=(1, 2, 3), folds=3, num_rounds=15, restarts=2
)
COLOURS = {
  "pooled": "#4a4f57", "mixture": "#0072B2", "published": "#009E73",
  "personal": "#D55E00", "low_rank": "#CC79A7", "ideal_points": "#E69F00",
}  # fmt: skip


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

  Returns:
    Of all pairs after each of `SHOTS`, [S, N]; 0.5 where they are not free.
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
  later = latent_groups.apart(judged, LAST) & tuning[judged.user]
  likely = {}
  for pull in PULLS:
    probs = _placed(
      judged, fitted(train & ~tuning, pull), features, later, kind, (LAST,)
    )
    likely[pull] = np.log(np.maximum(probs[0, later], 1e-6)).sum()
  best = max(likely, key=lambda one: likely[one])
  return _placed(judged, fitted(train, best), features, free, kind, SHOTS)


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


class Study:
  """One conversation: pairs, features per layer, and what is fitted on them."""

  def __init__(
    self, judged: latent_groups.Judged, layers: dict[int, np.ndarray]
  ) -> None:
    """Turns features into principal directions.

    Args:
      judged: the pairs.
      layers: features of the texts by layer, [I, D].
    """
    self.judged = judged
    self.layers = {
      layer: latent_groups.projection(values, CONFIG.dimensions)(values)
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
      judged, latent_groups.apart(judged, LAST) & ~where, MORE
    )
    scored = np.unique(judged.user[free])
    right = np.full((len(METHODS), len(SHOTS), len(scored)), np.nan)
    of_family = {
      kind: families(
        judged, features, train, free, pooled.heads[0], choice.ridge, kind, seed
      )
      for kind in FAMILIES
    }
    number = np.zeros(len(scored))
    for row, person in enumerate(scored):
      mine = np.flatnonzero(judged.user == person)
      apart = features[judged.chosen[mine]] - features[judged.rejected[mine]]
      later = free[mine]
      number[row] = later.sum()
      for m, method in enumerate(METHODS):
        for s, shots in enumerate(SHOTS):
          if method in FAMILIES:
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
    free = latent_groups.enough(
      judged, latent_groups.apart(judged, LAST) & train[judged.user], MORE
    )
    people = np.unique(judged.user[free])[:200]
    total = dict.fromkeys(PRIORS, 0.0)
    for person in people:
      mine = np.flatnonzero(judged.user == person)
      apart = features[judged.chosen[mine]] - features[judged.rejected[mine]]
      for variance in PRIORS:
        gaps = personal(apart @ head, apart, LAST, variance)[free[mine]]
        total[variance] -= np.logaddexp(0, -gaps).mean()
    return max(total, key=lambda one: total[one])


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Means over people and seeds, with intervals over people.

  Args:
    runs: of one conversation, one per seed.

  Returns:
    By method `accuracy` per number of pairs with `low` and `high`; `gain` of
    each over the pooled head after 5 pairs; `worst`, the tenth of people who
    are served worst after 5 pairs, a mean over seeds.
  """
  people = int(max(run["person"].max() for run in runs)) + 1
  right = np.zeros((len(METHODS), len(SHOTS), people))
  number = np.zeros(people)
  for run in runs:
    np.add.at(right, (slice(None), slice(None), run["person"]), run["right"])
    np.add.at(number, run["person"], run["number"])
  kept = number > 0
  right, number = right[:, :, kept], number[kept]
  rng = np.random.default_rng(0)
  draws = rng.integers(0, len(number), (2000, len(number)))
  times = np.stack([np.bincount(d, minlength=len(number)) for d in draws])
  mean = right.sum(axis=2) / number.sum()
  drawn = (
    np.einsum("bu,msu->bms", times, right) / (times @ number)[:, None, None]
  )
  five = SHOTS.index(5)
  gain = drawn[:, :, five] - drawn[:, :1, five]
  ends = lambda values: np.quantile(values, (0.025, 0.975), axis=0)
  worst = np.mean(
    [
      [
        latent_groups.worst_tenth(run["right"][m, five] / run["number"])
        for m in range(len(METHODS))
      ]
      for run in runs
    ],
    axis=0,
  )
  seeds = [run["right"][:, five].sum(1) / run["number"].sum() for run in runs]
  return {
    "people": len(number), "seeds": len(runs), "mean": mean,
    "ends": ends(drawn), "gain": mean[:, five] - mean[0, five],
    "gain_ends": ends(gain), "least": 2.8 * gain.std(axis=0), "worst": worst,
    "spread": np.std([s - s[0] for s in seeds], axis=0, ddof=1)
    if len(runs) > 1 else np.zeros(len(METHODS)),
    "components": [int(run["components"]) for run in runs],
    "layers": [int(run["layer"]) for run in runs],
  }  # fmt: skip


def lines(found: dict[str, dict[str, Any]]) -> list[str]:
  """The table in Markdown, a row per conversation."""
  head = [
    "", "people", "groups chosen", "pooled", "mixture, 0 pairs", "5 pairs",
    "gain [95 %]", "seeds ±", "least shown", "published groups, 5",
    "personal, 5", "low rank, 5", "ideal points, 5", "worst tenth: pooled",
    "mixture, 5",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  five = SHOTS.index(5)
  for name, one in found.items():
    mean, low, high = one["mean"], *one["gain_ends"]
    value = lambda m, s, mean=mean: (
      "–" if np.isnan(mean[m, s]) else f"{mean[m, s]:.3f}"
    )
    cells = [
      name, f"{one['people']}", " ".join(map(str, one["components"])),
      value(0, 0), value(1, 0), value(1, five),
      f"{one['gain'][1]:+.3f} [{low[1]:+.3f}, {high[1]:+.3f}]",
      f"{one['spread'][1]:.3f}", f"{one['least'][1]:.3f}", value(2, five),
      value(3, five), value(4, five), value(5, five),
      f"{one['worst'][0]:.3f}", f"{one['worst'][1]:.3f}",
    ]  # fmt: skip
    rows.append(f"| {' | '.join(cells)} |")
  return rows


def draw(found: dict[str, dict[str, Any]], path: pathlib.Path) -> None:
  """Accuracy over pairs seen, a panel per conversation."""
  figure, axes = plt.subplots(
    1, len(found), figsize=(3.1 * len(found), 3.2), layout="constrained",
    squeeze=False,
  )  # fmt: skip
  for panel, (name, one) in zip(axes[0], found.items(), strict=True):
    for m, method in enumerate(METHODS):
      low, high = one["ends"][:, m]
      panel.plot(
        SHOTS, one["mean"][m], marker="o", markersize=3,
        color=COLOURS[method], label=method,
      )  # fmt: skip
      panel.fill_between(SHOTS, low, high, color=COLOURS[method], alpha=0.12)
    panel.set_title(name, fontsize=10)
    panel.set_xlabel("own pairs seen")
    panel.spines[["top", "right"]].set_visible(False)
  axes[0, 0].set_ylabel("accuracy on later pairs")
  axes[0, 0].legend(frameon=False, fontsize=8)
  figure.savefig(path, dpi=150)
  plt.close(figure)


def main() -> None:
  """Runs what is not there yet, prints the table and draws the picture."""
  parser = argparse.ArgumentParser()
  parser.add_argument("sources", nargs="+")
  parser.add_argument("--model", required=True)
  parser.add_argument("--votes", required=True)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--cache")
  parser.add_argument("--layers", type=int, nargs="+", default=[12, 18, 24])
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--png", type=pathlib.Path)
  named = parser.parse_args()
  logging.getLogger("jaxalign").setLevel(logging.INFO)
  named.workdir.mkdir(parents=True, exist_ok=True)
  found = {}
  for source in named.sources:
    name, _, control = source.partition(":")
    files = [
      named.workdir / f"{name}_{control or 'real'}_{seed}.npz"
      for seed in range(named.seeds)
    ]
    study = None
    for seed, file in enumerate(files):
      if file.exists():
        continue
      if study is None:
        study = _load(named, name)
      np.savez(file, **study.seed(seed, control=control == "control"))
      sys.stderr.write(f"{file.name}\n")
    found[source] = summary([dict(np.load(file)) for file in files])
    sys.stdout.write("\n".join(lines(found)) + "\n")
  if named.png is not None:
    draw(found, named.png)


def _load(named: argparse.Namespace, source: str) -> Study:
  """The pairs of one conversation and features of its statements."""
  records = reader.RecordStream(
    [named.votes], draw=base.Draw(), only_sources=(source,)
  )
  judged = latent_groups.of_records([*records])
  cache = named.cache or str(named.workdir / "features")
  return Study(
    judged,
    {
      layer: text_features.of_texts(
        named.model, judged.texts, cache=cache, layer=layer, pooling="mean"
      ).array()
      for layer in named.layers
    },
  )


if __name__ == "__main__":
  main()
