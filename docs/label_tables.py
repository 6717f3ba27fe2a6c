"""Tables of a study of crowd labels: distances from the crowd, and ranking."""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

UTILITIES = (1.0, 0.0, -1.0)
VOTES = (1, 3, 10, 50)
LOSSES = ("transport", "line", "cross_entropy")
# Votes that a prior is worth, and smoothing.
TREATED = {
  "plain": (0.0, 0.0), "prior": (2.0, 0.0), "smoothing": (0.0, 0.1),
  "both": (2.0, 0.1),
}  # fmt: skip
MEASURES = ("on the line", "error of the utility", "NLL, nats")
DRAWS = 1000
COLOURS = {
  "transport": "#D55E00", "line": "#009E73", "cross_entropy": "#0072B2",
}  # fmt: skip


def distances(probs: np.ndarray, judged: np.ndarray) -> np.ndarray:
  """How far predicted shares [..., n, 3] are from votes [n, 3], [..., n, 3].

  The last axis is that of `MEASURES`: the transport on the line of utilities,
  the error of the expected utility, and nats per vote.
  """
  shares = judged / judged.sum(axis=-1, keepdims=True)
  utilities = np.array(UTILITIES)
  step = -np.diff(utilities)
  line = np.abs(np.cumsum(probs - shares, axis=-1))[..., :-1] @ step
  utility = np.abs((probs - shares) @ utilities)
  nll = -np.sum(shares * np.log(np.maximum(probs, 1e-6)), axis=-1)
  return np.stack([line, utility, nll], axis=-1)


def ranked(score: np.ndarray, worth: np.ndarray) -> np.ndarray:
  """1 where a pair of replies is ranked as judged, 0 the other way, [n, n].

  NaN where the judges make no difference, one half where the scores make none.
  """
  told = np.sign(score[:, None] - score[None])
  true = np.sign(worth[:, None] - worth[None])
  return np.where(true == 0, np.nan, (told * true + 1) / 2)


class Scores:
  """What each method scored, with draws over replies.

  Attributes:
    far: by loss, votes and treatment, and of the mean shares by votes, the
      measures in the data and in each draw: [L, V, T, 1 + draws, 3] and
      [V, 1 + draws, 3].
    rank: share of pairs of replies ranked as judged, by the losses as they are,
      Bradley-Terry and length: [L + 2, V, 1 + draws].
    replies: how many.
  """

  def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
    """Scores the seeds of one set of replies."""
    number = int(max(run["item"].max() for run in runs)) + 1
    seen = np.unique(np.concatenate([run["item"] for run in runs]))
    rng = np.random.default_rng(0)
    times = np.zeros((DRAWS + 1, number))
    times[0, seen] = 1  # the data themselves
    for drawn in times[1:]:
      np.add.at(drawn, rng.choice(seen, len(seen)), 1)
    self.replies = len(seen)
    far, mean, counts = 0.0, 0.0, 0.0
    ranks: list[Any] = [[0.0, 0.0] for _ in range(len(LOSSES) + 2)]
    for run in runs:
      weigh = times[:, run["item"]]
      counts = counts + weigh.sum(axis=1)
      far = far + weigh @ distances(run["probs"], run["judged"])
      constant = np.repeat(run["mean"][:, None], len(run["item"]), axis=1)
      mean = mean + weigh @ distances(constant, run["judged"])
      utilities = np.array(UTILITIES)
      worth = run["judged"] @ utilities / run["judged"].sum(axis=1)
      guessed = [*(run["probs"][:, :, 0] @ utilities), run["scores"]]
      guessed.append(np.repeat(run["length"][None], len(VOTES), axis=0))
      for m, score in enumerate(guessed):
        right = np.stack([ranked(one, worth) for one in score])  # [V, n, n]
        there = ~np.isnan(right[0])
        won = np.einsum(
          "bn,vnm,bm->vb", weigh, np.where(there, right, 0), weigh,
          optimize=True,
        )  # fmt: skip
        ranks[m][0] = ranks[m][0] + won
        ranks[m][1] = ranks[m][1] + np.sum((weigh @ there) * weigh, axis=1)
    self.far = np.asarray(far) / np.asarray(counts)[:, None]
    self.mean = np.asarray(mean) / np.asarray(counts)[:, None]
    self.rank = np.stack([won / of for won, of in ranks])


