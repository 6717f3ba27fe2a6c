"""Shapes with shardings: what a lowering or a restore takes for arrays."""

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
