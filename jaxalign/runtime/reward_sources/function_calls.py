"""Calls of reward functions, in this library's form or in TRL's."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxalign.data.records.chat import Text
from jaxalign.data.tokenization import turns

# Of each text of a call one value: `answer`, `group`, or what a file has.
Columns = Mapping[str, Sequence[Any]]
Call = Callable[[Sequence[Text], Sequence[Text], Columns], Any]

_FIXED = ("prompts", "completions")
_BY_NAME = (
  inspect.Parameter.POSITIONAL_OR_KEYWORD,
  inspect.Parameter.KEYWORD_ONLY,
)


def caller(function: Callable[..., Any], origin: str) -> Call:
  """How a reward function wants to be called, by its signature.

  With a parameter `completions` it is of TRL's form and gets `prompts`,
  `completions` and columns by name, chats as lists of {role, content}.
  Otherwise it gets prompts and responses by position. In both forms further
  parameters are columns by their names, and `**others` stands for all.

  Args:
    function: the function, or an object that is called.
    origin: what errors call it.

  Returns:
    A function of prompts, responses and columns. It raises ValueError for a
    parameter without a default that no column goes by.
  """
  try:
    parameters = [*inspect.signature(function).parameters.values()]
  except (TypeError, ValueError):  # a builtin that does not say
    return lambda prompts, responses, columns: function(prompts, responses)
  of_trl = any(each.name == "completions" for each in parameters)
  takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
  named = parameters if of_trl else parameters[2:]
  wanted = {
    each.name: each.default is each.empty
    for each in named
    if each.kind in _BY_NAME and not (of_trl and each.name in _FIXED)
  }
  fixed = tuple(
    name
    for name in _FIXED
    if takes_all or any(each.name == name for each in parameters)
  )

  def call(
    prompts: Sequence[Text], responses: Sequence[Text], columns: Columns
  ) -> Any:
    _check(wanted, columns, origin)
    given = {
      name: list(values)
      for name, values in columns.items()
      if (takes_all or name in wanted) and not (of_trl and name in _FIXED)
    }
    if not of_trl:
      return function(list(prompts), list(responses), **given)
    texts = dict(zip(_FIXED, as_messages(prompts, responses), strict=True))
    return function(**{name: texts[name] for name in fixed}, **given)

  return call


def as_messages(
  prompts: Sequence[Text], responses: Sequence[Text]
) -> tuple[list[Any], list[Any]]:
  """Texts as TRL has them: a response is of turns where its prompt is."""
  asked, said = [], []
  for prompt, response in zip(prompts, responses, strict=True):
    if isinstance(prompt, str):
      asked.append(prompt)
      said.append(response)
      continue
    if isinstance(response, str):
      response = (turns.Turn("assistant", response),)
    asked.append([turns.message(turn) for turn in prompt])
    said.append([turns.message(turn) for turn in response])
  return asked, said


def _check(wanted: Mapping[str, bool], columns: Columns, origin: str) -> None:
  missing = [
    name for name, needed in wanted.items() if needed and name not in columns
  ]
  if missing:
    raise ValueError(
      f"{origin} asks for {' and '.join(missing)}, which the texts do not "
      f"have; their columns: {', '.join(sorted(columns)) or 'none'}"
    )
