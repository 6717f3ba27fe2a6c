"""Shapes with shardings: what a lowering or a restore takes for arrays."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from jaxalign.runtime import mesh as meshes


def with_shardings(shapes: Any, shardings: Any) -> Any:
  """The shapes with a sharding each: what `jit.lower` and a restore take."""
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shapes,
    shardings,
  )


def batch_shapes(shapes: Any, mesh: Mesh) -> Any:
  """The abstract batch with its rows laid over the mesh."""
  return with_shardings(
    shapes, jax.tree.map(lambda _: meshes.batch_sharding(mesh), shapes)
  )


def check_rows(
  shapes: Mapping[str, Any], accumulation: int, mesh: Mesh
) -> None:
  """Raises ValueError unless every device gets whole rows of every array.

  Args:
    shapes: of the batch; rows beside the pairs may be of another number.
    accumulation: micro-batches per step.
    mesh: devices.
  """
  for name, spec in shapes.items():
    try:
      meshes.check_batch(spec.shape[0], accumulation, mesh)
    except ValueError as error:
      raise ValueError(f"rows of {name}: {error}") from None
