"""Whom a reward model serves: accuracy per person, groups, statements.

Scores are means over many people. Per-person values stay in memory, for the
dots of a figure, unless they are asked for.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxalign.experiments.reward_model import (
  latent_groups,
  pair_scores,
  user_assignment,
)
from jaxalign.ops import checks

SHOTS = (0, 1, 2, 5, 10, 20)
DOUBT = 10  # indifferent people beside those who judged a text, to order texts


@dataclasses.dataclass(frozen=True)
class PeopleConfig:
  """Who is scored, and what is shown.

  Attributes:
    num_pairs: own pairs by which a person is placed.
    min_pairs: further pairs, of other texts, that a person must have to be
      scored.
    min_group: people below whose number a group is not shown.
    num_statements: that unite and that divide, each.
    num_samples: resamples of the bootstrap over people.
    save_people: write people.jsonl with names, groups and accuracy, which
      nothing else holds.
  """

  num_pairs: int = 5
  min_pairs: int = 5
  min_group: int = 5
  num_statements: int = 5
  num_samples: int = 1000
  save_people: bool = False

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      num_pairs=self.num_pairs,
      min_pairs=self.min_pairs,
      min_group=self.min_group,
      num_samples=self.num_samples,
    )


class Dots(NamedTuple):
  """Each person as a dot, without a name.

  Attributes:
    before: accuracy without own pairs, [U].
    after: accuracy on the same pairs after own ones, [U].
    group: number of the group shown, -1 for none, int [U].
    person: number among all people, int [U].
  """

  before: np.ndarray
  after: np.ndarray
  group: np.ndarray
  person: np.ndarray


class Served(NamedTuple):
  """The content of eval.json, and the dots of the page."""

  result: dict[str, Any]
  dots: Dots


def _means(
  values: dict[str, np.ndarray],
  user: np.ndarray,
  config: PeopleConfig,
  seed: int,
) -> dict[str, Any]:
  """Means of pairs with intervals over people, by name."""
  people = pair_scores.clusters_of(user)
  found = {}
  for name, each in values.items():
    score: dict[str, Any] = {"value": float(each.mean())}
    if people is not None:
      low, high = pair_scores.mean_over_people(
        each.astype(np.float32),
        people,
        jax.random.key(seed),
        num_people=int(people.max()) + 1,
        num_samples=config.num_samples,
      )
      score |= {"low": float(low), "high": float(high)}
    else:
      score |= {"low": None, "high": None}
    found[name] = score
  return found


def score(
  judged: latent_groups.Judged,
  features: np.ndarray,
  own: np.ndarray | None,
  groups: latent_groups.GroupsConfig,
  config: PeopleConfig,
  seed: int,
) -> Served:
  """Scores a model on people whom the heads have not met.

  Args:
    judged: pairs of named people.
    features: of the texts by the model, float [I, D].
    own: probability that each pair goes as stated by the model's own reward,
      [N]; None where the model has none, then a pooled head on its features
      stands for it.
    groups: how latent groups are fitted.
    config: who is scored.
    seed: of folds, first assignments and resamples.

  Returns:
    JSON values, and a dot per person scored.

  Raises:
    ValueError: nobody has enough pairs.
  """
  asked = config.num_pairs
  scored = latent_groups.enough(
    judged, latent_groups.apart(judged, asked), config.min_pairs
  )
  number, least = (
    len(np.unique(judged.user[scored])),
    max(groups.folds, config.min_group),
  )
  if number < least:
    raise ValueError(
      f"{number} people have {config.min_pairs} pairs or more beyond the first "
      f"{asked} with other texts, at least {least} must: lower "
      "people.num_pairs or people.min_pairs, or raise data.pairs_per_person "
      "for votes on single items"
    )
  turned = latent_groups.projection(features, groups.dimensions)(features)
  fold = latent_groups.fold_of(judged.people, groups.folds, seed)
  choice = latent_groups.choose(judged, turned, fold, groups, seed)
  found = choice.fits[choice.components]
  pooled = latent_groups.predicted(choice.fits[1], judged, 0)
  before = pooled if own is None else own
  user = judged.user[scored]
  probs = {
    "before": before,
    "pooled_head": pooled,
    "after": latent_groups.predicted(found, judged, asked),
  }
  right = {k: latent_groups.right(p)[scored] for k, p in probs.items()}
  right["gain"] = right["after"] - right["before"]
  people = np.unique(user)
  each = {
    name: np.array([right[name][user == u].mean() for u in people])
    for name in ("before", "after")
  }
  whole = latent_groups.fit(
    judged,
    turned,
    np.ones(len(judged.user), bool),
    groups,
    components=choice.components,
    ridge=choice.ridge,
    seed=seed,
  )
  home = _home(whole.responsibilities, config.min_group)
  result = {
    "people": len(people),
    "people_read": len(judged.people),
    "pairs": int(scored.sum()),
    "texts": len(judged.texts),
    "pairs_of_nobody": judged.left_out,
    "own_reward": own is not None,
    "num_pairs": asked,
    "accuracy": _means(right, user, config, seed),
    "worst_tenth": latent_groups.worst_tenth_scores(
      each, np.bincount(user)[people], config.num_samples, seed
    ),
    "always_longer": _longer(judged, scored),
    "components": choice.components,
    "tried": choice.table,
    "curve": _curve(found, judged, config, seed),
    "groups": _groups(home, judged, right, user, config),
    "known_groups": _known(whole.responsibilities, judged, config.min_group),
    "statements": statements(judged, home, config),
  }
  return Served(
    result, Dots(each["before"], each["after"], home[people], people)
  )


def _home(shares: np.ndarray, min_group: int) -> np.ndarray:
  """The most likely group of each person, largest first; -1 if too small."""
  home = shares.argmax(axis=1)
  sizes = np.bincount(home, minlength=shares.shape[1])
  order = np.argsort(-sizes, kind="stable")
  shown = {k: place for place, k in enumerate(order) if sizes[k] >= min_group}
  return np.array([shown.get(k, -1) for k in home])


def _longer(judged: latent_groups.Judged, where: np.ndarray) -> float:
  """How often the longer text was chosen, a tie as half."""
  sizes = np.array([len(text) for _, text in judged.texts])
  signs = np.sign(judged.gaps(sizes)[where])
  return float(np.mean((signs + 1) / 2))


def _curve(
  found: latent_groups.CrossFit,
  judged: latent_groups.Judged,
  config: PeopleConfig,
  seed: int,
) -> list[dict[str, Any]]:
  """Accuracy after more and more pairs of a person, on the same later pairs."""
  tried = {
    shots: latent_groups.enough(
      judged, latent_groups.apart(judged, shots), config.min_pairs
    )
    for shots in SHOTS
  }
  people = {k: len(np.unique(judged.user[v])) for k, v in tried.items()}
  possible = [k for k in SHOTS if people[k] >= max(people[0] / 3, 2)]
  if not possible:
    return []
  scored = tried[possible[-1]]
  user = judged.user[scored]
  lines = []
  for shots in possible:
    probs = latent_groups.predicted(found, judged, shots)[scored]
    right = {"accuracy": latent_groups.right(probs)}
    lines.append(
      {"pairs_seen": shots, "people": len(np.unique(user))}
      | _means(right, user, config, seed)["accuracy"]
    )
  return lines


def _groups(
  home: np.ndarray,
  judged: latent_groups.Judged,
  right: dict[str, np.ndarray],
  user: np.ndarray,
  config: PeopleConfig,
) -> list[dict[str, Any]]:
  """Size and accuracy of each group that is large enough to be shown."""
  found = []
  for k in range(home.max() + 1):
    mine = home[user] == k
    scored = len(np.unique(user[mine]))
    enough = scored >= config.min_group
    found.append(
      {
        "people": int(np.sum(home == k)),
        "share": float(np.mean(home == k)),
        "scored": scored if enough else None,
        "before": float(right["before"][mine].mean()) if enough else None,
        "after": float(right["after"][mine].mean()) if enough else None,
      }
    )
  return found


def _known(
  shares: np.ndarray, judged: latent_groups.Judged, min_group: int
) -> dict[str, Any] | None:
  """Groups found against groups that the data name, where they do."""
  names = sorted({name for name in judged.group if name is not None})
  names = [n for n in names if judged.group.count(n) >= min_group]
  if len(names) < 2:
    return None
  number = {name: k for k, name in enumerate(names)}
  known = np.array([number.get(name, -1) for name in judged.group])
  against = user_assignment.recovery(shares, known, len(names))
  if against is None:
    return None
  sizes = np.bincount(known[known >= 0])
  return {
    "names": names,
    "people": sizes.tolist(),
    "agreement": against.accuracy,
    "largest_alone": float(sizes.max() / sizes.sum()),
  }


def statements(
  judged: latent_groups.Judged, home: np.ndarray, config: PeopleConfig
) -> dict[str, Any]:
  """Texts that every group prefers, and those that groups differ on.

  Args:
    judged: pairs.
    home: group of each person, -1 for none, int [U].
    config: how many texts, and how many people must have compared each.

  Returns:
    `unite` and `divide`: `text`, `people` and `shares`, the share of
    comparisons won in each group, a mean over people; of texts that `min_group`
    people of each group have compared.
  """
  sides = np.concatenate([judged.chosen, judged.rejected])
  won = np.repeat([1.0, 0.0], len(judged.user))
  users = np.concatenate([judged.user, judged.user])
  # One number per person and text: how often the text won with them.
  keys, inverse = np.unique(
    users.astype(np.int64) * len(judged.texts) + sides, return_inverse=True
  )
  share = np.bincount(inverse, won) / np.bincount(inverse)
  person, text = keys // len(judged.texts), keys % len(judged.texts)
  number = int(home.max()) + 1
  shares = np.full((len(judged.texts), max(number, 1)), np.nan)
  sure = shares.copy()
  people = np.zeros(len(judged.texts), int)
  for k in range(number):
    mine = home[person] == k
    count = np.bincount(text[mine], minlength=len(judged.texts))
    total = np.bincount(text[mine], share[mine], minlength=len(judged.texts))
    enough = count >= config.min_group
    shares[enough, k] = total[enough] / count[enough]
    # As if some more people were indifferent: few votes decide little.
    sure[enough, k] = (total[enough] + DOUBT / 2) / (count[enough] + DOUBT)
    people += count
  told = ~np.isnan(shares).any(axis=1)
  lowest = np.where(told, sure.min(axis=1), -np.inf)
  apart = np.where(told, np.ptp(sure, axis=1), -np.inf)
  if number < 2:  # of one group: where its people are of two minds
    apart = np.where(told, -np.abs(shares[:, 0] - 0.5), -np.inf)
  lines = {}
  for name, order in (("unite", lowest), ("divide", apart)):
    rows = np.argsort(-order, kind="stable")[: config.num_statements]
    lines[name] = [
      {
        "text": judged.texts[row][1].strip(),
        "people": int(people[row]),
        "shares": shares[row].tolist(),
      }
      for row in rows
      if told[row]
    ]
  return lines
