"""Tables of a study of people: accuracy after some of their own pairs."""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

SHOTS = (0, 1, 2, 5)
MORE_SHOTS = (*SHOTS, 10, 20)
DRAWS = 2000
FAMILIES = ("low_rank", "ideal_points")
METHODS = ("pooled", "mixture", "published", "personal", *FAMILIES)
BASELINES = ("always longer", "bag of words", "bag of words + length")
NAMES = (*METHODS, *BASELINES)
WORDS = NAMES.index("bag of words")
LEAST_GROUP = 5  # people, for an accuracy of a published group
LEAST_PEOPLE = 20  # scored, for a conversation to count in means
COLOURS = {
  "pooled": "#4a4f57", "mixture": "#0072B2", "published": "#009E73",
  "personal": "#D55E00", "low_rank": "#CC79A7", "ideal_points": "#E69F00",
}  # fmt: skip


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Means over people and seeds, with intervals over people.

  Args:
    runs: of one conversation, one per seed.

  Returns:
    By method `mean` per number of pairs (`shots`) and its `ends`; after five
    pairs the `gain` over the pooled head and what it is in each draw of people,
    and as `last` after the most pairs; `tenth`, the people who are served
    worst, a mean over seeds, and `group`, the published group that the pooled
    head serves worst: under each method, and in each draw. `group` is NaN where
    no two groups have enough people.
  """
  shots = [int(one) for one in runs[0].get("shots", SHOTS)]
  people = int(max(run["person"].max() for run in runs)) + 1
  right = np.zeros((len(NAMES), len(shots), people))
  number, group = np.zeros(people), np.full(people, "None", dtype="<U80")
  for run in runs:
    np.add.at(right, (slice(None), slice(None), run["person"]), run["right"])
    np.add.at(number, run["person"], run["number"])
    group[run["person"]] = run["group"]
  kept = number > 0
  right, number, group = right[:, :, kept], number[kept], group[kept]
  rng = np.random.default_rng(0)
  draws = rng.integers(0, len(number), (DRAWS, len(number)))
  times = np.stack([np.bincount(d, minlength=len(number)) for d in draws])
  times = np.concatenate([np.ones((1, len(number))), times])
  rates = (
    np.einsum("bu,msu->bms", times, right) / (times @ number)[:, None, None]
  )
  five = shots.index(5)
  place = np.cumsum(kept) - 1
  tenth = np.mean(
    [
      worst_tenth(run["right"][:, five] / run["number"],
                  times[:, place[run["person"]]])
      for run in runs
    ],
    axis=0,
  )  # fmt: skip
  gains, last = (rates[:, :, s] - rates[:, :1, s] for s in (five, -1))
  seeds = [run["right"][:, five].sum(1) / run["number"].sum() for run in runs]
  return {
    "people": len(number), "seeds": len(runs), "mean": rates[0],
    "shots": shots, "last": last,
    "ends": np.quantile(rates[1:], (0.025, 0.975), axis=0), "gain": gains,
    "tenth": tenth, "group": _worst_group(right[:, five], number, group, times),
    "spread": np.std([s - s[0] for s in seeds], axis=0, ddof=1)
    if len(runs) > 1 else np.zeros(len(NAMES)),
    "components": [int(run["components"]) for run in runs],
    "layers": [int(run["layer"]) for run in runs],
  }  # fmt: skip


def worst_tenth(accuracy: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Mean accuracy of the tenth of people who are served worst.

  Args:
    accuracy: of each person under each method, [M, n].
    times: how often each person is there, [B, n].

  Returns:
    [B, M].
  """
  number = np.maximum(1, np.round(times.sum(axis=1, keepdims=True) / 10))
  found = []
  for each in accuracy:
    order = np.argsort(each, kind="stable")
    count = times[:, order]
    taken = np.clip(number - np.cumsum(count, axis=1) + count, 0, count)
    found.append(taken @ each[order] / number[:, 0])
  return np.stack(found, axis=1)


def _worst_group(
  right: np.ndarray, number: np.ndarray, group: np.ndarray, times: np.ndarray
) -> np.ndarray:
  """Accuracy [B, M] in the group that the pooled head serves worst."""
  known = [
    name
    for name in np.unique(group)
    if name != "None" and np.sum(group == name) >= LEAST_GROUP
  ]
  if len(known) < 2:
    return np.full((len(times), len(right)), np.nan)
  inside = [times[:, group == name] for name in known]
  rates = [
    here @ right[:, group == name].T
    / np.maximum(here @ number[group == name], 1)[:, None]
    for name, here in zip(known, inside, strict=True)
  ]  # fmt: skip
  return rates[int(np.argmin([rate[0, 0] for rate in rates]))]


def apart(drawn: np.ndarray, m: int, other: int = 0) -> str:
  """A method minus another, the pooled head, of [1 + draws, M], with its 95 %.

  Args:
    drawn: what is compared, in the data and in each draw of people.
    m: the method.
    other: what it is compared with.
  """
  gap = drawn[:, m] - drawn[:, other]
  if np.isnan(gap).any():
    return "–"
  low, high = np.quantile(gap[1:], (0.025, 0.975))
  return f"{gap[0]:+.3f} [{low:+.3f}, {high:+.3f}]"


def least(drawn: np.ndarray, m: int) -> float:
  """The least that shows: 2.8 standard errors over people."""
  return float(2.8 * (drawn[1:, m] - drawn[1:, 0]).std())


