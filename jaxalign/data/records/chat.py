"""Chat and plain-text prompts and responses, in any of TRL's forms."""

import os.path
from collections.abc import Mapping
from typing import Any

from jaxalign.data.records import columns
from jaxalign.data.tokenization import turns
from jaxalign.data.tokenization.turns import Turn

# Plain text, or chat turns in the order they were said.
Text = str | tuple[Turn, ...]


def text_of(text: Text) -> str:
  """A prompt or response as plain text, turns joined by a blank line."""
  if isinstance(text, str):
    return text
  return "\n\n".join(turn.shown for turn in text)


def of_one_form(responses: tuple[Text, ...]) -> tuple[Text, ...]:
  """Responses as a row holds them: all text, or all chat turns.

  A response of one turn is kept as its text, also beside one of several turns.
  """
  if all(isinstance(response, str) for response in responses):
    return responses
  return tuple(
    (Turn("assistant", response),) if isinstance(response, str) else response
    for response in responses
  )


def parse_texts(
  row: dict[str, Any], *, need_responses: bool = True
) -> tuple[Text, tuple[Text, ...]]:
  """Prompt and responses from any of the accepted forms.

  Args:
    row: the columns that are there.
    need_responses: whether a prompt alone is an error.

  Returns:
    The prompt, and the responses in their order, none for a prompt alone.

  Raises:
    ValueError: what was got and what is allowed.
  """
  if not {"responses", "chosen", "rejected"} & {*row}:
    if not need_responses:
      return _prompt_alone(row), ()
    raise ValueError(
      "missing field 'chosen': a record needs chosen and rejected, or "
      "responses, where no policy answers its prompt"
    )
  if "responses" in row:
    for name in ("chosen", "rejected"):
      if name in row:
        raise ValueError(f"give responses or {name}, not both")
    texts = row["responses"]
    if not isinstance(texts, (list, tuple)):
      raise ValueError(f"responses must be a list, got {columns.kind(texts)}")
    if not texts:
      raise ValueError("responses must hold 1 or more, got 0")
    if len(texts) == 1 and "prompt" not in row:
      raise ValueError("missing field 'prompt': a single response implies none")
    named = {f"responses[{i}]": text for i, text in enumerate(texts)}
  else:
    for name in ("chosen", "rejected"):
      if name not in row:
        raise ValueError(f"missing field {name!r}")
    named = {name: row[name] for name in ("chosen", "rejected")}
  responses = [_text(name, value) for name, value in named.items()]
  if len({isinstance(response, str) for response in responses}) > 1:
    raise ValueError(
      f"{' and '.join(named)} must all be text or all be chat turns"
    )
  prompt = _text("prompt", row["prompt"]) if "prompt" in row else None
  if prompt is None or (
    isinstance(prompt, str) and not isinstance(responses[0], str)
  ):
    shared, responses = _shared_prompt(responses)
    # A text prompt beside full conversations repeats one of their turns.
    if prompt is not None and prompt not in (turn.content for turn in shared):
      raise ValueError(
        "prompt is text, so chosen and rejected must be text or conversations "
        "that begin with it"
      )
    prompt = shared
  for name, response in zip(named, responses, strict=True):
    if not isinstance(response, str) and (
      response and response[-1].role != "assistant"
    ):
      raise ValueError(
        f"{name} must end with an assistant turn, got role "
        f"{response[-1].role!r}"
      )
    if not isinstance(response, str) and any(
      set(turns.SHARED) & set(turns.message(turn)) for turn in response
    ):
      raise ValueError(
        f"{name} has {' or '.join(turns.SHARED)}, which go with the prompt"
      )
  collapsed = tuple(_collapse(response) for response in responses)
  return _with_shared(prompt, row), collapsed


def _prompt_alone(row: Mapping[str, Any]) -> Text:
  if "prompt" not in row:
    raise ValueError("missing field 'prompt'")
  prompt = _with_shared(_text("prompt", row["prompt"]), row)
  if not text_of(prompt).strip():
    raise ValueError("prompt must not be empty where there is no response")
  return prompt


def _with_shared(prompt: Text, row: Mapping[str, Any]) -> Text:
  """TRL's columns of a conversation as a part of what they belong to."""
  shared = {key: row[key] for key in turns.SHARED if row.get(key) is not None}
  if not shared:
    return prompt
  if isinstance(prompt, str) or not prompt:
    name = " and ".join(shared)
    raise ValueError(f"{name} go with a prompt of chat turns, got text")
  return turns.with_shared(prompt, shared)


def _collapse(response: Text) -> Text:
  if isinstance(response, str):
    return response
  if not response:
    return ""
  # A turn that calls a tool is more than its text.
  alone = len(response) == 1 and not response[0].rest
  return response[0].content if alone else response


def _shared_prompt(transcripts: list[Text]) -> tuple[Text, list[Text]]:
  """The common start of transcripts, and what is left of each."""
  cut = len(os.path.commonprefix(transcripts))
  first = transcripts[0]
  if isinstance(first, str):
    whole = all(
      len(text) == cut or text[cut].isspace() or text[cut - 1 : cut].isspace()
      for text in transcripts
    )
    while not whole and cut > 0 and not first[cut - 1].isspace():
      cut -= 1
    if cut > 0 and first[cut - 1] == " ":
      cut -= 1
  return first[:cut], [text[cut:] for text in transcripts]


def _text(name: str, value: Any) -> Text:
  if isinstance(value, str):
    return columns.string(name, value)
  if isinstance(value, (list, tuple)):
    return tuple(
      turns.parse(f"{name}[{i}]", turn, first=i == 0)
      for i, turn in enumerate(value)
    )
  raise ValueError(
    f"{name} must be text or chat turns, got {columns.kind(value)}"
  )
