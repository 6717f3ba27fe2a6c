"""Device mesh, and the table from logical axes to mesh axes.

Models name logical axes; this file alone decides what they mean on devices.
`pmap`, the second, data-parallel mode, lives here and nowhere else. Lowering
and restoring take abstract shapes with shardings from `with_shardings`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign.models import activations

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. A config may override rows.
LOGICAL_AXES: dict[str, tuple[str, ...]] = {
  "batch": ("data", "fsdp"),
  "replica": ("data",),  # rows that the devices of an fsdp group share
  "embed": ("fsdp",),
  "heads": ("tensor",),
  "kv_heads": ("tensor",),
  "mlp": ("tensor",),
  "vocab": ("tensor",),
  "layers": (),
  "head_dim": (),
  "positions": (),
  "norm": (),
  "outputs": (),
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices per mesh axis and overrides of the logical table.

  Attributes:
    data: replicas that split the batch; -1 takes all devices left over.
    fsdp: shards of parameters and optimiser, which split the batch too.
    tensor: shards of heads, MLP and vocabulary.
    rules: rows (logical axis, mesh axis or None) that replace the table's.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  rules: tuple[tuple[str, str | None], ...] = ()


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh with axes data, fsdp and tensor, all of type Auto.

  Args:
    config: devices per axis; the first data·fsdp·tensor devices are used.
    devices: defaults to all devices of all processes.

  Raises:
    ValueError: a size is not positive, or the mesh is larger than the devices
      or, with data=-1, does not divide them.
  """
  devices = list(jax.devices() if devices is None else devices)
  data, inner = config.data, config.fsdp * config.tensor
  if config.fsdp < 1 or config.tensor < 1 or (data < 1 and data != -1):
    raise ValueError(
      "mesh sizes must be positive (data may be -1), got data="
      f"{data}, fsdp={config.fsdp}, tensor={config.tensor}"
    )
  if data == -1:
    data, left = divmod(len(devices), inner)
    if left or not data:
      raise ValueError(
        f"mesh fsdp={config.fsdp} x tensor={config.tensor} = {inner} does not "
        f"divide the {len(devices)} devices"
      )
  needed = data * inner
  if needed > len(devices):
    raise ValueError(
      f"mesh data={data} x fsdp={config.fsdp} x tensor={config.tensor} needs "
      f"{needed} devices, got {len(devices)}"
    )
  if needed < len(devices) and jax.process_count() > 1:
    raise ValueError(
      f"mesh of {needed} devices leaves {len(devices) - needed} idle; with "
      "several processes every device must be used"
    )
  grid = np.array(devices[:needed]).reshape(data, config.fsdp, config.tensor)
  return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def logical_table(
  rules: Sequence[tuple[str, str | None]] = (),
) -> dict[str, tuple[str, ...]]:
  """The logical table with some rows replaced.

  Args:
    rules: (logical axis, mesh axis or None for replicated) rows.

  Raises:
    ValueError: a row names an unknown logical or mesh axis.
  """
  table = dict(LOGICAL_AXES)
  for logical, axis in rules:
    if logical not in table:
      raise ValueError(
        f"unknown logical axis {logical!r} in mesh.rules; allowed: "
        f"{', '.join(sorted(table))}"
      )
    if axis is not None and axis not in MESH_AXES:
      raise ValueError(
        f"unknown mesh axis {axis!r} in mesh.rules for {logical!r}; allowed: "
        f"{', '.join(MESH_AXES)} or None"
      )
    table[logical] = () if axis is None else (axis,)
  return table


def partition_spec(
  names: Sequence[str | None],
  shape: Sequence[int],
  mesh: Mesh,
  table: Mapping[str, tuple[str, ...]],
  *,
  path: str,
) -> PartitionSpec:
  """Where one parameter lies: a mesh axis, or several, per dimension.

  Args:
    names: a logical axis, or None, per dimension.
    shape: its dimensions.
    mesh: the mesh.
    table: mesh axes per logical axis.
    path: the parameter's name, for errors.

  Raises:
    ValueError: two dimensions fall on one mesh axis, a dimension is not
      divisible by its shards, or a name is unknown.
  """
  if len(names) != len(shape):
    raise ValueError(
      f"{path}: {len(names)} logical axes {tuple(names)} for shape "
      f"{tuple(shape)}"
    )
  entries: list[Any] = []
  used: dict[str, str | None] = {}
  for name, size in zip(names, shape, strict=True):
    if name is not None and name not in table:
      raise ValueError(f"{path}: unknown logical axis {name!r}")
    axes = () if name is None else table[name]
    for axis in axes:
      if axis in used and mesh.shape[axis] > 1:
        raise ValueError(
          f"{path}: logical axes {used[axis]!r} and {name!r} both lie on mesh "
          f"axis {axis!r}; override one row in mesh.rules"
        )
      used[axis] = name
    axes = tuple(axis for axis in axes if mesh.shape[axis] > 1)
    shards = math.prod(mesh.shape[axis] for axis in axes)
    if size % shards:
      raise ValueError(
        f"{path}: dimension {name!r} of {size} is not divisible by the "
        f"{shards} devices of {' x '.join(axes)}; change the mesh or set "
        f"mesh.rules to (({name!r}, None),)"
      )
    entries.append(axes[0] if len(axes) == 1 else (axes or None))
  return PartitionSpec(*entries)


