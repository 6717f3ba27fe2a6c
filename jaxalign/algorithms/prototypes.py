"""SwAV's prototypes: unit vectors beside the network, and how they move."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxalign import losses
from jaxalign.ops import unit_rows


class Prototypes(NamedTuple):
  """What SwAV hands from step to step.

  Attributes:
    centres: unit vectors, [K, D].
    moments: of the prototypes' own Adam.
    queue: earlier instances, or () for none.
  """

  centres: jax.Array
  moments: Any
  queue: Any


def init_prototypes(
  number: int, num_features: int, *, queue_size: int
) -> Prototypes:
  """Random directions, the same in every run, and an empty queue.

  Args:
    number: K.
    num_features: D.
    queue_size: instances kept, 0 for none.

  Returns:
    The prototypes before the first step.
  """
  shape = (number, num_features)
  centres = unit_rows(jax.random.normal(jax.random.key(0), shape, jnp.float32))
  queue: Any = ()
  if queue_size:
    queue = losses.init_feature_queue(queue_size, num_features)
  return Prototypes(centres, optax.scale_by_adam().init(centres), queue)


def moved_prototypes(
  prototypes: Prototypes,
  slopes: jax.Array,
  views: tuple[jax.Array, jax.Array],
  where: jax.Array,
  *,
  learning_rate: float,
) -> Prototypes:
  """The prototypes after a step of their Adam, back on the unit sphere.

  Args:
    prototypes: before the step.
    slopes: gradient of the loss in the centres, [K, D].
    views: both views of the batch's instances, [N, D] each, for the queue.
    where: instances that count, bool [N].
    learning_rate: Python float.

  Returns:
    The prototypes after it.
  """
  centres, moments, queue = prototypes
  direction, moments = optax.scale_by_adam().update(
    slopes.astype(centres.dtype), moments
  )
  if queue:
    queue = losses.push_features(queue, *views, where=where)
  return Prototypes(
    unit_rows(centres - learning_rate * direction), moments, queue
  )


def num_used(
  centres: jax.Array, rows: jax.Array, where: jax.Array
) -> jax.Array:
  """How many prototypes are in use, in [1, K].

    exp(entropy of the shares of rows that each prototype is nearest to)

  Args:
    centres: unit vectors, [K, D].
    rows: instances, [N, D].
    where: instances that count, bool [N].

  Returns:
    The number, [].
  """
  nearest = jnp.argmax(unit_rows(rows) @ centres.T.astype(rows.dtype), axis=-1)
  number = jnp.zeros(len(centres), rows.dtype)
  number = number.at[nearest].add(where.astype(rows.dtype))
  share = number / jnp.maximum(jnp.sum(number), 1)
  return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))
