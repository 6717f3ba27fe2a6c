"""Tables of a study of the best of n statements for the worst-off group."""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from statement_votes import LEAST, MISSING

from jaxalign import metrics

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

CHOOSERS = (
  "pooled", "mean", "MaxMin", "Nash", "MaxMin of two", "published, mean",
  "published, MaxMin", "dealt, MaxMin", "longer", "words", "words and length",
  "votes, all", "votes, MaxMin", "any",
)  # fmt: skip
SETS = ("known", "new", "answers")
SIZE, SIZES, DRAWS = 8, (1, 2, 4, 8), 1000
TASTES = 3  # seeds of five in which two groups must be found
COLOURS = {
  "pooled": "#4a4f57", "mean": "#56B4E9", "MaxMin": "#0072B2",
  "published, MaxMin": "#009E73", "dealt, MaxMin": "#CC79A7",
}  # fmt: skip


def mean_votes(value: np.ndarray, times: np.ndarray) -> np.ndarray:
  """The mean vote on each statement, 0 where there is none.

  Args:
    value: votes, [J, I].
    times: how often each person is there, [B, J].

  Returns:
    [B, I].
  """
  there = value != MISSING
  total = times @ there.astype(float)
  mean: np.ndarray = times @ np.where(there, value, 0) / np.maximum(total, 1)
  return mean


def picked(score: np.ndarray, size: int) -> np.ndarray:
  """How often each of N items is the best of `size` of them, by a score [N].

  All are alike under a constant score; NaN where some score is NaN.
  """
  if np.ptp(score) == 0 or np.isnan(score).any():
    return score * 0 + 1 / len(score)
  each = np.eye(len(score), dtype=np.float32)
  found: np.ndarray = np.asarray(
    metrics.best_of_n_values(
      score[None].astype(np.float32), each[None], sizes=(size,)
    )
  )[0, 0]
  return found


class Chosen:
  """What the best of n of a conversation is worth to each published group.

  Attributes:
    people: how many judge.
    components: groups found, of each seed.
    worth: by set and n, in the data and in each draw of people, for each
      chooser and group, the largest first: [1 + draws, C, G]. Sets that cannot
      be judged are not there.
    items: how many there are to choose from, by set, a mean over seeds.
  """

  def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
    """Judges the picks of all seeds."""
    number = int(max(run["person"].max() for run in runs)) + 1
    seen = np.unique(np.concatenate([run["person"] for run in runs]))
    rng = np.random.default_rng(number)
    times = np.zeros((DRAWS + 1, number))
    times[0, seen] = 1  # the people themselves
    for draw in times[1:]:
      np.add.at(draw, rng.choice(seen, len(seen)), 1)
    self.people = len(seen)
    self.components = [int(run["components"]) for run in runs]
    found: dict[Any, list[np.ndarray]] = {}
    items: dict[str, list[int]] = {}
    for run in runs:
      for name in SETS:
        worth = _values(run, times[:, run["person"]], name)
        if worth is None:
          continue
        values, rows = worth
        items.setdefault(name, []).append(len(rows))
        for size in SIZES:
          weights = np.stack(
            [picked(score[rows], size) for score in run["score"]]
          )
          worth_of = np.einsum("bgi,ci->bcg", values, weights)
          found.setdefault((name, size), []).append(worth_of)
    self.worth = {
      key: np.mean(one, axis=0)
      for key, one in found.items()
      if len(one) == len(runs)
    }
    self.items = {name: np.mean(one) for name, one in items.items()}

  def worst(self, name: str, size: int = SIZE) -> np.ndarray:
    """Of the worst-off group, [1 + draws, C]."""
    found: np.ndarray = self.worth[name, size].min(axis=2)
    return found

  def largest(self, name: str, size: int = SIZE) -> np.ndarray:
    """Of the largest group, [1 + draws, C]."""
    return self.worth[name, size][:, :, 0]


def _values(
  run: dict[str, Any], times: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray] | None:
  """What items are worth to each group, [B, G, n], and which items, [n].

  None where a group has too few people, or there are too few items.
  """
  group, new, votes = run["group"], run["new"], run["votes"]
  groups = int(group.max()) + 1
  members = [group == g for g in range(groups)]
  if groups < 2 or min(mine.sum() for mine in members) < LEAST:
    return None
  if name == "answers":
    return _of_answers(run, times, members)
  enough = np.stack(
    [(votes[mine] != MISSING).sum(axis=0) >= LEAST for mine in members]
  )
  rows = np.flatnonzero(enough.all(axis=0) & (new == (name == "new")))
  if len(rows) < SIZE:
    return None
  found = [mean_votes(votes[mine][:, rows], times[:, mine]) for mine in members]
  return np.stack(found, axis=1), rows


