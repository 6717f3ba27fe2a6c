"""Chat turns: role, content, and what else a chat template may read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxalign.data.records import columns

ROLES = ("system", "developer", "user", "assistant", "tool")
# Beside role and content: calls, and which call a result belongs to.
CALLS = "tool_calls"
NAMES = ("name", "tool_call_id")
TOOLS = "tools"
KEYS = ("role", "content", CALLS, *NAMES, TOOLS)


class Turn(NamedTuple):
  """One message of a conversation.

  Attributes:
    role: one of `ROLES`.
    content: its text, empty where it only calls tools.
    rest: JSON of its other keys, in their order, empty for none: `tool_calls`,
      `name`, `tool_call_id`, `content` where it is null, and in the first turn
      of a conversation `tools`, the functions that may be called.
  """

  role: str
  content: str
  rest: str = ""

  @property
  def shown(self) -> str:
    """Content, and the other keys as JSON behind it."""
    return self.content + self.rest


def message(turn: Turn) -> dict[str, Any]:
  """A turn as the JSON object that it was read from."""
  given = {"role": turn.role, "content": turn.content}
  return given | (json.loads(turn.rest) if turn.rest else {})


def for_template(
  turns: Sequence[Turn],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
  """A conversation as a chat template takes it.

  Args:
    turns: all of them.

  Returns:
    The messages, and the functions that may be called, None for none.
  """
  messages = [message(turn) for turn in turns]
  tools = [each.pop(TOOLS, None) for each in messages]
  return messages, next(iter(tools), None)


def parse(name: str, value: Any, *, first: bool) -> Turn:
  """A turn from its JSON object.

  Args:
    name: of the turn, for errors.
    value: the object; null means absent.
    first: whether it may name tools.

  Returns:
    The turn.

  Raises:
    ValueError: what was got and what is allowed.
  """
  if not isinstance(value, Mapping):
    raise ValueError(
      f"{name} must be an object with role and content, got "
      f"{columns.kind(value)}"
    )
  given = {key: entry for key, entry in value.items() if entry is not None}
  rest: dict[str, Any] = {}
  for key, entry in given.items():
    if key not in KEYS:
      raise ValueError(
        f"{name} has unknown key {key!r}; allowed: {', '.join(KEYS)}"
      )
    if key in NAMES:
      rest[key] = columns.string(f"{name}.{key}", entry)
  role = given.get("role")
  if not isinstance(role, str):
    raise ValueError(f"{name}.role must be text, got {columns.kind(role)}")
  if role not in ROLES:
    raise ValueError(
      f"{name}.role must be one of {', '.join(ROLES)}, got {role!r}"
    )
  if given.get(CALLS) not in (None, []):
    if role != "assistant":
      raise ValueError(f"{name}.{CALLS} are an assistant's, got role {role!r}")
    rest[CALLS] = _objects(f"{name}.{CALLS}", given[CALLS])
  if TOOLS in given:
    if not first:
      raise ValueError(f"{name}.{TOOLS} go with the first turn of the prompt")
    rest |= _tools(f"{name}.{TOOLS}", given[TOOLS])
  if CALLS in rest and "content" not in given:
    return Turn(role, "", _as_json(name, {"content": None} | rest))
  content = columns.string(f"{name}.content", given.get("content"))
  return Turn(role, content, _as_json(name, rest))


def with_tools(turns: Sequence[Turn], tools: Any) -> tuple[Turn, ...]:
  """A prompt with the functions that its conversation may call.

  Args:
    turns: of the prompt, one or more.
    tools: a list of JSON schemas, or its JSON; see `Turn`.

  Returns:
    The turns.

  Raises:
    ValueError: something else, or the first turn names tools already.
  """
  first, *others = turns
  rest = message(first)
  added = _tools(TOOLS, tools)
  if TOOLS in rest and added:
    raise ValueError("tools are given twice, in the row and in its first turn")
  kept = json.loads(first.rest) if first.rest else {}
  return first._replace(rest=_as_json(TOOLS, kept | added)), *others


def _tools(name: str, value: Any) -> dict[str, Any]:
  """`tools` as a key, left out where there are none."""
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{name} must be a list or its JSON ({error})") from None
  return {TOOLS: found} if (found := _objects(name, value)) else {}


def _objects(name: str, value: Any) -> list[dict[str, Any]]:
  if not isinstance(value, (list, tuple)) or not all(
    isinstance(entry, Mapping) for entry in value
  ):
    raise ValueError(
      f"{name} must be a list of objects, got {columns.kind(value)}"
    )
  return [dict(entry) for entry in value]


def _as_json(name: str, rest: Mapping[str, Any]) -> str:
  """JSON in the order of the keys, which a template may show."""
  if not rest:
    return ""
  try:
    text = json.dumps(rest, ensure_ascii=False, allow_nan=False)
  except (TypeError, ValueError, RecursionError) as error:
    raise ValueError(f"{name} must hold JSON values ({error})") from None
  return columns.string(name, text)
