"""Hub adapters, threaded: comparisons that are spread over several rows."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from jaxalign.data.adapters import base
from jaxalign.data.records import columns
from jaxalign.data.records.files import Row

T = TypeVar("T")

ATTRIBUTES = (
  "helpfulness",
  "correctness",
  "coherence",
  "complexity",
  "verbosity",
)
ROLES = {"prompter": "user", "assistant": "assistant"}


def _help_steer(found: Iterable[Row]) -> Iterator[Row]:
  """Neighbouring rows of one prompt, preferred by helpfulness."""
  previous: tuple[str, Mapping[str, Any]] | None = None
  for where, row in found:
    if isinstance(row, ValueError):
      yield where, row
      previous = None
    elif previous is None or previous[1].get("prompt") != row.get("prompt"):
      previous = where, row
    else:
      yield previous[0], _convert(_help_steer_pair, previous[1], row)
      previous = None


def _help_steer_pair(
  first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Any]:
  rows = [first, second]
  best = [base.need_number(row, "helpfulness") for row in rows]
  if best[1] > best[0]:
    rows.reverse()
  return {
    "prompt": base.need_text(rows[0], "prompt"),
    "responses": [base.need_text(row, "response") for row in rows],
    "ratings": {
      name: [base.need_number(row, name) for row in rows] for name in ATTRIBUTES
    },
    "strength": abs(best[0] - best[1]),
    "tie": True if best[0] == best[1] else None,
  }


def _oasst(found: Iterable[Row]) -> Iterator[Row]:
  """Message trees: the ranked replies to one message are one ranking."""
  messages: dict[str, Mapping[str, Any]] = {}
  replies = collections.defaultdict(list)
  for where, row in found:
    if isinstance(row, ValueError):
      yield where, row
      continue
    name = _convert(base.need_label, row, "message_id")
    if isinstance(name, ValueError):
      yield where, name
      continue
    messages[name] = row
    if row.get("role") != "assistant" or row.get("rank") is None:
      continue
    ranked = _convert(_oasst_reply, row)
    if isinstance(ranked, ValueError):
      yield where, ranked
    else:
      parent, rank = ranked
      replies[parent].append((rank, where, row))
  for parent, found_replies in replies.items():
    if len(found_replies) > 1:
      found_replies.sort(key=lambda reply: reply[:2])
      rows = [row for _, _, row in found_replies]
      place = found_replies[0][1]
      yield place, _convert(_oasst_ranking, messages, parent, rows)


def _oasst_reply(row: Mapping[str, Any]) -> tuple[str, float]:
  """The message that a reply answers, and its rank."""
  return base.need_label(row, "parent_id"), base.need_number(row, "rank")


def _oasst_ranking(
  messages: Mapping[str, Mapping[str, Any]],
  parent: str,
  replies: list[Mapping[str, Any]],
) -> dict[str, Any]:
  turns: list[dict[str, Any]] = []
  at: str | None = parent
  while at is not None:
    if at not in messages or len(turns) > len(messages):
      raise ValueError(f"message {at} is not in the file, or its own ancestor")
    message = messages[at]
    role = ROLES.get(base.need_text(message, "role"))
    turns.insert(0, {"role": role, "content": message.get("text")})
    above = message.get("parent_id")
    at = None if above is None else base.need_label(message, "parent_id")
  return {
    "prompt": turns,
    "responses": [base.need_text(reply, "text") for reply in replies],
    "group": replies[0].get("lang"),
    "id": parent,
  }


def _prism(found: Iterable[Row]) -> Iterator[Row]:
  """Utterances: the replies of several models that one person scored."""
  turns = collections.defaultdict(list)
  for where, row in found:
    if isinstance(row, ValueError):
      yield where, row
      continue
    key = _convert(_prism_turn, row)
    if isinstance(key, ValueError):
      yield where, key
    else:
      turns[key].append((where, row))
  history: dict[Any, list[dict[str, Any]]] = collections.defaultdict(list)
  for (conversation, _), rows in sorted(turns.items()):
    said = history[conversation]
    said.append({"role": "user", "content": rows[0][1].get("user_prompt")})
    if len(rows) > 1:
      yield (
        rows[0][0],
        _convert(_prism_ranking, list(said), [row for _, row in rows]),
      )
    kept = [row for _, row in rows if row.get("if_chosen")] or [rows[0][1]]
    said.append({"role": "assistant", "content": kept[0].get("model_response")})


def _prism_turn(row: Mapping[str, Any]) -> tuple[str, int]:
  """The conversation and the number of its turn."""
  turn = columns.count("turn", base.need(row, "turn"))
  return base.need_label(row, "conversation_id"), turn


def _prism_ranking(
  prompt: list[dict[str, Any]], rows: list[Mapping[str, Any]]
) -> dict[str, Any]:
  scores = [base.need_number(row, "score") for row in rows]
  # The reply that was kept comes first among equal scores.
  order = sorted(
    range(len(rows)), key=lambda i: (-scores[i], not rows[i].get("if_chosen"))
  )
  tie = len(rows) == 2 and scores[0] == scores[1]
  return {
    "prompt": prompt,
    "responses": [base.need_text(rows[i], "model_response") for i in order],
    "ratings": {"overall": [scores[i] for i in order]},
    "tie": True if tie else None,
    "annotator": rows[0].get("user_id"),
    "group": rows[0].get("conversation_type"),
    "id": rows[0].get("interaction_id"),
  }


def _convert(function: Callable[..., T], *args: Any) -> T | ValueError:
  """What `function` makes, or why it cannot."""
  try:
    return function(*args)
  except ValueError as error:
    return error


ADAPTERS: dict[str, base.Adapter] = {
  "nvidia/HelpSteer2": base.Adapter(
    reads=("prompt", "response", *ATTRIBUTES), stream=_help_steer
  ),
  "OpenAssistant/oasst1": base.Adapter(
    ignore=(
      "user_id",
      "created_date",
      "review_count",
      "review_result",
      "deleted",
      "synthetic",
      "model_name",
      "detoxify",
      "message_tree_id",
      "tree_state",
      "emojis",
      "labels",
    ),
    reads=("message_id", "parent_id", "text", "role", "lang", "rank"),
    stream=_oasst,
  ),
  "HannahRoseKirk/prism-alignment": base.Adapter(
    ignore=(
      "utterance_id",
      "within_turn_id",
      "model_name",
      "model_provider",
      "included_in_balanced_subset",
    ),
    reads=(
      "interaction_id",
      "conversation_id",
      "user_id",
      "turn",
      "conversation_type",
      "user_prompt",
      "model_response",
      "score",
      "if_chosen",
    ),
    stream=_prism,
  ),
}
