"""Training pairs as the `denoised` recipe sees them: targets by strength."""

import dataclasses
import itertools
import logging

import jax.numpy as jnp
import numpy as np

from jaxalign.algorithms import bradley_terry, denoised
from jaxalign.experiments.datasets import preferences

log = logging.getLogger("jaxalign")


def with_targets(
  config: denoised.DenoisedConfig,
  loss: bradley_terry.PairLossConfig,
  pairs: preferences.Pairs,
) -> tuple[preferences.Pairs, np.ndarray | None]:
  """Labels and margins that the policy makes of the pairs' strengths.

  Args:
    config: the policy.
    loss: the `loss` section; with labels="hard" every pair begins as decided.
    pairs: all training pairs.

  Returns:
    The pairs with other `chosen_prob` and `margin`, and which of them are
    learned from, int [M], None for all.

  Raises:
    ValueError: a pair has no strength.
  """
  dataset = pairs.dataset
  missing = np.flatnonzero(np.isnan(dataset.strength))
  if missing.size:
    at = int(missing[0])
    record = next(itertools.islice(pairs.records, at, None))
    raise ValueError(
      f"recipe 'denoised' needs a strength for every training pair; "
      f"{missing.size} of {len(dataset)} have none, the first is pair {at}, id "
      f"{record.id!r}, of source {record.source!r}: the denoise stage writes "
      "the same records with `strength`"
    )
  if not (dataset.strength < 0).any():
    log.warning(
      "no training pair has a strength below 0: is it an ensemble's mean gap?"
    )
  strength = jnp.asarray(dataset.strength)
  labels = dataset.chosen_prob
  if loss.labels == "hard":
    labels = np.ones_like(labels)
  made = denoised.targets(config, strength, chosen_prob=jnp.asarray(labels))
  new = np.array(made.chosen_prob)
  pairs = pairs._replace(
    dataset=dataclasses.replace(
      dataset,
      chosen_prob=new,
      margin=np.array(made.margin),
      has_margin=np.ones_like(dataset.has_margin),
    )
  )
  keep = np.asarray(denoised.kept(config, strength))
  log.info(
    "policy %s: %d of %d labels changed, %d pairs left out",
    config.policy,
    int((new != labels).sum()),
    len(keep),
    int((~keep).sum()),
  )
  return pairs, None if keep.all() else np.flatnonzero(keep)
