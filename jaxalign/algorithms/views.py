"""How alike the two views of an instance are, and different instances."""

import jax
import jax.numpy as jnp

from jaxalign.ops import unit_rows


def mean_cosines(
  views: tuple[jax.Array, jax.Array], where: jax.Array
) -> dict[str, jax.Array]:
  """Mean cosine between an instance's views, and between two instances.

  Args:
    views: both views of the batch's instances, [N, D] each.
    where: instances that count, bool [N].

  Returns:
    `train/view_cosine` and `train/instance_cosine`, the first view of one
    instance against the second of another; 0 where there are none.
  """
  first, second = (
    jnp.where(where[:, None], unit_rows(view), 0.0) for view in views
  )
  count = jnp.sum(where).astype(first.dtype)
  alike = jnp.sum(first * second)
  everything = jnp.sum(jnp.sum(first, axis=0) * jnp.sum(second, axis=0))
  others = jnp.maximum(count * (count - 1), 1)
  return {
    "train/view_cosine": alike / jnp.maximum(count, 1),
    "train/instance_cosine": (everything - alike) / others,
  }
