"""Compiled programs: memory and operations, for TPUs without a TPU too."""

import os
import re
from typing import Any, NamedTuple, Protocol

import jax
from jax.experimental import topologies

from jaxalign.ops import checks
from jaxalign.runtime.profiling.hlo_collectives import Collective as Collective
from jaxalign.runtime.profiling.hlo_collectives import (
  collectives as collectives,
)

# Device kind as JAX names it -> memory in GiB that the compiler lets a program
# use. A v4 chip appears as two devices when compiled for ahead of time, and as
# one of twice the memory on the hardware.
_HBM_GIB = {
  "TPU v4": 15.25,
  "TPU v5 lite": 15.75,
  "TPU v5": 95.74,
  "TPU v6 lite": 31.25,
  "TPU7x": 94.75,
}

# Family in a topology's name -> device kind, accelerator type, and the cores
# per chip by which the accelerator type counts.
_FAMILIES = {
  "v4": ("TPU v4", "v4", 2),
  "v5e": ("TPU v5 lite", "v5litepod", 1),
  "v5p": ("TPU v5", "v5p", 2),
  "v6e": ("TPU v6 lite", "v6e", 1),
  "tpu7x": ("TPU7x", "tpu7x", 2),
}

_EXAMPLES = "v4:4x4x4, v5e:4x4, v5e:16x16, v5p:4x4x4, v6e:4x4, tpu7x:2x2x1"


class MemoryReport(NamedTuple):
  """Bytes that a compiled program needs on each device."""

  arguments: int
  temporaries: int
  outputs: int
  aliases: int  # outputs that reuse a donated argument
  total: int  # arguments + temporaries + outputs - aliases


def memory_report(compiled: jax.stages.Compiled) -> MemoryReport:
  """Device memory of a compiled program, in bytes per device.

    total = arguments + temporaries + outputs − aliases

  Args:
    compiled: `jax.jit(f).lower(...).compile()`.

  Returns:
    The total and its parts.

  Raises:
    RuntimeError: the backend does not analyse memory.
  """
  analysis = compiled.memory_analysis()
  if analysis is None:
    raise RuntimeError("this backend gives no memory analysis")
  arguments = analysis.argument_size_in_bytes
  temporaries = analysis.temp_size_in_bytes
  outputs = analysis.output_size_in_bytes
  aliases = analysis.alias_size_in_bytes
  return MemoryReport(
    arguments,
    temporaries,
    outputs,
    aliases,
    arguments + temporaries + outputs - aliases,
  )


def hbm_limit(device_kind: str) -> int:
  """Device memory that the compiler lets a program use, in bytes.

  The figures are those at which libtpu 0.0.42 refuses a program; they lie a
  little below the memory on the chip.

  Args:
    device_kind: `device.device_kind` ("TPU v5 lite") or a family ("v5e").

  Returns:
    Bytes per device as JAX counts devices.

  Raises:
    ValueError: the kind is not a known TPU.
  """
  if device_kind in _FAMILIES:
    device_kind = _FAMILIES[device_kind][0]
  checks.one_of(_HBM_GIB, device_kind=device_kind)
  return int(_HBM_GIB[device_kind] * 2**30)


