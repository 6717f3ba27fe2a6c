"""Statistics of answers: Self-BLEU, perplexity, reward gaps at one prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.data.stats import diversity

NUM_GAPS = 500


def perplexities(nll: np.ndarray, tokens: np.ndarray) -> np.ndarray:
  """How surprising each answer is to a model, per token.

    exp(NLL / T)

  Args:
    nll: of each answer as a whole, in nats, [N].
    tokens: T, of each, int [N]; one without tokens counts as one.

  Returns:
    Perplexities, float64 [N].
  """
  return np.exp(nll.astype(np.float64) / np.maximum(tokens, 1))


def reward_gaps(scores: np.ndarray) -> np.ndarray:
  """How far apart the rewards of two answers to one prompt are.

  Args:
    scores: rewards, [P, G].

  Returns:
    |r_i − r_j| over all pairs of answers to each prompt, in ascending order;
    at most `NUM_GAPS` of them, evenly spaced by rank; none with one answer.
  """
  first, second = np.triu_indices(scores.shape[1], 1)
  gaps = np.abs(scores[:, first] - scores[:, second]).astype(np.float64)
  gaps = np.sort(gaps.ravel())
  if len(gaps) <= NUM_GAPS:
    return gaps
  at = np.round(np.linspace(0, len(gaps) - 1, NUM_GAPS)).astype(int)
  return gaps[at]


def describe(
  texts: Sequence[str],
  nll: np.ndarray,
  tokens: np.ndarray,
  scores: np.ndarray,
  names: Sequence[str],
) -> dict[str, Any]:
  """What all answers to held-out prompts are like.

  Args:
    texts: N = P · G answers.
    nll: of each under the reference, in nats, [N].
    tokens: of each, int [N].
    scores: rewards, [P, G, K].
    names: of the K rewards.

  Returns:
    `self_bleu` (None of one answer), `perplexity` with its mean, median and 90
    % quantile, `tokens` on average, and `gaps` by reward.
  """
  each = perplexities(nll, tokens)
  return {
    "self_bleu": diversity.self_bleu(texts) if len(texts) > 1 else None,
    "perplexity": {
      "mean": float(each.mean()),
      "median": float(np.median(each)),
      "90 %": float(np.quantile(each, 0.9)),
    },
    "tokens": float(tokens.mean()),
    "gaps": {
      name: reward_gaps(scores[..., k]).tolist() for k, name in enumerate(names)
    },
  }
