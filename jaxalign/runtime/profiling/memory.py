"""Memory per device of a program's arrays, by what they are for."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxalign.runtime.profiling import compiled

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
_USED = re.compile(rf"Used {_SIZE} of {_SIZE} hbm")
_TEMPORARIES = re.compile(rf"HLO temporaries \({_SIZE}i?B?\) exceeds")


Passes = Mapping[str, tuple[str, ...]]
FORWARD: Passes = {"tokens": ("forward",)}
TRAINING: Passes = {"tokens": ("forward_backward",)}


class Program(NamedTuple):
  """A program of a stage, for the compile stage.

  Attributes:
    name: what it does: "step", "generate".
    lower: gives the program for its abstract arguments, ready to compile.
    parts: abstract arrays with shardings by what they are for: "parameters",
      "optimizer", "batch", and "kv_cache" where the program makes one.
    rows: shape of the tokens it takes.
    flops: of one run over all devices, by formula.
  """

  name: str
  lower: Callable[[], jax.stages.Lowered]
  parts: Mapping[str, Any]
  rows: tuple[int, ...]
  flops: float


def batch_flops(
  config: compiled.DecoderShape, batch: Mapping[str, Any], passes: Passes
) -> float:
  """`compiled.decoder_flops` of everything that is done with a batch.

  Args:
    config: the decoder's description, with `num_outputs`.
    batch: arrays, abstract ones too.
    passes: name of an array of tokens [..., T] -> what is done with it, one
      after another.

  Returns:
    Number of floating-point operations over all devices.
  """
  total = 0.0
  for name, kinds in passes.items():
    shape = batch[name].shape
    for kind in kinds:
      total += compiled.decoder_flops(
        config,
        math.prod(shape),
        shape[-1],
        passes=kind,
        num_outputs=config.num_outputs,
      )
  return total


def program_of(
  network: compiled.DecoderShape,
  batch: Mapping[str, jax.ShapeDtypeStruct],
  *,
  name: str,
  lower: Callable[[], jax.stages.Lowered],
  parts: Mapping[str, Any],
  passes: Passes,
) -> Program:
  """A program that reads a batch of tokens, with its FLOPs.

  Args:
    network: the decoder's description, with `num_outputs`.
    batch: abstract arrays, `tokens` [..., T] and those of `passes` among them.
    name: as in `Program`.
    lower: as in `Program`.
    parts: as in `Program`, without the batch.
    passes: what is done with each array of tokens.

  Returns:
    The program.
  """
  rows = batch["tokens"].shape
  flops = batch_flops(network, batch, passes)
  return Program(name, lower, {**parts, "batch": batch}, rows, flops)


class Giant(NamedTuple):
  """An array of which every device holds a whole copy."""

  path: str
  shape: tuple[int, ...]
  bytes: int


def _size(leaf: Any, shape: tuple[int, ...]) -> int:
  # A typed key counts as the words it is made of.
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
    leaf = jax.eval_shape(jax.random.key_data, leaf)
    return math.prod(shape) * leaf.shape[-1] * leaf.dtype.itemsize
  return math.prod(shape) * leaf.dtype.itemsize


def bytes_per_device(tree: Any) -> int:
  """Bytes of a tree on the device that holds most of it.

  Args:
    tree: arrays or ShapeDtypeStructs with shardings.

  Returns:
    Bytes, without the padding of a device's memory layout.
  """
  return sum(
    _size(leaf, leaf.sharding.shard_shape(leaf.shape))
    for leaf in jax.tree.leaves(tree)
  )


def replicated_giants(
  tree: Any, *, model_bytes: int, share: float = 0.01
) -> list[Giant]:
  """Arrays that no device shares with another and that are large.

  On one device nothing is replicated.

  Args:
    tree: arrays or ShapeDtypeStructs with shardings.
    model_bytes: bytes of all parameters together.
    share: part of `model_bytes` above which an array is large.

  Returns:
    Them, by falling size.
  """
  giants = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    size = _size(leaf, leaf.shape)
    if (
      leaf.sharding.is_fully_replicated
      and len(leaf.sharding.device_set) > 1
      and size > share * model_bytes
    ):
      giants.append(Giant(jax.tree_util.keystr(path), leaf.shape, size))
  return sorted(giants, key=lambda giant: -giant.bytes)


def model_bytes(params: Any) -> int:
  """Bytes of all parameters together, each counted once.

  Args:
    params: tree of arrays or ShapeDtypeStructs.
  """
  return sum(_size(leaf, leaf.shape) for leaf in jax.tree.leaves(params))


def exceeded(message: str, arguments: int) -> int | None:
  """Bytes per device that a program would need that did not compile.

  Args:
    message: of the compiler's error.
    arguments: bytes per device of the program's arguments.

  Returns:
    Bytes, or None if the error is of another kind.
  """
  used = _USED.search(message)
  if used is not None:
    return int(float(used[1]) * _UNITS[used[2]])
  temporaries = _TEMPORARIES.search(message)
  if temporaries is not None:
    return arguments + int(float(temporaries[1]) * _UNITS[temporaries[2]])
  return None
