"""Weight loader: checkpoint tensors to placed arrays, one layer at a time."""

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import config_map, gated, param_map
from jaxalign.models.hf.family import HEADS, Family
from jaxalign.models.hf.safetensor_files import TensorFiles

CHUNK_BYTES = 8 * 2**20
ALIGNMENT = 64  # bytes; XLA on a CPU then takes the buffer over as it is
FRESH_HEADS = frozenset(row.theirs for row in HEADS) - {"lm_head.weight"}


def match_tensors(
  files: TensorFiles,
  parts: Mapping[str, param_map.Part],
  config: DecoderConfig,
  path: str | os.PathLike[str],
  *,
  may_draw: bool,
  cut: bool = False,
) -> dict[str, str]:
  """Finds every tensor and accounts for every tensor that is there.

  Args:
    files: the checkpoint.
    parts: where the parameters lie, from `param_map.parts`.
    config: what they belong to.
    path: the folder, for errors.
    may_draw: whether a score or value head may be missing.
    cut: whether layers above those of the config may be left over, and heads
      that it does not have.

  Returns:
    Full name -> name in the files.

  Raises:
    ValueError: a tensor is missing, left over or misshapen, by name.
  """
  family = config_map.family_of(config)
  there = files.names()
  names: dict[str, str] = {}
  for part in parts.values():
    for full in part.names():
      short = full.removeprefix(family.prefix)
      name = full if full in there else short
      if full == "score.weight" and gated.HEAD in there:
        name = gated.HEAD
      if name not in there:
        if full in FRESH_HEADS and may_draw:
          continue
        hint = "; pass a key to draw that head" if full in FRESH_HEADS else ""
        raise ValueError(f"{path}: tensor {full} is missing{hint}")
      if files.shape(name) != part.tensor_shape:
        raise ValueError(
          f"{files.file_of(name)}: tensor {name} must have shape "
          f"{part.tensor_shape}, got {files.shape(name)}"
        )
      names[full] = name
  left = there - set(names.values())
  head = next(
    row.theirs for row in family.tensors if row.ours == ("lm_head/kernel",)
  )
  if head in left:
    left -= {head}
    if config.num_outputs is None:
      _check_tied(files, head, names[parts["embed/tokens"].row.theirs])
  if cut:
    left -= FRESH_HEADS
    left = {name for name in left if not _is_above(name, family, config)}
  if gated.HEAD in there:
    left = {name for name in left if not gated.belongs(name)}
  for name in sorted(left):
    if not re.fullmatch(family.ignored_tensors, name):
      raise ValueError(
        f"{files.file_of(name)}: tensor {name} does not belong to a "
        f"{config_map.architecture(config)} with this config.json"
      )
  return names


def _is_above(name: str, family: Family, config: DecoderConfig) -> bool:
  """Whether a tensor is of a layer that the config does not have."""
  for row in family.tensors:
    if "{layer}" not in row.theirs:
      continue
    before, after = row.theirs.removeprefix(family.prefix).split("{layer}")
    found = re.fullmatch(
      rf"({re.escape(family.prefix)})?{re.escape(before)}(\d+)"
      rf"{re.escape(after)}",
      name,
    )
    if found and int(found[2]) >= config.num_layers:
      return True
  return False


def _check_tied(files: TensorFiles, head: str, embedding: str) -> None:
  """A head stored beside the embedding it is tied to must be its copy."""
  same = files.shape(head) == files.shape(embedding)
  for start in range(0, files.shape(embedding)[0] if same else 0, 1024):
    stop = min(start + 1024, files.shape(embedding)[0])
    same = same and np.array_equal(
      files.rows(head, start, stop), files.rows(embedding, start, stop)
    )
  if not same:
    raise ValueError(
      f"{files.file_of(head)}: tensor {head} differs from {embedding}, but "
      "tie_word_embeddings is true in config.json"
    )


