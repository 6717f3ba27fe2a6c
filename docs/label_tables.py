"""Tables of a study of crowd labels: distances from the crowd, and ranking."""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

LOSSES = ("transport", "line", "cross_entropy")
# Votes that a prior is worth, and smoothing.
TREATED = {
  "plain": (0.0, 0.0), "prior": (2.0, 0.0), "smoothing": (0.0, 0.1),
  "both": (2.0, 0.1),
}  # fmt: skip
BASELINES = ("always longer", "bag of words", "bag of words + length")
MEASURES = ("on the line", "error of the utility", "NLL, nats")
DRAWS = 1000
COLOURS = {
  "transport": "#D55E00", "line": "#009E73", "cross_entropy": "#0072B2",
}  # fmt: skip


def distances(
  probs: np.ndarray, judged: np.ndarray, utilities: np.ndarray
) -> np.ndarray:
  """How far predicted shares [..., n, d] are from votes [n, d], [..., n, 3].

  The last axis is that of `MEASURES`: the transport on the line of utilities
  [d], the best label first, the error of the expected utility, and nats per
  vote.
  """
  shares = judged / judged.sum(axis=-1, keepdims=True)
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
    votes: on a training reply, as they were asked for.
    given: and as there were, a mean.
    far: by loss, votes and treatment, and of `others` (the mean shares, then
      `BASELINES`) by votes, the measures in the data and in each draw:
      [L, V, T, 1 + draws, 3] and [1 + B, V, 1 + draws, 3].
    rank: share of pairs of replies ranked as judged, by the losses as they are,
      Bradley-Terry and `BASELINES`: [L + 1 + B, V, 1 + draws].
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
    self.votes = [int(one) for one in runs[0]["votes"]]
    self.given = np.mean([run["given"] for run in runs], axis=0)
    utilities = runs[0]["utilities"]
    far, others, counts = 0.0, 0.0, 0.0
    ranks = [[0.0, 0.0] for _ in range(len(LOSSES) + 1 + len(BASELINES))]
    for run in runs:
      weigh = times[:, run["item"]]
      counts = counts + weigh.sum(axis=1)
      judged = run["judged"]
      far = far + weigh @ distances(run["probs"], judged, utilities)
      constant = np.repeat(run["mean"][:, None], len(judged), axis=1)
      told = np.concatenate([constant[None], run["baselines"]])
      others = others + weigh @ distances(told, judged, utilities)
      worth = judged @ utilities / judged.sum(axis=1)
      guessed = [
        *(run["probs"][:, :, 0] @ utilities), run["scores"],
        *(run["baselines"] @ utilities),
      ]  # fmt: skip
      for m, score in enumerate(guessed):
        won, of = _ranked_right(score, worth, weigh)
        ranks[m] = [ranks[m][0] + won, ranks[m][1] + of]
    self.far = np.asarray(far) / np.asarray(counts)[:, None]
    self.others = np.asarray(others) / np.asarray(counts)[:, None]
    self.rank = np.stack([won / of for won, of in ranks])


