"""Label distribution scores: predicted shares against the crowd's."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import metrics, ops
from jaxalign.data.records.record import Record
from jaxalign.experiments.reward_model import label_targets, pair_scores
from jaxalign.runtime.io import artifact
from jaxalign.runtime.plots import figures, html_report
from jaxalign.runtime.plots.html_report import interval

SCORES = {
  "nll": "NLL, nats",
  "kl": "KL, nats",
  "transport": "transport",
  "line": "W₁ of utilities",
  "top1": "top-1 agreement",
  "utility_error": "|E[u] error|",
  "ece": "label ECE",
}
EPSILON, NUM_ITERS = 0.005, 200  # of the solver; ε in ranges of the cost


class Scores(NamedTuple):
  """What eval.json and the page say of one label model.

  Attributes:
    result: of `score`.
    curve: edges [num_bins + 1], confidence, frequency and count [num_bins].
    labels: names, in the order of a distribution.
    predicted: mean predicted shares, [d].
    crowd: mean shares of the crowd, [d].
  """

  result: dict[str, Any]
  curve: tuple[np.ndarray, ...]
  labels: tuple[str, ...]
  predicted: np.ndarray
  crowd: np.ndarray

  def sections(self, name: str) -> list[html_report.Section]:
    """What a page says of the model called `name`."""
    entropy = self.result["entropy"]
    return [
      html_report.Table(
        f"Labels predicted by {name}",
        ["score", "model", "same for all"],
        [
          [heading, interval(self.result[key]), self.result["constant"][key]]
          for key, heading in SCORES.items()
        ],
        f"Over {self.result['num_responses']:,} held-out responses, with 95 % "
        "bootstrap intervals over pairs, against the labels of their records, "
        f"whose entropy of {entropy:.3f} nats is the least NLL. The last "
        "column predicts their mean for every response. Transport and "
        "utilities are in reward units.",
      ),
      html_report.Figure(
        f"Label shares of {name}",
        figures.label_shares(
          self.curve, self.labels, self.predicted, self.crowd
        ),
        "Left: predicted share against the crowd's, all labels together, in "
        "bins of the prediction. Right: mean share of each label.",
      ),
    ]


def crowd_shares(
  records: Iterable[Record], num_labels: int
) -> tuple[np.ndarray, np.ndarray]:
  """The records' own `labels`: float32 [N, 2, d], and where there are any."""
  shares, known = [], []
  for record in records:
    label_targets.check_size(record, num_labels)
    given = list(record.labels or ())[:2]
    known.append([side < len(given) for side in range(2)])
    # What stands for a missing one is a distribution too, and never counts.
    missing = [np.full(num_labels, 1 / num_labels)] * (2 - len(given))
    shares.append([*given, *missing])
  return np.array(shares, np.float32), np.array(known, bool)


def score(
  model: artifact.Description,
  logits: np.ndarray,
  records: Iterable[Record],
  config: pair_scores.EvalConfig,
  seed: int,
) -> Scores | None:
  """Scores of a label model against the labels of held-out records.

  The records' `labels` are taken as they are, neither smoothed nor mixed with a
  prior: where they come from few votes, the noise of these is in the scores.

  Args:
    model: names, utilities and cost of the labels.
    logits: of every response, float32 [N, 2, d].
    records: the N pairs.
    config: equal-width bins of predicted shares, resamples of pairs.
    seed: of resampling.

  Returns:
    `result` holds `num_responses`, per score of `SCORES` its `value`, `low` and
    `high`, in `constant` the same without intervals for the best prediction
    that is one for all, and in `entropy` the least NLL possible. `transport` is
    ⟨P, C⟩ of a plan at a small ε, `line` the exact transport along utilities,
    `ece` the calibration error of all predicted shares. None if no record has
    labels or `model` is no label model.
  """
  if model.readout != "labels":
    return None
  crowd, known = crowd_shares(records, len(model.heads))
  if not known.any():
    return None
  shifted = logits.astype(np.float64)
  shifted -= shifted.max(axis=-1, keepdims=True)
  log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
  sums = _sums(model, log_probs, crowd, known, config.num_bins)
  interval = metrics.bootstrap_interval(
    _scores, *sums, key=jax.random.key(seed), num_samples=config.num_samples
  )
  mean = crowd[known].mean(axis=0)
  fixed = np.broadcast_to(np.log(np.maximum(mean, 1e-12)), crowd.shape)
  constant = _scores(*_sums(model, fixed, crowd, known, config.num_bins))
  result: dict[str, Any] = {
    name: dict(zip(("value", "low", "high"), map(float, values), strict=True))
    for name, *values in zip(
      SCORES, _scores(*sums), interval.low, interval.high, strict=True
    )
  }
  result["constant"] = dict(zip(SCORES, map(float, constant), strict=True))
  result["num_responses"] = int(known.sum())
  result["entropy"] = result["nll"]["value"] - result["kl"]["value"]
  probs = np.exp(log_probs[known])
  return Scores(
    result,
    _curve(probs, crowd[known], config.num_bins),
    model.heads,
    probs.mean(axis=0),
    mean,
  )