def over_all(found: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
  """`gain`, `tenth` and `group` as means over conversations, [1 + draws, M].

  Each conversation of `LEAST_PEOPLE` counts the same, and its people are drawn
  by themselves; one without published groups does not count for what needs
  them.
  """
  means = {}
  for name in ("gain", "tenth", "group"):
    stacked = np.stack(
      [one[name] for one in found if one["people"] >= LEAST_PEOPLE]
    )
    there = ~np.isnan(stacked[:, 0])
    total = np.where(there[:, None], stacked, 0).sum(axis=0)
    means[name] = total / np.maximum(there.sum(axis=0), 1)
  return means


def lines(found: dict[str, dict[str, Any]], *, mean: bool = True) -> list[str]:
  """The mixture against the pooled head, a row per conversation.

  Args:
    found: by conversation.
    mean: whether a mean over conversations is the last row.
  """
  head = [
    "", "people", "groups chosen", *BASELINES, "pooled", "mixture, 0 pairs",
    "5 pairs", "gain [95 %]", "seeds ±", "least shown",
    "above the bag of words [95 %]",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  five = SHOTS.index(5)
  for name, one in found.items():
    value = lambda m, s=five, one=one: f"{one['mean'][m, s]:.3f}"
    cells = [
      name, f"{one['people']}", " ".join(map(str, one["components"])),
      *(value(NAMES.index(b)) for b in BASELINES), value(0), value(1, 0),
      value(1), apart(one["gain"], 1), f"{one['spread'][1]:.3f}",
      f"{least(one['gain'], 1):.3f}", apart(one["gain"], 1, WORDS),
    ]  # fmt: skip
    rows.append(f"| {' | '.join(cells)} |")
  counted = [one for one in found.values() if one["people"] >= LEAST_PEOPLE]
  if mean and len(counted) > 1:
    gain = over_all(counted)["gain"]
    cells = ["mean", str(sum(one["people"] for one in counted))]
    cells += ["–"] * 7 + [apart(gain, 1), "–", f"{least(gain, 1):.3f}"]
    cells.append(apart(gain, 1, WORDS))
    rows.append(f"| {' | '.join(cells)} |")
  return rows


def others(found: dict[str, dict[str, Any]], *, mean: bool = True) -> list[str]:
  """What else is above the pooled head after five pairs, and for whom.

  Args:
    found: by conversation.
    mean: whether a mean over conversations is the last row.
  """
  head = [
    "above the pooled head after 5 pairs", "published groups",
    "these above the mixture", "personal", "low rank", "ideal points",
    "worst tenth: pooled", "mixture", "worst group: pooled", "mixture",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  published = METHODS.index("published")

  def row(name: str, one: dict[str, Any], known: np.ndarray) -> str:
    cells = [name, apart(known, published), apart(known, published, 1)]
    cells += [apart(one["gain"], m) for m in range(3, len(METHODS))]
    for which in ("tenth", "group"):
      pooled = one[which][0, 0]
      cells.append("–" if np.isnan(pooled) else f"{pooled:.3f}")
      cells.append(apart(one[which], 1))
    return f"| {' | '.join(cells)} |"

  rows += [row(name, one, one["gain"]) for name, one in found.items()]
  counted = [one for one in found.values() if one["people"] >= LEAST_PEOPLE]
  known = [one for one in counted if not np.isnan(one["gain"][0, published])]
  if mean and len(counted) > 1:
    gain = over_all(known)["gain"] if known else counted[0]["gain"] + np.nan
    rows.append(row("mean", over_all(counted), gain))
  return rows


def by_pairs(found: dict[str, dict[str, Any]]) -> list[str]:
  """Accuracy after each number of own pairs, a row per source and method."""
  every = sorted({s for one in found.values() for s in one["shots"]})
  head = [
    "", "", *(f"{number} pairs" for number in every),
    "above the pooled head after the most [95 %]", "above the bag of words",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for name, one in found.items():
    for m, method in enumerate(METHODS):
      if np.isnan(one["mean"][m]).any():
        continue
      own = dict(zip(one["shots"], one["mean"][m], strict=True))
      cells = [name, method.replace("_", " ")]
      cells += [f"{own[s]:.3f}" if s in own else "–" for s in every]
      cells.append(apart(one["last"], m) if m else "–")
      cells.append(apart(one["last"], m, WORDS))
      rows.append(f"| {' | '.join(cells)} |")
  return rows


def draw(found: dict[str, dict[str, Any]], path: pathlib.Path) -> None:
  """Accuracy over pairs seen, a panel per conversation."""
  wide = min(3, len(found))
  high = -(-len(found) // wide)
  figure, axes = plt.subplots(
    high, wide, figsize=(3.1 * wide, 2.5 * high + 0.4), layout="constrained",
    squeeze=False, sharex=True,
  )  # fmt: skip
  for panel in axes.flat[len(found) :]:
    panel.set_visible(False)
  for panel, (name, one) in zip(axes.flat, found.items(), strict=False):
    for m, method in enumerate(METHODS):
      low, top = one["ends"][:, m]
      panel.plot(
        one["shots"], one["mean"][m], marker="o", markersize=3,
        color=COLOURS[method], label=method.replace("_", " "),
      )  # fmt: skip
      if method in ("pooled", "mixture"):
        panel.fill_between(
          one["shots"], low, top, color=COLOURS[method], alpha=0.15
        )
    panel.set_title(f"{name}, {one['people']} people", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
  for panel in axes[-1]:
    panel.set_xlabel("own pairs seen")
  for panel in axes[:, 0]:
    panel.set_ylabel("accuracy, later pairs")
  figure.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside lower center",
    ncols=len(METHODS), frameon=False, fontsize=8,
  )  # fmt: skip
  figure.savefig(path, dpi=130)
  plt.close(figure)
