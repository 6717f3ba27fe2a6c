"""Tensors that the partitioner had to copy whole to every device to lay anew.

XLA says so in a warning while it compiles, and nowhere else: neither the
program nor its memory tells such a copy from one that was asked for.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

_WARNING = re.compile(
  r"Involuntary full rematerialization\..*? from sharding (\{.*?\}) to "
  r"(\{.*?\}) (?:efficiently|without).*?%?[\w.\-]+ = ([a-z]\w*\[[\d,]*\])"
)
_SOURCE = re.compile(r'op_name="([^"]*)"')
_STDERR = 2


class Reshard(NamedTuple):
  """A tensor that is replicated on its way from one layout to another."""

  shape: str  # on a device, as XLA writes it: f32[8,64]
  source: str  # sharding as XLA writes it
  target: str
  operation: str  # the operation in the program, "" where XLA does not say
  count: int


def involuntary(log: str) -> list[Reshard]:
  """The involuntary reshards that a compiler's log complains of.

  Args:
    log: what it wrote, other lines included.

  Returns:
    One entry per tensor, layouts and operation, in the order of the log.
  """
  found: dict[tuple[str, str, str, str], int] = {}
  for line in log.splitlines():
    warning = _WARNING.search(line)
    if warning is None:
      continue
    operation = _SOURCE.search(line)
    source, target, shape = warning.groups()
    key = (shape, source, target, operation[1] if operation else "")
    found[key] = found.get(key, 0) + 1
  return [Reshard(*key, count) for key, count in found.items()]


@contextlib.contextmanager
def compiler_log() -> Iterator[list[str]]:
  """Collects what compilers write to standard error inside the block.

  They write to the descriptor and not to `sys.stderr`. libtpu writes warnings
  there if it was loaded by `inspect.tpu_topology`.

  Yields:
    A list that holds the text once the block is left. An error passes the text
    on to standard error.
  """
  text: list[str] = []
  sys.stderr.flush()
  kept = os.dup(_STDERR)
  try:
    with tempfile.TemporaryFile() as file:
      os.dup2(file.fileno(), _STDERR)
      try:
        yield text
      finally:
        os.dup2(kept, _STDERR)
        file.seek(0)
        text.append(file.read().decode(errors="replace"))
  except BaseException:
    sys.stderr.write("".join(text))
    raise
  finally:
    os.close(kept)
