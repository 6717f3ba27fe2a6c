"""The communication in a compiled program, read from its text."""

import collections
import math
import re
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
  shape: tuple[int, ...]  # of the result on one device
  dtype: str  # as XLA names it: f32, bf16, s32, pred
  bytes: int  # of the result on one device
  count: int  # how often one run of the program sends it


class _Instruction(NamedTuple):
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
      current.instructions.append(_Instruction(type_text, opcode, rest))
  return computations, entry


def _trips(loop: str, computations: dict[str, _Computation]) -> int:
  """How often a while loop runs; 1 if the text does not say.

  A scan counts up from 0 by 1 until a constant, which is the only integer
  constant in its condition.
  """
  known = _TRIP_COUNT.search(loop)
  if known is not None:
    return int(known[1])
  condition = re.search(r"\bcondition=%?([\w.\-]+)", loop)
  if condition is None or condition[1] not in computations:
    return 1
  instructions = computations[condition[1]].instructions
  limits = [
    int(match[1])
    for i in instructions
    if i.opcode == "constant" and re.match(r"[su]\d+\[\]", i.type)
    for match in [re.match(r"(-?\d+)\)", i.rest)]
    if match is not None
  ]
  less = any(
    i.opcode == "compare" and "direction=LT" in i.rest for i in instructions
  )
  return limits[0] if less and len(limits) == 1 and limits[0] > 0 else 1


def _runs(
  computations: dict[str, _Computation], entry: str | None
) -> dict[str, int]:
  """How often each computation runs in one run of the program."""
  calls: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
  for name, computation in computations.items():
    for _, opcode, rest in computation.instructions:
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


def _result(kind: str, instruction: _Instruction, enclosing: str) -> str:
  """The type of what a collective leaves on a device."""
  if kind == "reduce-scatter" and instruction.opcode == "all-reduce":
    return enclosing
  if instruction.opcode.endswith("-start") and kind != "all-reduce":
    # (operands, results, context...); an all-reduce-start has results alone.
    return _parts(instruction.type)[1]
  return instruction.type


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
      result = _result(kind, instruction, computation.result)
      channel = re.search(r"\bchannel_id=(\d+)", instruction.rest)
      place = (name, str(number)) if channel is None else ("", channel[1])
      for index, (dtype, shape) in enumerate(_arrays(result)):
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
