"""Draws the gain in utility per policy: python docs/draw_policies.py [FOLDER].

Majority and minority utility of each policy, and the share of the attainable
gain per seed, from the numbers in docs/results.md.
"""

import pathlib
import re
import sys

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / "results.md"
HEADING = "## From pairs to fair policies, synthetic"
NUMBER = r"([-−]?\d+\.?\d*)"
POLICIES = {
  "single": "pooled\nBradley-Terry",
  "maxmin": "MaxMin on\nlatent groups",
  "oracle": "MaxMin on\ntrue utilities",
}
# Colours that stay apart for colour-blind readers.
GROUPS = {"majority": "#56B4E9", "minority": "#D55E00"}
DARK = "#333333"


def section() -> str:
  """The section of the results that the figure shows."""
  text = RESULTS.read_text(encoding="utf-8")
  start = text.index(HEADING)
  return text[start : text.index("\n### ", start)].replace("−", "-")


def utilities(text: str) -> dict[str, dict[str, tuple[float, float]]]:
  """Mean and sample standard deviation per policy and group, by the table."""
  found = {}
  for name in ("start", *POLICIES):
    (row,) = re.findall(rf"^\| {name} \| (.*)$", text, re.M)
    minority, majority = re.findall(rf"{NUMBER} ± {NUMBER}", row)[:2]
    found[name] = {
      "majority": (float(majority[0]), float(majority[1])),
      "minority": (float(minority[0]), float(minority[1])),
    }
  return found


def shares(text: str) -> dict[str, list[float]]:
  """Share of the attainable gain per seed, of the two learned rewards."""
  flat = " ".join(text.split())
  (found,) = re.findall(
    r"share per seed is ([^.]*\..*?) for MaxMin and (.*?) for one reward", flat
  )
  maxmin, single = ([*map(float, re.findall(NUMBER, part))] for part in found)
  return {"single": single, "maxmin": maxmin}


def draw(path: pathlib.Path) -> None:
  """Writes the picture as a PNG file."""
  text = section()
  values, seeds = utilities(text), shares(text)
  figure, (left, right) = plt.subplots(
    1, 2, figsize=(8.6, 3.5), width_ratios=(3, 2), layout="constrained"
  )
  width = 0.36
  for k, (group, colour) in enumerate(GROUPS.items()):
    begin = values["start"][group][0]
    places = np.arange(len(POLICIES)) + (k - 0.5) * width
    gains = [values[name][group][0] - begin for name in POLICIES]
    spread = [values[name][group][1] for name in POLICIES]
    left.bar(places, gains, width, color=colour, label=group)
    left.errorbar(places, gains, spread, fmt="none", ecolor=DARK, capsize=3)
  left.axhline(0, color=DARK, linewidth=0.8)
  left.set_xticks(range(len(POLICIES)), POLICIES.values())
  left.set_ylabel("gain in utility over the start")
  left.set_title("Who gains from the policy", fontsize=10)
  left.legend(frameon=False, loc="upper left", ncols=2, fontsize=8)
  left.set_ylim(-0.5, 1.4)

  for k, name in enumerate(("single", "maxmin")):
    right.bar(k, np.mean(seeds[name]), 0.5, color="#CCCCCC")
    offsets = np.linspace(-0.12, 0.12, len(seeds[name]))
    right.plot(k + offsets, seeds[name], "o", color=DARK, markersize=5)
  right.axhline(0, color=DARK, linewidth=0.8)
  right.axhline(1, color=DARK, linewidth=0.8, linestyle="--")
  right.text(1.45, 1.03, "true utilities", ha="right", fontsize=8)
  right.set_xticks(range(2), [POLICIES["single"], POLICIES["maxmin"]])
  right.set_xlim(-0.5, 1.5)
  right.set_ylabel("share of the attainable gain")
  right.set_title("Worst-off group, a dot per seed", fontsize=10)
  for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
  figure.savefig(path, dpi=110, metadata={"Software": ""})
  plt.close(figure)


if __name__ == "__main__":
  folder = pathlib.Path(
    sys.argv[1] if len(sys.argv) > 1 else RESULTS.parent / "images"
  )
  draw(folder / "policies_crowd.png")