def _of_answers(
  run: dict[str, Any], times: np.ndarray, members: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
  """Chances of answers against new statements, by heads of each draw."""
  new = run["new"]
  rows = np.arange(len(new), run["score"].shape[1])
  if np.isnan(run["judge"]).any() or len(rows) < SIZE:
    return None
  found = []
  for g, mine in enumerate(members):
    rewards = run["judge"][g] + (times[:, mine] - 1) @ run["moved"][mine]
    others = rewards[:, np.flatnonzero(new)]
    found.append(
      np.stack(
        [
          np.mean(1 / (1 + np.exp(others - rewards[:, [row]])), axis=1)
          for row in rows
        ],
        axis=1,
      )
    )
  return np.stack(found, axis=1), rows


def apart(own: np.ndarray, other: np.ndarray) -> str:
  """Value minus another, its 95 % and the least that shows, of [1 + draws]."""
  gap = own - other
  if np.isnan(gap).any():
    return "–"
  low, high = np.quantile(gap[1:], (0.025, 0.975))
  return (
    f"{gap[0]:+.3f} [{low:+.3f}, {high:+.3f}], least {2.8 * gap[1:].std():.3f}"
  )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of Markdown."""
  lines = [head, ["---"] * len(head), *rows]
  return [f"| {' | '.join(line)} |" for line in lines]


def over_all(
  found: Sequence[Chosen], name: str, size: int = SIZE
) -> dict[str, np.ndarray]:
  """Worst-off and largest group as means over conversations, [1 + draws, C]."""
  there = [one for one in found if (name, size) in one.worth]
  return {
    "worst": np.mean([one.worst(name, size) for one in there], axis=0),
    "largest": np.mean([one.largest(name, size) for one in there], axis=0),
  }


def parted(found: dict[str, Chosen]) -> dict[str, list[Chosen]]:
  """All conversations, and those where two groups are found in most seeds."""
  several = lambda one: sum(k > 1 for k in one.components)
  return {
    "all": [*found.values()],
    "two groups found": [
      one for one in found.values()
      if several(one) * 5 >= TASTES * len(one.components)
    ],
  }  # fmt: skip


def lines(
  found: dict[str, Chosen],
  choosers: Sequence[str] = CHOOSERS,
  others: Sequence[str] = ("pooled", "mean"),
) -> list[str]:
  """A row per set and chooser, means over conversations, in Markdown.

  Args:
    found: by conversation.
    choosers: names, the pooled head first.
    others: with whom each is compared for the worst-off group.
  """
  head = ["set", "conversations", "chooser", "worst-off group"]
  head += [f"− {other} [95 %]" for other in others]
  head += ["largest group", f"− {choosers[0]} [95 %]"]
  rows = []
  for name in SETS:
    for which, some in parted(found).items():
      there = [one for one in some if (name, SIZE) in one.worth]
      if not there:
        continue
      means = over_all(there, name)
      worst, largest = means["worst"], means["largest"]
      for c, chooser in enumerate(choosers):
        if np.isnan(worst[0, c]):
          continue
        cells = [name, f"{which}, {len(there)}", chooser, f"{worst[0, c]:.3f}"]
        for other in others:
          column = worst[:, choosers.index(other)]
          same = other == chooser
          cells.append("–" if same else apart(worst[:, c], column))
        cells += [f"{largest[0, c]:.3f}"]
        cells.append(apart(largest[:, c], largest[:, 0]) if c else "–")
        rows.append(cells)
  return table(head, rows)


def by_conversation(
  found: dict[str, Chosen],
  choosers: Sequence[str] = CHOOSERS,
  chooser: str = "MaxMin",
) -> list[str]:
  """A chooser against the pooled head in each conversation, in Markdown."""
  head = ["", "people", "groups found"]
  for name in SETS:
    head += [f"{name}: items", f"worst-off, {choosers[0]}"]
    head.append(f"{chooser} − {choosers[0]} [95 %]")
  rows = []
  own = choosers.index(chooser)
  for title, one in found.items():
    cells = [title, str(one.people), " ".join(map(str, one.components))]
    for name in SETS:
      if (name, SIZE) not in one.worth:
        cells += ["–"] * 3
        continue
      worst = one.worst(name)
      cells += [
        f"{one.items[name]:.0f}", f"{worst[0, 0]:.3f}",
        apart(worst[:, own], worst[:, 0]),
      ]  # fmt: skip
    rows.append(cells)
  return table(head, rows)


def draw(found: dict[str, Chosen], path: pathlib.Path) -> None:
  """The worst-off and the largest group over n, a panel per set."""
  figure, axes = plt.subplots(
    2, len(SETS), figsize=(9, 5), layout="constrained", sharex=True
  )
  for column, name in enumerate(SETS):
    means = [over_all([*found.values()], name, size) for size in SIZES]
    for row, which in enumerate(("worst", "largest")):
      panel = axes[row, column]
      for chooser, colour in COLOURS.items():
        values = [one[which][0, CHOOSERS.index(chooser)] for one in means]
        panel.plot(
          SIZES, values, marker="o", markersize=3, color=colour, label=chooser
        )
      panel.set_xscale("log", base=2)
      panel.set_xticks(SIZES, [str(size) for size in SIZES])
      panel.spines[["top", "right"]].set_visible(False)
    axes[0, column].set_title(
      f"{name}, {'chance' if name == 'answers' else 'mean vote'}", fontsize=9
    )
    axes[1, column].set_xlabel("n")
  axes[0, 0].set_ylabel("worst-off group")
  axes[1, 0].set_ylabel("largest group")
  figure.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside lower center",
    ncols=len(COLOURS), frameon=False, fontsize=8,
  )  # fmt: skip
  figure.savefig(path, dpi=130)
  plt.close(figure)
