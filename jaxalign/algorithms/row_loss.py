"""Row losses and couplings: what one row costs, and how rows are put together.

A reward model's objective is chosen in two parts. A `RowLoss` says what a row
of the batch costs by itself: a pair of hard or soft labels, labelled responses,
a mixture of heads. A `Coupling` finds a weight for each row from sums over the
batch: the plain mean here, sources in `more`, groups in `group_dro`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.algorithms.update import (
  Batch,
  Metrics,
  Objective,
  Outputs,
  Params,
  Scalars,
  Statistics,
  same_batch,
)


class RowLoss(NamedTuple):
  """What each row of a batch costs.

  Attributes:
    losses: `(outputs, batch) -> [B]`, the sum of a row's terms: of its one
      pair, or of its labelled responses. Rows that do not count may hold
      anything finite.
    counts: `batch -> [B]`, how many terms a row has, 0 where it does not count.
    metrics: `(outputs, batch) -> (total, count) by name` under any coupling.
    num_outputs: H, what the model puts out per response.
    prepare: as `Objective.prepare`, of the carry below.
    carry: what rows read beside the batch; no step changes it.
  """

  losses: Callable[[Outputs, Batch], jax.Array]
  counts: Callable[[Batch], jax.Array]
  metrics: Callable[[Outputs, Batch], Metrics]
  num_outputs: int = 1
  prepare: Callable[[Batch, Any], Batch] = same_batch
  carry: Any = ()


class Coupling(NamedTuple):
  """How much each row of a batch weighs.

  Attributes:
    statistics: as `Objective.statistics`.
    context: as `Objective.context`.
    shares: `(context, batch) -> [B]` or [], what each row's loss is multiplied
      by; the loss of the batch is the sum.
    carry: what goes from step to step.
  """

  statistics: Callable[[Outputs, Batch], Statistics]
  context: Callable[[Statistics, Any], tuple[Any, Any, Scalars]]
  shares: Callable[[Any, Batch], jax.Array]
  carry: Any = ()


class Carry(NamedTuple):
  """The carry where rows and coupling both have one.

  Attributes:
    rows: `RowLoss.carry`.
    coupling: `Coupling.carry`.
  """

  rows: Any
  coupling: Any


def rows_of(carry: Any) -> Any:
  """The rows' part of an objective's carry, of rows that have one."""
  return carry.rows if isinstance(carry, Carry) else carry


def with_rows(carry: Any, rows: Any) -> Any:
  """An objective's carry with another part of the rows."""
  return carry._replace(rows=rows) if isinstance(carry, Carry) else rows


def mean(rows: RowLoss) -> Coupling:
  """The plain mean over all terms of the batch.

    L = Σ_n l_n / N

  Args:
    rows: what each row costs.

  Returns:
    The coupling. The statistic is N, the number of terms.
  """

  def statistics(outputs: Outputs, batch: Batch) -> jax.Array:
    del outputs
    return jnp.sum(rows.counts(batch), dtype=float)

  def context(total: jax.Array, carry: Any) -> tuple[jax.Array, Any, Scalars]:
    return 1 / jnp.maximum(total, 1), carry, {}

  return Coupling(statistics, context, lambda share, batch: share)


def couple(
  forward: Callable[[Params, Batch], Outputs], rows: RowLoss, coupling: Coupling
) -> Objective:
  """The objective of rows under a coupling.

    L = Σ_n w_n l_n,   w constant in the parameters

  Args:
    forward: the network, see `Objective.forward`.
    rows: what each row costs.
    coupling: how much each row weighs.

  Returns:
    The objective. Its carry is that of the part that has one, `Carry` of both.
  """
  in_rows, in_coupling = (
    bool(jax.tree.leaves(part.carry)) for part in (rows, coupling)
  )

  def split(carry: Any) -> tuple[Any, Any]:
    if in_rows and in_coupling:
      return carry.rows, carry.coupling
    return (carry, ()) if in_rows else ((), carry)

  def prepare(batch: Batch, carry: Any) -> Batch:
    return rows.prepare(batch, split(carry)[0])

  def context(sums: Statistics, carry: Any) -> tuple[Any, Any, Scalars]:
    of_rows, own = split(carry)
    found, own, scalars = coupling.context(sums, own)
    if in_rows:
      own = Carry(of_rows, own) if in_coupling else of_rows
    return found, own, scalars

  def loss(
    outputs: Outputs, batch: Batch, context: Any
  ) -> tuple[jax.Array, Metrics]:
    per_row = rows.losses(outputs, batch)
    share = coupling.shares(context, batch).astype(per_row.dtype)
    total = jnp.sum(share * per_row, where=batch["where"])
    return total, rows.metrics(outputs, batch)

  carry = coupling.carry
  if in_rows:
    carry = Carry(rows.carry, coupling.carry) if in_coupling else rows.carry
  return Objective(forward, coupling.statistics, loss, context, carry, prepare)