def apart(own: np.ndarray, other: np.ndarray) -> str:
  """Value minus another in the data, its 95 % and the least that shows."""
  gap = own - other
  low, high = np.quantile(gap[1:], (0.025, 0.975))
  return (
    f"{gap[0]:+.3f} [{low:+.3f}, {high:+.3f}], least {2.8 * gap[1:].std():.3f}"
  )


def lines(found: Scores) -> list[str]:
  """Votes as they are: each loss against cross-entropy, in Markdown."""
  head = [
    "votes", "", *MEASURES, "line, − cross-entropy [95 %]",
    "utility, − cross-entropy [95 %]", "ranked right",
    "− Bradley-Terry [95 %]",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  entropy, pairs = LOSSES.index("cross_entropy"), len(LOSSES)
  for v, votes in enumerate(VOTES):
    for m, name in enumerate((*LOSSES, "bradley_terry", "mean shares")):
      cells = [str(votes), name.replace("_", "-")]
      if m < pairs:
        far = found.far[m, v, 0]
        cells += [f"{one:.3f}" for one in far[0]]
        cells += [
          "–" if m == entropy else
          apart(far[:, which], found.far[entropy, v, 0][:, which])
          for which in (0, 1)
        ]  # fmt: skip
        cells.append(f"{found.rank[m, v, 0]:.3f}")
        cells.append(apart(found.rank[m, v], found.rank[pairs, v]))
      elif m == pairs:
        cells += ["–"] * 5 + [f"{found.rank[m, v, 0]:.3f}", "–"]
      else:
        cells += [f"{one:.3f}" for one in found.mean[v, 0]] + ["–"] * 4
      rows.append(f"| {' | '.join(cells)} |")
  rows.append(
    "| – | longer is safer |"
    + " – |" * 5
    + f" {found.rank[-1, 0, 0]:.3f} | – |"
  )
  return rows


def treated(found: Scores) -> list[str]:
  """What prior and smoothing do to the distance on the line, in Markdown."""
  head = ["votes", "", *(f"{name} − plain [95 %]" for name in TREATED if
                         name != "plain")]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for v, votes in enumerate(VOTES):
    for m, name in enumerate(LOSSES):
      cells = [str(votes), name.replace("_", "-")]
      for t in range(1, len(TREATED)):
        cells.append(apart(found.far[m, v, t, :, 0], found.far[m, v, 0, :, 0]))
      rows.append(f"| {' | '.join(cells)} |")
  return rows


def draw(found: dict[str, Scores], path: pathlib.Path) -> None:
  """Distance from the crowd over votes, a panel per set of replies."""
  figure, axes = plt.subplots(
    1, len(found), figsize=(3.4 * len(found), 3.2), layout="constrained",
    squeeze=False,
  )  # fmt: skip
  for panel, (name, scores) in zip(axes[0], found.items(), strict=True):
    for m, loss in enumerate(LOSSES):
      for t, style in ((0, "-"), (3, "--")):
        far = scores.far[m, :, t, :, 0]
        label = loss.replace("_", "-") + (", prior, smoothing" if t else "")
        panel.plot(VOTES, far[:, 0], style, color=COLOURS[loss], label=label)
    panel.plot(
      VOTES, scores.mean[:, 0, 0], ":", color="#4a4f57", label="mean shares"
    )
    panel.set(xscale="log", title=name, xlabel="votes on a training reply")
    panel.set_xticks(VOTES, [str(one) for one in VOTES])
    panel.spines[["top", "right"]].set_visible(False)
  axes[0, 0].set_ylabel("distance from the crowd, on the line")
  axes[0, 0].legend(frameon=False, fontsize=7)
  figure.savefig(path, dpi=130)
  plt.close(figure)
