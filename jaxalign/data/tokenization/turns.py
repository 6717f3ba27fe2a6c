"""Chat turns: role, content, and what else a chat template may read."""

import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxalign.data.records import columns

ROLES = ("system", "developer", "user", "assistant", "tool")
# Beside role and content: calls, which call a result belongs to, and thoughts.
CALLS = "tool_calls"
REASONING = "reasoning_content"
TEXTS = ("name", "tool_call_id", REASONING)
# Of the whole conversation: columns of a row, or keys of the first turn.
TOOLS = "tools"
VARIABLES = "chat_template_kwargs"
SHARED = (TOOLS, VARIABLES)
KEYS = ("role", "content", CALLS, *TEXTS, *SHARED)
# Arguments of `apply_chat_template` that are not the template's variables.
TAKEN = (
  "add_generation_prompt",
  "chat_template",
  "continue_final_message",
  "conversation",
  "documents",
  "max_length",
  "messages",
  "padding",
  "return_assistant_tokens_mask",
  "return_dict",
  "return_tensors",
  "sanitize_control_tokens",
  "self",
  "tokenize",
  "tokenizer_kwargs",
  "tools",
  "truncation",
)


class Rendered(str):
  """Text in which another program's chat template has written the markers.

  As a response it is taken with its prompt, a text too, as a whole: a marker
  that its tokenizer puts at either end is there once, written or not.
  """

  __slots__ = ()


class Turn(NamedTuple):
  """One message of a conversation.

  Attributes:
    role: one of `ROLES`.
    content: its text, empty where it only calls tools.
    rest: JSON of its other keys, in their order, empty for none: `tool_calls`,
      `name`, `tool_call_id`, `reasoning_content`, `content` where it is null,
      and in the first turn of a conversation `tools`, the functions that may be
      called, and `chat_template_kwargs`, variables of the template.
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


class Conversation(NamedTuple):
  """What a chat template is given.

  Attributes:
    messages: one object per turn.
    tools: functions that may be called, None for none.
    variables: further names that the template may read.
  """

  messages: list[dict[str, Any]]
  tools: list[dict[str, Any]] | None = None
  variables: Mapping[str, Any] = types.MappingProxyType({})


def for_template(turns: Sequence[Turn]) -> Conversation:
  """A conversation as a chat template takes it.

  Args:
    turns: all of them.

  Returns:
    The messages, and what their first turn says of them all.
  """
  messages = [message(turn) for turn in turns]
  shared = [{key: m.pop(key) for key in SHARED if key in m} for m in messages]
  first = next(iter(shared), {})
  return Conversation(messages, first.get(TOOLS), first.get(VARIABLES, {}))


def parse(name: str, value: Any, *, first: bool) -> Turn:
  """A turn from its JSON object.

  Args:
    name: of the turn, for errors.
    value: the object; null means absent.
    first: whether it may say what holds for the whole conversation.

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
    if key in TEXTS:
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
  if rest.get(REASONING) is not None and role != "assistant":
    raise ValueError(f"{name}.{REASONING} is an assistant's, got role {role!r}")
  for key in SHARED:
    if key not in given:
      continue
    if not first:
      raise ValueError(f"{name}.{key} go with the first turn of the prompt")
    rest |= _shared(key, f"{name}.{key}", given[key])
  if CALLS in rest and "content" not in given:
    return Turn(role, "", _as_json(name, {"content": None} | rest))
  content = columns.string(f"{name}.content", given.get("content"))
  return Turn(role, content, _as_json(name, rest))


def with_shared(
  turns: Sequence[Turn], columns_of_row: Mapping[str, Any]
) -> tuple[Turn, ...]:
  """A prompt with what a row says of its whole conversation.

  Args:
    turns: of the prompt, one or more.
    columns_of_row: those of `SHARED` that the row has, or their JSON; see
      `Turn`.

  Returns:
    The turns.

  Raises:
    ValueError: something else, or the first turn has the same key already.
  """
  first, *others = turns
  kept = json.loads(first.rest) if first.rest else {}
  for key, value in columns_of_row.items():
    added = _shared(key, key, value)
    if key in kept and added:
      raise ValueError(
        f"{key} are given twice, in the row and in its first turn"
      )
    kept |= added
  name = ", ".join(columns_of_row)
  return first._replace(rest=_as_json(name, kept)), *others


def _shared(key: str, name: str, value: Any) -> dict[str, Any]:
  """A key of `SHARED` with its value, left out where there is nothing in it."""
  form = "a list" if key == TOOLS else "an object"
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{name} must be {form} or its JSON ({error})") from None
  read = _objects if key == TOOLS else _variables
  return {key: found} if (found := read(name, value)) else {}


def _variables(name: str, value: Any) -> dict[str, Any]:
  if not isinstance(value, Mapping):
    raise ValueError(f"{name} must be an object, got {columns.kind(value)}")
  if taken := sorted(set(value) & set(TAKEN)):
    raise ValueError(
      f"{name} are variables of the chat template, and these are not: "
      f"{', '.join(taken)}"
    )
  return dict(value)


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
