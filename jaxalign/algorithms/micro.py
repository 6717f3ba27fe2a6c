"""A batch in parts, for when memory does not hold it at once."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Batch = Mapping[str, jax.Array]


def micro_batches(batch: Batch, number: int) -> Batch:
  """Deals the rows of a batch out to `number` micro-batches, [A, B / A, ...].

  Rows are dealt in turn, so each device keeps its own rows and a sharded batch
  is cut without communication.

  Args:
    batch: arrays [B, ...].
    number: micro-batches A.

  Returns:
    Arrays [A, B / A, ...].

  Raises:
    ValueError: B is not divisible by A.
  """

  def deal(array: jax.Array) -> jax.Array:
    size = array.shape[0]
    if size % number:
      raise ValueError(
        f"accumulation must divide the rows of a device's batch, got "
        f"{size} rows and accumulation {number}"
      )
    return jnp.swapaxes(
      array.reshape(size // number, number, *array.shape[1:]), 0, 1
    )

  return {name: deal(array) for name, array in batch.items()}


def sum_over(function: Callable[[Batch], Any], batches: Batch) -> Any:
  """Sum of a function over micro-batches, one at a time.

  Args:
    function: of one micro-batch, to a pytree of arrays.
    batches: arrays [A, B / A, ...].

  Returns:
    The pytree, summed over A.
  """
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches
  )
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(function, one),
  )
  add = lambda total, batch: (
    jax.tree.map(jnp.add, total, function(batch)),
    None,
  )
  return jax.lax.scan(add, zeros, batches)[0]


def map_over(
  function: Callable[[Batch], Any], batch: Batch, number: int
) -> Any:
  """A function of rows, on `number` micro-batches one at a time.

  Args:
    function: of a batch [B / A, ...], to a pytree of arrays [B / A, ...].
    batch: arrays [B, ...].
    number: micro-batches A.

  Returns:
    The pytree of the whole batch, [B, ...], in the order of its rows.
  """
  if number == 1:
    return function(batch)
  parts = jax.lax.map(function, micro_batches(batch, number))
  return jax.tree.map(
    lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), parts
  )