def read_parameter(
  files: TensorFiles,
  part: param_map.Part,
  names: Mapping[str, str],
  dtype: np.dtype,
  sharding: jax.sharding.Sharding | None,
) -> jax.Array:
  """One parameter, read shard by shard and layer by layer.

  Each device's share is read from the file, converted and transposed on the
  way, into the buffer that is handed over; layers go one at a time into the
  array of all layers. Beside the parameter itself no more than one layer's
  tensor and a chunk of a file are held.

  Args:
    files: the checkpoint.
    part: the parameter's place in it.
    names: full name of a tensor -> its name in the files.
    dtype: type of the parameter.
    sharding: where it goes, None for the default device.

  Returns:
    The array, of shape `part.shape`.
  """

  def placed(full: str, where: jax.sharding.Sharding | None) -> jax.Array:
    read = lambda index: read_part(files, names[full], part, index, dtype)
    if where is None:
      return jax.device_put(read((slice(None),) * len(part.inner)))
    return jax.make_array_from_callback(part.inner, where, read)

  if not part.layered:
    return placed(part.names()[0], sharding)
  of_layer = sharding
  if isinstance(sharding, NamedSharding):
    of_layer = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
  whole = _zeros(part.shape, dtype, sharding)
  for layer, full in enumerate(part.names()):
    # Waiting keeps later layers out of memory until this one has left.
    whole = jax.block_until_ready(
      _setter(sharding)(whole, placed(full, of_layer), jnp.int32(layer))
    )
  return whole


def read_part(
  files: TensorFiles,
  name: str,
  part: param_map.Part,
  index: tuple[slice, ...],
  dtype: np.dtype,
) -> np.ndarray:
  """What a tensor holds of one parameter, or of one of its layers.

  Args:
    files: the checkpoint.
    name: of the tensor in it.
    part: the parameter's place.
    index: the entries wanted, a slice for each axis of `part.inner`.
    dtype: type of the result.

  Returns:
    Array of the indexed shape.
  """
  outs = part.columns[index[-1]]
  rest = [np.arange(n)[i] for n, i in zip(part.inner, index, strict=False)]
  target = _aligned_empty([len(along) for along in (*rest[:-1], outs)], dtype)
  by_rows = part.row.transpose or len(part.inner) == 1
  rows, columns = (outs, rest[0]) if by_rows else (rest[0], outs)
  # Theirs has its first axis where ours has it, unless it is transposed.
  view = target.T if part.row.transpose else target
  width = int(np.prod(files.shape(name)[1:])) * files.dtype(name).itemsize
  for at, start, stop in _runs(rows, max(1, CHUNK_BYTES // max(1, width))):
    block = files.rows(name, start, stop)
    if len(part.inner) > 1:
      block = block[:, _as_slice(columns)]
    view[at : at + stop - start] = block
  return target


def _runs(rows: np.ndarray, limit: int) -> Iterator[tuple[int, int, int]]:
  """(place in `rows`, start, stop) of its stretches without a gap."""
  cuts = np.flatnonzero(np.diff(rows) != 1) + 1
  at = 0
  for run in np.split(rows, cuts):
    for start in range(0, len(run), limit):
      piece = run[start : start + limit]
      yield at + start, int(piece[0]), int(piece[-1]) + 1
    at += len(run)


def _as_slice(columns: np.ndarray) -> slice | np.ndarray:
  """The same columns as a slice where they have no gap: it copies nothing."""
  if len(columns) and np.all(np.diff(columns) == 1):
    return slice(int(columns[0]), int(columns[-1]) + 1)
  return columns


def _aligned_empty(shape: list[int], dtype: np.dtype) -> np.ndarray:
  """An array that XLA on a CPU need not copy."""
  size = int(np.prod(shape)) * dtype.itemsize
  buffer = np.empty(size + ALIGNMENT, np.uint8)
  skip = -buffer.ctypes.data % ALIGNMENT
  return buffer[skip : skip + size].view(dtype).reshape(shape)


def _zeros(
  shape: tuple[int, ...],
  dtype: np.dtype,
  sharding: jax.sharding.Sharding | None,
) -> jax.Array:
  make = lambda: jnp.zeros(shape, dtype)
  return jax.jit(make, out_shardings=sharding)()


@functools.cache
def _setter(sharding: jax.sharding.Sharding | None) -> Callable[..., Any]:
  """`(whole, layer, at) -> whole` in place."""
  put = lambda whole, layer, at: jax.lax.dynamic_update_index_in_dim(
    whole, layer, at, 0
  )
  return jax.jit(put, donate_argnums=0, out_shardings=sharding)
