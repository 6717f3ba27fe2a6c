"""HLO collectives: the communication of a compiled program.

`collectives` reads them from the program's text. `involuntary` reads which
tensors the partitioner copied whole to every device to change their layout: XLA
says so in a warning while it compiles, and nowhere else.
"""

import collections
import contextlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> (.*) \{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)")
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\]")
_CALLED = re.compile(
  r"\b(calls|to_apply|body|condition|true_computation|false_computation)="
  r"%?([\w.\-]+)"
)
_CALLED_LISTS = re.compile(
  r"\b(?:branch_computations|called_computations|calls)=\{([^}]*)\}"
)
_TRIP_COUNT = re.compile(r'known_trip_count[^}]*"n":"(\d+)"')


class Collective(NamedTuple):
  """One kind of message of a program."""

  kind: str  # one of KINDS
  # Of what one device gives or gets, whichever is larger: a reduce-scatter
  # counts as the all-gather that undoes it.
  shape: tuple[int, ...]
  dtype: str  # as XLA names it: f32, bf16, s32, pred
  bytes: int  # of that array
  count: int  # how often one run of the program sends it


class _Instruction(NamedTuple):
  name: str
  type: str
  opcode: str
  rest: str


class _Computation(NamedTuple):
  result: str
  instructions: list[_Instruction]


def _split_type(text: str) -> tuple[str, str]:
  """Cuts "TYPE REST" after the type, whose tuples and layouts may nest."""
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter in "({[") - (letter in ")}]")
    if letter == " " and depth == 0:
      return text[:i], text[i + 1 :]
  return text, ""


def _parts(type_text: str) -> list[str]:
  """The members of a tuple type; the type itself if it is no tuple."""
  if not type_text.startswith("("):
    return [type_text]
  parts, depth, start = [], 0, 1
  for i, letter in enumerate(type_text):
    depth += (letter in "({[") - (letter in ")}]")
    if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
      parts.append(re.sub(r"/\*.*?\*/", "", type_text[start:i]).strip())
      start = i + 1
  return parts