def _ranked_right(
  scores: np.ndarray, worth: np.ndarray, weigh: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Pairs ranked as judged under scores [V, n] in draws [B, n], and all.

  Returns:
    [V, B] and [B].
  """
  right = [ranked(one, worth) for one in scores]
  there = ~np.isnan(right[0])
  weigh = weigh.astype(np.float32)  # whole numbers, which it holds
  won = [
    np.sum((weigh @ np.where(there, one, 0).astype(np.float32)) * weigh, 1)
    for one in right
  ]
  of = np.sum((weigh @ there.astype(np.float32)) * weigh, axis=1)
  return np.stack(won), of


def apart(own: np.ndarray, other: np.ndarray) -> str:
  """Value minus another in the data, its 95 % and the least that shows."""
  gap = own - other
  low, high = np.quantile(gap[1:], (0.025, 0.975))
  return (
    f"{gap[0]:+.3f} [{low:+.3f}, {high:+.3f}], least {2.8 * gap[1:].std():.3f}"
  )


def _votes(found: Scores, v: int) -> str:
  """Votes as asked for, and how many there were where these are fewer."""
  asked, given = found.votes[v], found.given[v]
  return str(asked) if given > 0.99 * asked else f"{asked} ({given:.1f})"


def lines(found: Scores) -> list[str]:
  """Votes as they are: each loss against cross-entropy, in Markdown."""
  head = [
    "votes", "", *MEASURES, "line, − cross-entropy [95 %]",
    "utility, − cross-entropy [95 %]", "ranked right",
    "− Bradley-Terry [95 %]",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  entropy, pairs = LOSSES.index("cross_entropy"), len(LOSSES)
  for v in range(len(found.votes)):
    for m, name in enumerate((*LOSSES, "bradley_terry")):
      cells = [_votes(found, v), name.replace("_", "-")]
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
      else:
        cells += ["–"] * 5 + [f"{found.rank[m, v, 0]:.3f}", "–"]
      rows.append(f"| {' | '.join(cells)} |")
    for m, name in enumerate(("mean shares", *BASELINES)):
      far = found.others[m, v]
      cells = [_votes(found, v), name, *(f"{one:.3f}" for one in far[0])]
      cells += [
        apart(far[:, which], found.far[entropy, v, 0][:, which])
        for which in (0, 1)
      ]
      rank = found.rank[pairs + m, v] if m else np.full(DRAWS + 1, 0.5)
      cells += [f"{rank[0]:.3f}", apart(rank, found.rank[pairs, v])]
      rows.append(f"| {' | '.join(cells)} |")
  return rows


def summary(found: dict[str, Scores]) -> list[str]:
  """All crowds: what was claimed of each number of votes, in Markdown.

  Distances are on the line; what is treated is transport.
  """
  head = [
    "", "votes", *(name.replace("_", "-") for name in LOSSES), "mean shares",
    "words and length", "transport − cross-entropy [95 %]",
    "the same of the utility", "line − transport", "prior − plain",
    "smoothing − plain", "ranked right", "− Bradley-Terry",
    "− words and length",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  transport, line, entropy = range(len(LOSSES))
  for name, one in found.items():
    for v in range(len(one.votes)):
      plain = one.far[:, v, 0, :, 0]
      utility = one.far[:, v, 0, :, 1]
      cells = [name, _votes(one, v), *(f"{far[0]:.3f}" for far in plain)]
      cells += [f"{one.others[m, v, 0, 0]:.3f}" for m in (0, -1)]
      cells += [
        apart(plain[transport], plain[entropy]),
        apart(utility[transport], utility[entropy]),
        apart(plain[line], plain[transport]),
        *(apart(one.far[transport, v, t, :, 0], plain[transport])
          for t in (1, 2)),
        f"{one.rank[transport, v, 0]:.3f}",
        apart(one.rank[transport, v], one.rank[len(LOSSES), v]),
        apart(one.rank[transport, v], one.rank[-1, v]),
      ]  # fmt: skip
      rows.append(f"| {' | '.join(cells)} |")
  return rows


def treated(found: Scores) -> list[str]:
  """What prior and smoothing do to the distance on the line, in Markdown."""
  head = ["votes", "", *(f"{name} − plain [95 %]" for name in TREATED if
                         name != "plain")]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for v in range(len(found.votes)):
    for m, name in enumerate(LOSSES):
      cells = [_votes(found, v), name.replace("_", "-")]
      for t in range(1, len(TREATED)):
        cells.append(apart(found.far[m, v, t, :, 0], found.far[m, v, 0, :, 0]))
      rows.append(f"| {' | '.join(cells)} |")
  return rows


def draw(found: dict[str, Scores], path: pathlib.Path) -> None:
  """Distance from the crowd over votes, a panel per set of replies."""
  figure, axes = plt.subplots(
    1, len(found), figsize=(2.9 * len(found), 3.2), layout="constrained",
    squeeze=False,
  )  # fmt: skip
  for panel, (name, scores) in zip(axes[0], found.items(), strict=True):
    for m, loss in enumerate(LOSSES):
      for t, style in ((0, "-"), (3, "--")):
        far = scores.far[m, :, t, :, 0]
        label = loss.replace("_", "-") + (", prior, smoothing" if t else "")
        panel.plot(
          scores.given, far[:, 0], style, color=COLOURS[loss], label=label
        )
    for m, style, label in ((0, ":", "mean shares"),
                            (3, "-.", "words and length")):  # fmt: skip
      panel.plot(
        scores.given, scores.others[m, :, 0, 0], style, color="#4a4f57",
        label=label,
      )  # fmt: skip
    panel.set(xscale="log", title=name, xlabel="votes on a training reply")
    panel.set_xticks(scores.given, [f"{one:.0f}" for one in scores.given])
    panel.minorticks_off()
    panel.spines[["top", "right"]].set_visible(False)
  axes[0, 0].set_ylabel("distance from the crowd, on the line")
  axes[0, 0].legend(frameon=False, fontsize=7)
  figure.savefig(path, dpi=130)
  plt.close(figure)