def parameter_shardings(
  axes: Any,
  params: Any,
  mesh: Mesh,
  rules: Sequence[tuple[str, str | None]] = (),
) -> Any:
  """A sharding per parameter.

  Args:
    axes: tree of tuples of logical axes, as a model gives it.
    params: matching tree of arrays or shapes.
    mesh: the mesh.
    rules: overrides of the logical table.

  Returns:
    The same tree of NamedSharding.
  """
  table = logical_table(rules)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf, names: NamedSharding(
      mesh,
      partition_spec(
        names, leaf.shape, mesh, table, path=jax.tree_util.keystr(path)
      ),
    ),
    params,
    axes,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(LOGICAL_AXES["batch"]))


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
  """Raises ValueError, with the numbers, unless every device gets whole rows.

  Args:
    batch_size: rows per step over all devices.
    accumulation: micro-batches per step.
    mesh: the mesh.
  """
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  if batch_size % (shards * accumulation):
    raise ValueError(
      f"batch_size must be divisible by data x fsdp x accumulation, got "
      f"{batch_size} and {mesh.shape['data']} x {mesh.shape['fsdp']} x "
      f"{accumulation} = {shards * accumulation}"
    )


def sharded(
  update: Callable[..., Any],
  shardings: Any,
  mesh: Mesh,
  rules: Sequence[tuple[str, str | None]] = (),
) -> Callable[..., Any]:
  """`update` under `jax.jit` with its state laid out as `shardings`.

  Args:
    update: `(state, batch, key) -> (state, metrics)` on global arrays.
    shardings: tree of the state with a sharding per array.
    mesh: the mesh.
    rules: overrides of the logical table, which lays out activations too.

  Returns:
    The jitted step; the state is donated, metrics are on every device.
  """
  everywhere = replicated(mesh)
  return jax.jit(
    activations.laid_out(update, mesh, logical_table(rules)),
    in_shardings=(shardings, batch_sharding(mesh), everywhere),
    out_shardings=(shardings, everywhere),
    donate_argnums=0,
  )


def data_parallel(
  update: Callable[..., Any], mesh: Mesh
) -> Callable[[Any, Any, jax.Array], Any]:
  """`update` inside `jax.pmap` over axis "data": state copied, rows split.

  The whole step, optimiser included, runs per device; gradients meet in the
  psum that `make_update(axis_name="data")` puts there. It is called like the
  jitted step.

  Args:
    update: `(state, batch, key) -> (state, metrics)`, reducing over "data".
    mesh: a mesh whose fsdp and tensor axes are 1.

  Returns:
    `(state, batch, key) -> (state, metrics)`; the state is donated.

  Raises:
    ValueError: the mesh splits parameters, which pmap cannot.
  """
  fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
  if fsdp * tensor * jax.process_count() > 1:
    raise ValueError(
      "train.parallel='pmap' copies the parameters to every device of one "
      f"process, got fsdp={fsdp}, tensor={tensor} and {jax.process_count()} "
      "processes; use 'jit'"
    )
  devices = list(mesh.devices.flat)
  mapped = jax.pmap(
    update,
    axis_name="data",
    in_axes=(None, 0, None),
    out_axes=None,
    devices=devices,
    donate_argnums=0,
  )

  def step(state: Any, batch: Any, key: jax.Array) -> Any:
    rows = jax.tree.map(
      lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch
    )
    return mapped(state, rows, key)

  return step


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
    shapes, jax.tree.map(lambda _: batch_sharding(mesh), shapes)
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
      check_batch(spec.shape[0], accumulation, mesh)
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