def _arrays(type_text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Every array in a type: its dtype and shape."""
  # Layouts hold no "dtype[...]", so they cannot be taken for arrays.
  for dtype, sizes in _ARRAY.findall(type_text):
    yield dtype, tuple(int(s.lstrip("<=")) for s in sizes.split(",") if s)


def _num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
  if dtype == "token":
    return 0
  bits = re.search(r"\d+", dtype)
  width = 8 if dtype == "pred" or bits is None else int(bits[0])
  return -(-math.prod(shape) * width // 8)


def _parse(text: str) -> tuple[dict[str, _Computation], str | None]:
  """Computations by name, and the name of the entry."""
  # Lines outside any computation belong to the nameless one.
  current = _Computation("", [])
  computations, entry = {"": current}, None
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header is not None:
      current = computations[header[2]] = _Computation(header[3], [])
      entry = header[2] if header[1] is not None else entry
      continue
    instruction = _INSTRUCTION.match(" " + line)
    if instruction is not None:
      type_text, call = _split_type(instruction[2])
      opcode, _, rest = call.partition("(")
      current.instructions.append(
        _Instruction(instruction[1], type_text, opcode, rest)
      )
  return computations, entry


def _operands(instruction: _Instruction) -> list[str]:
  """Names of an instruction's operands."""
  inside, _ = _split_operands(instruction.rest)
  # Older texts write the type in front of each name.
  return [part.rsplit(" ", 1)[-1].lstrip("%") for part in inside]


def _split_operands(rest: str) -> tuple[list[str], str]:
  """Cuts "A, B), REST" into its operands and what follows them."""
  depth, start, parts = 0, 0, []
  for i, letter in enumerate(rest):
    depth += (letter in "({[") - (letter in ")}]")
    if depth < 0 or (letter == "," and depth == 0):
      parts.append(re.sub(r"/\*.*?\*/", "", rest[start:i]).strip())
      start = i + 1
    if depth < 0:
      break
  return [part for part in parts if part], rest[start:]


def _by_name(computation: _Computation) -> dict[str, _Instruction]:
  return {i.name: i for i in computation.instructions}


def _constant(instruction: _Instruction | None) -> int | None:
  """The value of an integer constant."""
  if instruction is None or instruction.opcode != "constant":
    return None
  value = re.match(r"(-?\d+)\)", instruction.rest)
  return None if value is None else int(value[1])


def _trips(loop: str, computations: dict[str, _Computation]) -> int:
  """How often a while loop runs; 1 if the text does not say.

  A scan counts up from 0 by 1 until a constant. The loops into which the TPU
  compiler cuts a product of gathered weights count by more.
  """
  known = _TRIP_COUNT.search(loop)
  if known is not None:
    return int(known[1])
  named = dict(_CALLED.findall(loop))
  if named.get("condition") not in computations:
    return 1
  condition = computations[named["condition"]]
  instructions = _by_name(condition)
  for test in condition.instructions:
    if test.opcode != "compare" or "direction=LT" not in test.rest:
      continue
    counter, bound = map(instructions.get, _operands(test)[:2])
    limit = _constant(bound)
    if counter is None or limit is None or limit <= 0:
      continue
    step = 1
    place = re.search(r"\bindex=(\d+)", counter.rest)
    if place is not None and named.get("body") in computations:
      step = _step(computations[named["body"]], int(place[1]))
    return -(-limit // step)
  return 1


def _step(body: _Computation, index: int) -> int:
  """What a loop adds to entry `index` of its state; 1 if it does not say."""
  instructions = _by_name(body)
  root = body.instructions[-1]
  if root.opcode != "tuple" or index >= len(_operands(root)):
    return 1
  step = 0
  current = instructions.get(_operands(root)[index])
  while current is not None and current.opcode in ("add", "copy"):
    operands = [instructions.get(name) for name in _operands(current)]
    constants = [c for c in map(_constant, operands) if c is not None]
    step += sum(constants)
    current = next((o for o in operands if _constant(o) is None), None)
  return max(step, 1)


def _runs(
  computations: dict[str, _Computation], entry: str | None
) -> dict[str, int]:
  """How often each computation runs in one run of the program."""
  calls: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
  for name, computation in computations.items():
    for _, _, opcode, rest in computation.instructions:
      # These name the computation that their async-start has run already.
      if opcode in ("async-update", "async-done"):
        continue
      times = _trips(rest, computations) if opcode == "while" else 1
      called = [callee for _, callee in _CALLED.findall(rest)]
      for names in _CALLED_LISTS.findall(rest):
        called += [callee.strip(" %") for callee in names.split(",")]
      calls[name] += [(c, times) for c in called if c in computations]
  runs: dict[str, int] = collections.defaultdict(int)

  def run(name: str, times: int) -> None:
    runs[name] += times
    for callee, repeats in calls[name]:
      run(callee, times * repeats)

  run("", 1)
  if entry is not None:
    run(entry, 1)
  return runs


def _payload(
  instruction: _Instruction, computation: _Computation
) -> list[tuple[str, tuple[int, ...]]]:
  """The arrays that a collective takes or leaves, the larger of each two."""
  kind = instruction.opcode.removesuffix("-start")
  parts = _parts(instruction.type)
  if instruction.opcode.endswith("-start") and kind != "all-reduce":
    # (operands, results, context...); an all-reduce-start has results alone.
    given, left = list(_arrays(parts[0])), list(_arrays(parts[1]))
  else:
    known = _by_name(computation)
    left = list(_arrays(instruction.type))
    given = [
      array
      for name in _operands(instruction)
      if name in known
      for array in _arrays(known[name].type)
    ]
  if len(given) != len(left):
    return left
  return [
    max(pair, key=lambda array: _num_bytes(*array))
    for pair in zip(left, given, strict=True)
  ]


def collectives(compiled_text: str) -> list[Collective]:
  """The collective operations of a compiled program.

  A tuple counts as its arrays. An operation in a loop counts as often as the
  loop runs, where the text tells (a `lax.scan` does); in a branch, as if the
  branch were taken. The pieces into which the TPU compiler cuts one
  asynchronous operation share a channel and count as one.

  Args:
    compiled_text: `compiled.as_text()`, or any lines of HLO.

  Returns:
    One entry per kind, shape and dtype, by falling `bytes * count`.
  """
  computations, entry = _parse(compiled_text)
  runs = _runs(computations, entry)
  channels: dict[tuple[str, ...], int] = {}
  counts: dict[tuple[str, str, tuple[int, ...]], int] = collections.Counter()
  for name, computation in computations.items():
    # The TPU compiler's reduce-scatter is an all-reduce of which a fusion of
    # this name keeps the slice.
    fused = name.startswith("all-reduce-scatter")
    for number, instruction in enumerate(computation.instructions):
      kind = instruction.opcode.removesuffix("-start")
      # What wraps another computation is counted there.
      if kind not in KINDS or "calls=" in instruction.rest:
        continue
      if fused and kind == "all-reduce":
        kind = "reduce-scatter"
      channel = re.search(r"\bchannel_id=(\d+)", instruction.rest)
      place = (name, str(number)) if channel is None else ("", channel[1])
      for index, (dtype, shape) in enumerate(
        _payload(instruction, computation)
      ):
        key = (kind, dtype, str(shape), str(index), *place)
        before = channels.get(key, 0)
        now = max(before, runs[name])
        channels[key] = now
        counts[kind, dtype, shape] += now - before
  found = [
    Collective(kind, shape, dtype, _num_bytes(dtype, shape), count)
    for (kind, dtype, shape), count in counts.items()
    if count > 0
  ]
  return sorted(found, key=lambda c: (-c.bytes * c.count, c))


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
  there if it was loaded by `compiled.tpu_topology`.

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
