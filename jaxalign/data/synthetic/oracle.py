"""Oracle scores: the best any model can reach on the synthetic crowd."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.records.chat import Text, text_of
from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines
from jaxalign.data.synthetic import crowd


class Ceiling(NamedTuple):
  """Expected accuracies that no model of its kind can beat.

  Attributes:
    shared: one model for everyone, over the whole crowd.
    shared_per_group: the same model in each group, [K].
    own_per_group: a model that knows the group, [K].
    own: the same over the whole crowd.
  """

  shared: float
  shared_per_group: np.ndarray
  own_per_group: np.ndarray
  own: float


def oracle_utilities(
  config: crowd.CrowdConfig, records: Sequence[Record]
) -> np.ndarray:
  """Utility of every response to every group, float64 [N, 2, K]."""
  return np.array(
    [
      [crowd.utilities(config, r.prompt, text) for text in r.responses]
      for r in records
    ]
  )


def oracle_rewards(
  config: crowd.CrowdConfig, *, calibrate: bool
) -> Callable[[Sequence[Text], Sequence[str]], np.ndarray]:
  """What each group truly thinks of any response, as a reward function.

  Args:
    config: the crowd; one reward per group, in its order.
    calibrate: measure each group's utility in standard deviations from its mean
      over the responses of the training split, as a reward model would, and not
      in its own unit.

  Returns:
    `(prompts, responses) -> float64 [B, K]`.
  """
  size = len(config.groups)
  mean, std = np.zeros(size), np.ones(size)
  if calibrate:
    known = oracle_utilities(config, crowd.draw_records(config, split="train"))
    known = known.reshape(-1, size)
    mean, std = known.mean(axis=0), known.std(axis=0)
    std = np.where(std > 0, std, 1.0)  # a group of taste "none"

  def rewards(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    found = np.zeros((len(responses), size))
    for row, (prompt, response) in enumerate(
      zip(prompts, responses, strict=True)
    ):
      found[row] = crowd.utilities(config, text_of(prompt), response)
    return (found - mean) / std

  return rewards


def oracle_labels(
  config: crowd.CrowdConfig,
) -> Callable[[Sequence[Text], Sequence[str]], np.ndarray]:
  """What the whole crowd calls any response, as a function of texts.

  Args:
    config: the crowd.

  Returns:
    `(prompts, responses) -> float64 [B, 6]`, shares in the order of
    `losses.HELPFUL_HARMLESS_LABELS`.
  """

  def shares(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    return np.array(
      [
        crowd.label_shares(config, text_of(prompt), response)
        for prompt, response in zip(prompts, responses, strict=True)
      ]
    )

  return shares


def oracle_probs(
  config: crowd.CrowdConfig, records: Sequence[Record]
) -> np.ndarray:
  """Probability that each group prefers the first response, float64 [N, K]."""
  return np.array(
    [crowd.vote_probs(config, r.prompt, *r.responses) for r in records]
  )


def bayes_accuracy(
  config: crowd.CrowdConfig, records: Sequence[Record]
) -> Ceiling:
  """Expected accuracy of the true probabilities on the pairs of `records`.

  The labels of the records do not enter, only their pairs: the expectation is
  over new votes. The shared model sides with the crowd's mean probability on
  every pair, which a single scalar reward may or may not be able to.

  Args:
    config: the crowd.
    records: pairs of its text world.

  Returns:
    The ceilings.
  """
  probs = oracle_probs(config, records)
  shares = np.asarray(config.shares)
  crowd_prob = probs @ shares
  side = np.sign(crowd_prob - 0.5)[:, None]
  shared = (0.5 + side * (probs - 0.5)).mean(axis=0)
  own = (0.5 + np.abs(probs - 0.5)).mean(axis=0)
  return Ceiling(
    shared=float(shared @ shares),
    shared_per_group=shared,
    own_per_group=own,
    own=float(own @ shares),
  )


def reference_accuracies(
  config: crowd.CrowdConfig,
) -> dict[str, dict[str, float]]:
  """What a model trained on this crowd is measured against, on its test split.

  Args:
    config: the crowd.

  Returns:
    For "all" and for each group that the records name: `always_longer`,
    `bag_of_words` (trained on the training split), and the expected ceilings
    `shared` and `own` of `bayes_accuracy` for single votes.
  """
  test = crowd.draw_records(config, split="test")
  bag = baselines.BagOfWords.fit(crowd.draw_records(config, split="train"))
  ceiling = bayes_accuracy(config, test)
  ceilings = {"all": (ceiling.shared, ceiling.own)}
  for k, group in enumerate(config.groups):
    ceilings[group] = (ceiling.shared_per_group[k], ceiling.own_per_group[k])
  accuracies = {}
  for name, (shared, own) in ceilings.items():
    subset = [r for r in test if name in ("all", r.group)]
    if subset:
      accuracies[name] = {
        "always_longer": baselines.always_longer_accuracy(subset),
        "bag_of_words": bag.accuracy(subset),
        "shared": float(shared),
        "own": float(own),
      }
  return accuracies