def _scores(
  values: jax.Array, excess: jax.Array, count: jax.Array
) -> jax.Array:
  """Means over responses of sums [N, 6] per pair, and the calibration error.

  Args:
    values: of all other scores, summed over the responses of a pair.
    excess: predicted minus observed share, summed by bin, [N, num_bins].
    count: responses, [N].
  """
  total = jnp.maximum(jnp.sum(count), 1)
  error = jnp.sum(jnp.abs(jnp.sum(excess, axis=0)), keepdims=True)
  return jnp.concatenate([jnp.sum(values, axis=0), error]) / total


def _sums(
  model: artifact.Description,
  log_probs: np.ndarray,
  crowd: np.ndarray,
  known: np.ndarray,
  num_bins: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What `_scores` reads, float32, of predictions [N, 2, d]."""
  utilities = np.array(model.utilities, np.float32)
  cost = np.array(model.label_cost, np.float32)
  probs = np.exp(log_probs).astype(np.float32)
  nll = -np.sum(crowd * log_probs, axis=-1)
  entropy = -np.sum(crowd * np.log(np.where(crowd > 0, crowd, 1)), axis=-1)
  moved = jax.jit(ops.sinkhorn, static_argnames=("epsilon", "num_iters"))(
    probs, crowd, cost, epsilon=EPSILON * float(cost.max()), num_iters=NUM_ITERS
  )
  values = np.stack(
    [
      nll,
      nll - entropy,
      np.asarray(moved.transport_cost),
      np.asarray(ops.wasserstein_1d(probs, crowd, utilities)),
      probs.argmax(axis=-1) == crowd.argmax(axis=-1),
      np.abs((probs - crowd) @ utilities),
    ],
    axis=-1,
  )
  # A mean over all predicted shares, d of them to a response.
  excess = np.where(known[..., None], probs - crowd, 0) / probs.shape[-1]
  at = _bin_of(probs, num_bins)
  by_bin = [np.sum(excess, axis=(1, 2), where=at == b) for b in range(num_bins)]
  return (
    np.sum(values, axis=1, where=known[..., None]).astype(np.float32),
    np.stack(by_bin, axis=-1),
    known.sum(axis=1).astype(np.float32),
  )


def _bin_of(probs: np.ndarray, num_bins: int) -> np.ndarray:
  return np.minimum((probs * num_bins).astype(int), num_bins - 1)


def _curve(
  probs: np.ndarray, crowd: np.ndarray, num_bins: int
) -> tuple[np.ndarray, ...]:
  """Edges, mean predicted and mean observed share, and count, by bin."""
  at = _bin_of(probs, num_bins).ravel()
  count = np.bincount(at, minlength=num_bins)
  mean = lambda x: np.bincount(at, x.ravel(), num_bins) / np.maximum(count, 1)
  edges = np.linspace(0, 1, num_bins + 1)
  return edges, mean(probs), mean(crowd), count