def tpu_topology(name: str) -> list[Any]:
  """Abstract TPU devices to compile for on a machine without a TPU.

  libtpu would ask a cloud metadata server about the machine it is on, so the
  environment is filled in before it loads: call this before anything else
  touches libtpu, and with `JAX_PLATFORMS=cpu`.

  Args:
    name: family and chips per axis, such as "v5e:4x4" or "v5p:4x4x4".

  Returns:
    The devices, to build a mesh from; they cannot run anything.

  Raises:
    ValueError: the name is not of a known topology.
    RuntimeError: libtpu is not installed or does not load.
  """
  match = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+){1,2})", name)
  if match is None or match[1] not in _FAMILIES:
    raise ValueError(
      f"unknown TPU topology {name!r}: give FAMILY:SHAPE with a family of "
      f"{', '.join(_FAMILIES)} and chips per axis, such as {_EXAMPLES}"
    )
  _, accelerator, cores = _FAMILIES[match[1]]
  shape = tuple(int(size) for size in match[2].split("x"))
  chips = 1
  for size in shape:
    chips *= size
  # What is set already describes a real TPU machine, so it stays.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault(
    "TPU_ACCELERATOR_TYPE", f"{accelerator}-{chips * cores}"
  )
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  # Where `hlo_collectives.compiler_log` finds its warnings.
  os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "1")
  # libtpu guards the chips with a lock file; a compiler takes no chips, so
  # several may run at once.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  # A host has 2x2 chips unless the whole topology is a single one.
  options = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
  try:
    described = topologies.get_topology_desc(name, platform="tpu", **options)
  except (ImportError, RuntimeError, ValueError) as error:
    if "INVALID_ARGUMENT" in str(error):
      raise ValueError(
        f"libtpu rejects the topology {name!r} ({error}); known ones are "
        f"{_EXAMPLES}"
      ) from error
    raise RuntimeError(
      "compiling for a TPU needs a libtpu that loads, as pip install "
      f"'jaxalign[tpu]' brings it ({error})"
    ) from error
  return list(described.devices)


class DecoderShape(Protocol):
  """Sizes of a decoder; `models.DecoderConfig` and any like it will do."""

  num_layers: int
  embed_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  gated: bool
  vocab_size: int
  num_outputs: int | None


def decoder_flops(
  config: DecoderShape,
  tokens: int,
  sequence_length: int,
  *,
  passes: str = "forward",
  num_outputs: int | None = None,
) -> float:
  """Floating-point operations in the matrix products of a decoder.

    forward = tokens · (L · (2·D·(2·H + 2·H_kv)·d + 4·T·H·d + 2·m·D·F)
              + 2·D·V)

  with m = 3 matrices in a gated MLP, else 2. Attention counts every pair of
  positions, masked ones too, which is what an implementation without a causal
  kernel computes. A product costs twice as much again backwards, so forward
  and backward together are three times this; recomputation, under a remat
  policy or by the second of two phases over micro-batches, is not counted. The
  compiler's own count is no substitute: it counts the body of a scan over
  layers once.

  Args:
    config: L `num_layers`, D `embed_dim`, H `num_heads`, H_kv `num_kv_heads`,
      d `head_dim`, F `mlp_dim`, `gated`, V `vocab_size`.
    tokens: number of tokens, over all sequences.
    sequence_length: T, positions each token attends to, padding included.
    passes: "forward", or "forward_backward" for training.
    num_outputs: width of the head in place of V; 1 for a reward, 0 for none.

  Returns:
    Number of floating-point operations; a multiply-add is two.

  Raises:
    ValueError: `passes` is neither.
  """
  checks.one_of(("forward", "forward_backward"), passes=passes)
  width, heads = config.embed_dim, config.num_heads * config.head_dim
  kv_heads = config.num_kv_heads * config.head_dim
  projections = 2 * width * (2 * heads + 2 * kv_heads)
  attention = 4 * sequence_length * heads
  mlp = 2 * (3 if config.gated else 2) * width * config.mlp_dim
  outputs = config.vocab_size if num_outputs is None else num_outputs
  layers = config.num_layers * (projections + attention + mlp)
  forward = float(tokens) * (layers + 2 * width * outputs)
  return 3 * forward if passes == "forward_backward" else forward


def host_memory_bytes() -> int:
  """Resident memory of this process, in bytes.

  Where the system has no /proc, the largest it has been so far.
  """
  try:
    with open("/proc/self/statm", "rb") as file:
      pages = int(file.read().split()[1])
  except FileNotFoundError:
    import resource  # noqa: PLC0415 - absent on Windows
    import sys  # noqa: PLC0415

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
  return pages * os.sysconf("SC_PAGE_SIZE")


def device_memory_bytes() -> int | None:
  """Memory in use on the fullest local device, in bytes.

  None on devices that do not count theirs, such as CPUs.
  """
  stats = [device.memory_stats() for device in jax.local_devices()]
  used = [s["bytes_in_use"] for s in stats if s and "bytes_in_use" in s]
  return max(used) if used else None
