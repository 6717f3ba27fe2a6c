"""Multi-host runs: start, barriers, and arrays that span processes."""

import logging
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxalign.data.batching import sharded_tokens
from jaxalign.runtime.distributed import rendezvous

_log = logging.getLogger(__name__)

# Said to JAX, as its own choice has moved between releases: hosts that were
# installed on different days would wait for each other at different doors.
PORT = 8482


def initialize(
  *,
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  timeout_s: int,
) -> None:
  """Joins this process to the others; call it before any other JAX call.

  With all three given, the processes are counted first, so that a missing one
  is named. With all three None, JAX finds them itself (Cloud TPU, SLURM, Open
  MPI); it then also keeps the time, and ends the process when a host is
  missing.

  Args:
    coordinator: "HOST:PORT" of process 0, or "HOST" for `PORT`; the port must
      be free there and open to the others.
    num_processes: processes of the run.
    process_id: this one, from 0.
    timeout_s: seconds to wait for all of them.

  Raises:
    ValueError: some but not all of the three are given, one is out of range,
      or the processes contradict each other.
    TimeoutError: processes are missing, with their numbers.
  """
  given = {
    "coordinator": coordinator,
    "num_processes": num_processes,
    "process_id": process_id,
  }
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    _log.info("looking for the other processes, for up to %d s", timeout_s)
    jax.distributed.initialize(initialization_timeout=timeout_s)
    return
  if coordinator is None or num_processes is None or process_id is None:
    raise ValueError(
      "give all of coordinator, num_processes and process_id, or none to have "
      f"JAX find them; missing: {', '.join(missing)}"
    )
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f"process_id must be in [0, num_processes={num_processes}), got "
      f"{process_id}"
    )
  coordinator = with_port(coordinator)
  rendezvous.wait_for_all(
    coordinator,
    num_processes=num_processes,
    process_id=process_id,
    timeout_s=timeout_s,
  )
  jax.distributed.initialize(
    coordinator,
    num_processes=num_processes,
    process_id=process_id,
    initialization_timeout=timeout_s,
  )


def with_port(coordinator: str) -> str:
  """The address with `PORT` where it names none.

  Args:
    coordinator: "HOST", "HOST:PORT", "[IPV6]" or "[IPV6]:PORT".
  """
  named = coordinator.rpartition("]")[2] if "]" in coordinator else coordinator
  return coordinator if ":" in named else f"{coordinator}:{PORT}"


def is_main() -> bool:
  """Whether this process writes files and logs for all."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has reached this call.

  Args:
    name: the same on all processes; a difference is an error on all of them.
  """
  multihost_utils.sync_global_devices(name)


def all_hosts_gather(array: np.ndarray) -> np.ndarray:
  """One array from every process, for small numbers such as counts.

  Args:
    array: any dtype, the same shape and dtype on all processes, [...].

  Returns:
    [P, ...], row p from process p, bit for bit: 64-bit values stay so.
  """
  array = np.ascontiguousarray(array)
  # As bytes: JAX would narrow 64-bit numbers on the way.
  sent = np.frombuffer(array.tobytes(), np.uint8)
  rows = np.asarray(multihost_utils.process_allgather(sent, tiled=False))
  rows = rows.reshape(jax.process_count(), sent.size)
  received = np.frombuffer(rows.tobytes(), array.dtype)
  return received.reshape(jax.process_count(), *array.shape).copy()


def all_hosts_sum(array: np.ndarray) -> np.ndarray:
  """Sum over processes, in the array's own dtype.

  Args:
    array: the same shape and dtype on all processes, [...].

  Returns:
    [...], the same on all processes.
  """
  return all_hosts_gather(array).sum(axis=0, dtype=np.asarray(array).dtype)


def check_same(what: str, content: bytes) -> None:
  """Raises an error if the processes hold different values.

  Args:
    what: name of it, for the error.
    content: a digest, as long on all processes.

  Raises:
    ValueError: it differs, on every process, with the processes that differ
      from process 0.
  """
  rows = all_hosts_gather(np.frombuffer(content, np.uint8))
  others = [p for p, row in enumerate(rows) if (row != rows[0]).any()]
  if others:
    raise ValueError(
      f"{what} of process {', '.join(map(str, others))} differs from that of "
      "process 0: all hosts must see the same files, and the same config"
    )


def sharing() -> sharded_tokens.Processes:
  """The processes of this run, for work on records that they share."""
  return sharded_tokens.Processes(
    jax.process_index(), jax.process_count(), all_hosts_gather
  )


def check_disjoint(what: str, shown: np.ndarray) -> None:
  """Refuses rows that more than one process shows.

  Args:
    what: name of the rows, for the error.
    shown: which of all rows this process shows, bool [N].

  Raises:
    ValueError: a row is shown twice, with its number and the processes.
  """
  all_shown = all_hosts_gather(np.packbits(shown))
  times = np.zeros(len(shown), np.int32)
  for packed in all_shown:
    times += np.unpackbits(packed, count=len(shown))
  twice = np.flatnonzero(times > 1)
  if len(twice):
    row = twice[0]
    bit = all_shown[:, row // 8] >> (7 - row % 8) & 1
    raise ValueError(
      f"row {row} of {what} is shown by processes "
      f"{np.flatnonzero(bit).tolist()}, and {len(twice) - 1} others are shown "
      "twice: each must belong to one process"
    )


def check_shares(rows: np.ndarray, batch_size: int) -> None:
  """Refuses shares of a batch that overlap or leave rows out.

  Args:
    rows: places in the whole batch that this process holds, int32 [B / P].
    batch_size: B.

  Raises:
    ValueError: a row is held by two processes or by none.
  """
  shares = all_hosts_gather(np.asarray(rows, np.int32))
  times = np.bincount(shares.ravel(), minlength=batch_size)
  wrong = np.flatnonzero(times != 1)
  if len(wrong):
    holders = np.flatnonzero((shares == wrong[0]).any(axis=1)).tolist()
    raise ValueError(
      f"row {wrong[0]} of a batch of {batch_size} must be held by one process, "
      f"got {holders}"
    )


def global_batch(batch: Any, sharding: Any) -> Any:
  """Arrays over all devices from the rows that each process holds.

  Args:
    batch: tree of NumPy arrays, [local rows, ...]; each process gives the rows
      of its own devices. The arrays may be reused afterwards.
    sharding: one sharding for all leaves, or a tree of them.

  Returns:
    Tree of jax.Arrays, [global rows, ...].
  """

  def place(leaf: np.ndarray, spread: jax.sharding.Sharding) -> jax.Array:
    # A copy, as JAX may keep using the memory of an aligned NumPy array.
    return jax.make_array_from_process_local_data(spread, np.array(leaf))

  if isinstance(sharding, jax.sharding.Sharding):
    return jax.tree.map(lambda leaf: place(leaf, sharding), batch)
  return jax.tree.map(place, batch, sharding)


def fetch(tree: Any) -> Any:
  """NumPy copies of whole arrays, on every process.

  Every process must call this with the same tree, since an array that is
  spread over processes is gathered.

  Args:
    tree: of jax.Arrays and anything `np.asarray` takes, [...].

  Returns:
    Tree of NumPy arrays of the same global shapes.
  """

  def whole(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
      return np.asarray(leaf)
    if leaf.is_fully_replicated:
      return np.asarray(leaf.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

  return jax.tree.map(whole, tree)
