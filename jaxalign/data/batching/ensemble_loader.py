"""Ensemble batch loader: every member has its own epoch plan."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxalign.data.batching import loader


class MemberBatches:
  """The batches of M members, stacked: `[step]` holds arrays [M, B, ...].

  Every member sees its own batches, all of them once an epoch and in an order
  of its own, but at a step all take batches of about the same length: the
  epoch's batches are sorted by length and shown in an order that all share, so
  that no member pads to what another happens to need. With sources one after
  another ("sequential") each keeps its own order, and pads.

  Attributes:
    members: M sources of the same data that differ in their seed.
  """

  def __init__(self, members: Sequence[loader.Batches]) -> None:
    """Checks that the members go together.

    Args:
      members: of one dataset, batch size and mixing.

    Raises:
      ValueError: there is none, or their epochs differ in length.
    """
    if not members or len({len(member) for member in members}) > 1:
      raise ValueError(
        "members must be one or more with the same number of steps, got "
        f"{[len(member) for member in members]}"
      )
    self.members = tuple(members)

  def __len__(self) -> int:
    """Steps per epoch."""
    return len(self.members[0])

  def member_step(self, member: int, step: int) -> int:
    """Step of its own epoch plan that a member takes at `step`."""
    source = self.members[member]
    if source.mixing == "sequential":
      return step
    epoch, at = divmod(int(step), len(self))
    # The first seed stands for all; 1 keeps clear of the members' own streams.
    rng = np.random.default_rng([self.members[0].seed, epoch, 1])
    rank = rng.permutation(len(self))[at]
    own = np.argsort(source.batch_lengths(epoch), kind="stable")[rank]
    return epoch * len(self) + int(own)

  def hold(self, steps: Iterable[int]) -> None:
    """Loads the rows this process shows in some steps; see `Batches.hold`."""
    steps = list(steps)
    for number, member in enumerate(self.members):
      if member.process_count > 1:
        member.hold([self.member_step(number, step) for step in steps])

  def __getitem__(self, step: int) -> dict[str, Any]:
    """The batches of all members, this process's rows."""
    found = [
      source[self.member_step(m, step)] for m, source in enumerate(self.members)
    ]
    length = max(batch["tokens"].shape[-1] for batch in found)
    for batch, source in zip(found, self.members, strict=True):
      room = ((0, 0), (0, 0), (0, length - batch["tokens"].shape[-1]))
      batch["tokens"] = np.pad(
        batch["tokens"], room, constant_values=source.pad_id
      )
      batch["mask"] = np.pad(batch["mask"], room)
    return {
      name: np.stack([batch[name] for batch in found]) for name in found[0]
    }
