"""Shapes with shardings: what a lowering or a restore takes for arrays."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from jaxalign.runtime.distributed import mesh as meshes


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


def shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
  """Shape per leaf, by a path that is the same before and after a save."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in flat
  }


def check_same(
  saved: Mapping[str, tuple[int, ...]],
  wanted: Mapping[str, tuple[int, ...]],
  where: str,
) -> None:
  """Raises ValueError for the first parameter whose shape differs.

  Args:
    saved: shape by path, of a checkpoint.
    wanted: the same of a config.
    where: the checkpoint.
  """
  for name in [*wanted, *(n for n in saved if n not in wanted)]:
    if saved.get(name) != wanted.get(name):
      raise ValueError(
        f"{where} holds another model: {name} is "
        f"{saved.get(name, 'absent')} in the checkpoint and "
        f"{wanted.get(name, 'absent')} in this config"
      )
