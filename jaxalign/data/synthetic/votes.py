"""Simulated votes: what members of the synthetic crowd think of responses."""

from collections.abc import Mapping

import numpy as np

from jaxalign.data.synthetic import texts
from jaxalign.data.synthetic.config import (
  QUALITIES,
  CrowdConfig,
  taste_weights,
)


def utilities(
  config: CrowdConfig, prompt: str, response: str, *, time: float = 1.0
) -> np.ndarray:
  """Utility of a response to each group, float64 [K]; 0 for taste "none".

  Args:
    config: the crowd.
    prompt: a question of the text world.
    response: any text.
    time: 0 at the start of the training split, 1 at its end and in the test
      split.

  Returns:
    The utilities.
  """
  quality = dict(
    zip(texts.QUALITIES, texts.qualities(prompt, response), strict=True)
  )
  own = np.array([_valued(quality, taste) for taste in config.tastes])
  moved = config.drift * time
  if moved:
    own = (1 - moved) * own + moved * np.roll(own, -1)
  mixed = (1 - config.overlap) * own + config.overlap * quality["topic"]
  votes = np.array([taste != "none" for taste in config.tastes])
  return np.where(votes, config.scale * mixed, 0.0)


def _valued(quality: Mapping[str, float], taste: str) -> float:
  """What a response with these qualities is worth to a taste."""
  if taste in quality:
    return float(quality[taste])
  weights = taste_weights(taste)
  if weights is None:
    return 0.0
  return float(np.dot(weights, [quality[name] for name in QUALITIES]))


def noisy_prob(config: CrowdConfig, gap: np.ndarray | float) -> np.ndarray:
  """Probability of a vote by a gap in utility, with the crowd's label noise."""
  clear = 1 / (1 + np.exp(-gap / config.temperature))
  return (1 - config.label_noise) * clear + config.label_noise / 2


def vote_probs(
  config: CrowdConfig,
  prompt: str,
  first: str,
  second: str,
  *,
  time: float = 1.0,
) -> np.ndarray:
  """Probability that a member of each group prefers `first`, float64 [K].

  Args:
    config: the crowd.
    prompt: a question of the text world.
    first: a response.
    second: another.
    time: see `utilities`.

  Returns:
    The probabilities.
  """
  gap = utilities(config, prompt, first, time=time) - utilities(
    config, prompt, second, time=time
  )
  return noisy_prob(config, gap)


def label_probs(
  config: CrowdConfig, prompt: str, response: str, *, time: float = 1.0
) -> np.ndarray:
  """Label distribution of each group for a response, float64 [K, 6].

  Help is judged by the member's own utility u, harm by warmth and topic, which
  all groups see alike; with temperature T and scale s

    P(helpful) = sigmoid((u - s/4) / T),  P(not) = sigmoid((-u - s/4) / T)
    P(harmless) = sigmoid(s (warmth + topic + 1) / (2 T))

  and neutral is the rest, so that a cold answer to something else is the
  harmful one. The two are independent, and a share `label_noise` of labels is
  drawn from all six alike.

  Args:
    config: the crowd.
    prompt: a question of the text world.
    response: any text.
    time: see `utilities`.

  Returns:
    The probabilities, in the order of `losses.HELPFUL_HARMLESS_LABELS`.
  """
  useful = utilities(config, prompt, response, time=time)
  warmth, _, topic = texts.qualities(prompt, response)
  helpful, useless = (
    1 / (1 + np.exp(-(u - config.scale / 4) / config.temperature))
    for u in (useful, -useful)
  )
  harmless = 1 / (
    1 + np.exp(-config.scale * (warmth + topic + 1) / 2 / config.temperature)
  )
  help_probs = np.stack([helpful, 1 - helpful - useless, useless], axis=-1)
  clear = np.concatenate(
    [harmless * help_probs, (1 - harmless) * help_probs], 1
  )
  return (1 - config.label_noise) * clear + config.label_noise / clear.shape[1]


def label_shares(
  config: CrowdConfig, prompt: str, response: str, *, time: float = 1.0
) -> np.ndarray:
  """Share of the whole crowd for each label, float64 [6]; see `label_probs`."""
  probs = label_probs(config, prompt, response, time=time)
  return np.asarray(config.shares) @ probs
