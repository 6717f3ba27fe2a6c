"""Bucket lengths that a model can take: one rule for all that score texts."""

import logging
from collections.abc import Sequence

log = logging.getLogger("jaxalign")


def fitting(
  buckets: Sequence[int], positions: int, model: str
) -> tuple[int, ...]:
  """Buckets up to a model's length; what is longer is dropped and logged.

  Args:
    buckets: padded lengths in tokens, as a config has them.
    positions: tokens that the model takes at most.
    model: its folder, for the log.

  Returns:
    The lengths in rising order. Where one was dropped the last is `positions`,
    so that a text may be as long as the model allows.

  Raises:
    ValueError: no length, or one that is not positive.
  """
  if not buckets or min(buckets) < 1:
    raise ValueError(
      f"buckets must hold positive lengths, got {tuple(buckets)}"
    )
  dropped = sorted({length for length in buckets if length > positions})
  if not dropped:
    return tuple(sorted(set(buckets)))
  log.info(
    "buckets %s exceed the %d positions of %s and are dropped; longer texts "
    "are cut",
    tuple(dropped),
    positions,
    model,
  )
  return tuple(sorted({min(length, positions) for length in buckets}))
