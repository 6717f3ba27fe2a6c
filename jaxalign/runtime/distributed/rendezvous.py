"""Rendezvous: all processes check in by name before any joins the run.

When a process is missing, `jax.distributed` ends every other one without saying
which. So process 0 counts heads first, on the port that JAX uses a moment
later, and every process learns the verdict as an exception with names.
"""

import json
import socket
import time
from typing import Any

_RETRY_S = 0.2
_SPEAK_S = 5.0  # a connection that has not reported by then is ignored
_GRACE_S = 10.0
_MAX_BYTES = 65536


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
  connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, seconds: float) -> dict[str, Any]:
  """One message; empty if the peer closed, timed out or spoke nonsense."""
  connection.settimeout(seconds)
  try:
    with connection.makefile("rb") as lines:
      message = json.loads(lines.readline(_MAX_BYTES))
  except (OSError, ValueError):
    return {}
  return message if isinstance(message, dict) else {}


def _is_report(message: dict[str, Any]) -> bool:
  """Whether a message is the report of a process."""
  kinds = {"process_id": int, "num_processes": int, "host": str}
  return all(isinstance(message.get(key), kinds[key]) for key in kinds)


def _is_gone(connection: socket.socket) -> bool:
  connection.setblocking(False)
  try:
    return connection.recv(1, socket.MSG_PEEK) == b""
  except BlockingIOError:
    return False
  except OSError:
    return True


def _dismiss(connection: socket.socket, verdict: dict[str, Any]) -> None:
  """Tells a process the verdict, if it is still there to hear it."""
  with connection:
    try:
      connection.settimeout(_SPEAK_S)
      _send(connection, verdict)
    except OSError:
      return


class _Register:
  """Processes that have checked in, with host and connection."""

  def __init__(self, num_processes: int):
    self._num_processes = num_processes
    self._hosts = {0: socket.gethostname()}
    self.connections: dict[int, socket.socket] = {}

  def add(self, connection: socket.socket, report: dict[str, Any]) -> None:
    """Registers a process; raises ValueError if two reports contradict."""
    number, total, host = (
      report["process_id"],
      report["num_processes"],
      report["host"],
    )
    if total != self._num_processes:
      raise ValueError(
        f"process {number} on {host} expects {total} processes, process 0 on "
        f"{self._hosts[0]} expects {self._num_processes}"
      )
    self.strike_out()
    if number in self._hosts:
      raise ValueError(
        f"process_id {number} is taken twice, on {self._hosts[number]} and on "
        f"{host}"
      )
    self._hosts[number] = host
    self.connections[number] = connection

  def strike_out(self) -> None:
    """Removes processes that have disconnected since they reported."""
    for number, connection in list(self.connections.items()):
      if _is_gone(connection):
        connection.close()
        del self.connections[number], self._hosts[number]

  def missing(self) -> list[int]:
    """Numbers not present, after a fresh look."""
    self.strike_out()
    return [n for n in range(self._num_processes) if n not in self._hosts]

  def absence(self, timeout_s: float) -> str:
    """A sentence that names the missing and the present processes."""
    missing = ", ".join(map(str, self.missing()))
    present = ", ".join(f"{n} on {h}" for n, h in sorted(self._hosts.items()))
    return (
      f"after {timeout_s:g} s, of {self._num_processes} processes these have "
      f"not arrived: {missing}. Here are: {present}. See the logs of the "
      "missing ones, and whether they reach the coordinator's port"
    )


def _listen(port: int, backlog: int) -> socket.socket:
  """A socket on every interface, as JAX's own service has it."""
  if socket.has_dualstack_ipv6():
    return socket.create_server(
      ("", port),
      family=socket.AF_INET6,
      backlog=backlog,
      dualstack_ipv6=True,
    )
  return socket.create_server(("", port), backlog=backlog)


def _count(port: int, num_processes: int, timeout_s: float) -> None:
  """Process 0: waits for the others and tells them how it went."""
  deadline = time.monotonic() + timeout_s
  register = _Register(num_processes)
  verdict: dict[str, Any] = {"ok": True}
  newest: list[socket.socket] = []
  with _listen(port, num_processes) as listener:
    try:
      while register.missing():
        left = deadline - time.monotonic()
        if left <= 0:
          raise TimeoutError(register.absence(timeout_s))
        listener.settimeout(min(left, 1.0))
        try:
          connection, _ = listener.accept()
        except TimeoutError:
          continue
        report = _receive(connection, _SPEAK_S)
        if not _is_report(report):
          connection.close()
          continue
        newest = [connection]
        register.add(connection, report)
    except (TimeoutError, ValueError) as error:
      verdict = {"error": str(error), "late": isinstance(error, TimeoutError)}
      raise
    finally:
      for connection in {*register.connections.values(), *newest}:
        _dismiss(connection, verdict)


def _report(
  host: str, port: int, num_processes: int, process_id: int, timeout_s: float
) -> None:
  """Another process: reports to process 0 and waits for the verdict."""
  deadline = time.monotonic() + timeout_s
  reason = "no answer"
  while True:
    try:
      with socket.create_connection((host, port), _SPEAK_S) as connection:
        message = {
          "process_id": process_id,
          "num_processes": num_processes,
          "host": socket.gethostname(),
        }
        _send(connection, message)
        # Process 0 keeps the time; it may have started later than this one.
        verdict = _receive(connection, timeout_s + _GRACE_S)
    except OSError as error:
      verdict, reason = {}, str(error)
    if verdict.get("ok"):
      return
    if "error" in verdict:
      kind = TimeoutError if verdict["late"] else ValueError
      raise kind(verdict["error"])
    if time.monotonic() >= deadline:
      raise TimeoutError(
        f"after {timeout_s:g} s process {process_id} on "
        f"{socket.gethostname()} has not reached process 0 at {host}:{port} "
        f"({reason}): it has not started there, or its port is closed"
      )
    time.sleep(_RETRY_S)


def wait_for_all(
  coordinator: str, *, num_processes: int, process_id: int, timeout_s: float
) -> None:
  """Waits on every process until all of them have checked in.

  Args:
    coordinator: "HOST:PORT" of process 0.
    num_processes: processes of the run.
    process_id: this one, from 0.
    timeout_s: seconds to wait for the others.

  Raises:
    TimeoutError: processes are missing; the message has their numbers, and
      where the others run.
    ValueError: `coordinator` has no port, or the processes disagree: two have
      one number, or they expect different totals.
  """
  host, colon, port = coordinator.rpartition(":")
  if not colon or not host or not port.isdigit():
    raise ValueError(f"coordinator must be HOST:PORT, got {coordinator!r}")
  if process_id == 0:
    _count(int(port), num_processes, timeout_s)
  else:
    _report(host.strip("[]"), int(port), num_processes, process_id, timeout_s)
