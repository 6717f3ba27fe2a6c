"""TensorBoard event file: scalars by step, written without a protobuf library.

An event file is a sequence of records, each a protocol buffer `Event` with its
length and two checksums. Of an `Event` this module writes what a curve needs:

  wall_time 1, step 2, file_version 3, summary 5 {value 1 {tag 1,
  simple_value 2}}, session_log 7 {status 1}
"""

import re
import socket
import struct
import time
from collections.abc import Mapping

from etils import epath

from jaxalign.runtime.io import filesystem

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types
_VERSION = b"brain.Event:2"
_START = 1  # of SessionLog.SessionStatus
_NOT_IN_TAGS = re.compile(r"[^-/\w.]")


def _checksums() -> tuple[int, ...]:
  """CRC-32C of each byte, by the reversed Castagnoli polynomial."""
  found = []
  for value in range(256):
    for _ in range(8):
      value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    found.append(value)
  return tuple(found)


_TABLE = _checksums()


def crc32c(content: bytes) -> int:
  """CRC-32C of bytes (RFC 3720, appendix B.4)."""
  crc = 0xFFFFFFFF
  for byte in content:
    crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
  return crc ^ 0xFFFFFFFF


def record(content: bytes) -> bytes:
  """Bytes with their length before them, and masked checksums of both.

  Args:
    content: one serialized event.

  Returns:
    What stands in the file.
  """

  def checked(part: bytes) -> bytes:
    crc = crc32c(part)
    turned = crc >> 15 | crc << 17
    return part + struct.pack("<I", turned + 0xA282EAD8 & 0xFFFFFFFF)

  return checked(struct.pack("<Q", len(content))) + checked(content)


def _varint(value: int) -> bytes:
  found = bytearray()
  while value > 0x7F:
    found.append(value & 0x7F | 0x80)
    value >>= 7
  found.append(value)
  return bytes(found)


def _field(number: int, kind: int, content: bytes) -> bytes:
  """A field of a protocol buffer; bytes are given their length."""
  size = _varint(len(content)) if kind == _BYTES else b""
  return _varint(number << 3 | kind) + size + content


def _float(value: float) -> bytes:
  """The nearest float32, infinite beyond its range."""
  try:
    return struct.pack("<f", value)
  except OverflowError:
    return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _event(step: int, what: bytes = b"") -> bytes:
  now = _field(1, _DOUBLE, struct.pack("<d", time.time()))
  return record(now + _field(2, _VARINT, _varint(step)) + what)


class EventFile:
  """One attempt's event file in a folder that TensorBoard reads.

  What is written survives the death of the process, as with
  `filesystem.AppendedFile`, in an object store too.
  """

  def __init__(self, folder: epath.PathLike, *, first_step: int, suffix: str):
    """Opens a new file.

    Args:
      folder: that is there.
      first_step: TensorBoard hides what earlier attempts wrote from this step
        on.
      suffix: tells attempts apart that begin within a second.
    """
    name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
    self._file = filesystem.AppendedFile(
      epath.Path(folder) / f"{name}{suffix}", keep=False
    )
    start = _field(1, _VARINT, _varint(_START))
    self._file.write(
      _event(first_step, _field(3, _BYTES, _VERSION))
      + _event(first_step, _field(7, _BYTES, start))
    )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds a point to each scalar's curve.

    Args:
      step: number of steps done, at least 0.
      scalars: by name; letters that a tag may not have become "_".
    """
    values = b""
    for name in sorted(scalars):
      tag = _NOT_IN_TAGS.sub("_", name).lstrip("/").encode()
      value = _field(1, _BYTES, tag)
      value += _field(2, _FLOAT, _float(float(scalars[name])))
      values += _field(1, _BYTES, value)
    self._file.write(_event(int(step), _field(5, _BYTES, values)))

  def flush(self) -> None:
    """Returns once everything written would survive a power cut."""
    self._file.flush()

  def close(self) -> None:
    """Flushes and closes; a second call does nothing."""
    self._file.close()
