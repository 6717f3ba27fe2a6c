"""Chat templates rendered within bounds on their work.

A template is a program that came with a model: transformers runs it in Jinja's
sandbox, which keeps it from files and from Python, but not from working for
ever. It must be trusted as the model is; these bounds turn an accident, or a
conversation made to be slow, into an error.
"""

import contextlib
import functools
import threading
from typing import Any

import transformers

from jaxalign.data.tokenization import turns

MAX_TURNS = 10_000
MAX_ADDED = 1_000_000  # characters that are in no turn
MAX_PER_CHARACTER = 6  # as where a template writes a text as JSON
TRIAL_S = 60.0  # for one short conversation, which takes milliseconds


def rendered(
  fast: transformers.PreTrainedTokenizerBase,
  conversation: turns.Conversation,
  *,
  generate: bool,
) -> str:
  """A conversation as text, by the tokenizer's chat template.

  Args:
    fast: a tokenizer with a template.
    conversation: its messages, and what else the template reads.
    generate: whether the text ends where an answer begins.

  Returns:
    The text.

  Raises:
    ValueError: more than `MAX_TURNS`, a text far longer than the turns, or a
      template that does not end.
    Exception: whatever the template raises about the conversation.
  """
  messages, tools, variables = conversation
  if len(messages) > MAX_TURNS:
    raise ValueError(
      f"a chat template is given {MAX_TURNS} turns at most, got {len(messages)}"
    )
  _try_out(fast, str(fast.chat_template))
  text = str(_render(fast, conversation, generate))
  given = sum(
    len(str(value))
    for each in (*messages, *(tools or ()), variables)
    for value in each.values()
  )
  most = MAX_ADDED + MAX_PER_CHARACTER * given
  if len(text) > most:
    raise ValueError(
      f"the chat template made {len(text)} characters of {len(messages)} turns "
      f"with {given}; {most} are allowed"
    )
  return text


def _render(
  fast: transformers.PreTrainedTokenizerBase,
  conversation: turns.Conversation,
  generate: bool,
) -> Any:
  return fast.apply_chat_template(
    conversation.messages,
    tools=conversation.tools,
    tokenize=False,
    add_generation_prompt=generate,
    **conversation.variables,
  )


@functools.lru_cache(maxsize=16)
def _try_out(fast: transformers.PreTrainedTokenizerBase, template: str) -> None:
  """Raises ValueError if the template does not end on a short conversation."""
  del template  # of the cache's key alone
  message = {"role": "user", "content": "Why?"}

  def trial() -> None:
    with contextlib.suppress(Exception):  # a refusal is an end too
      _render(fast, turns.Conversation([message]), True)

  # A thread cannot be stopped, but it does not keep the process from ending.
  thread = threading.Thread(target=trial, daemon=True)
  thread.start()
  thread.join(TRIAL_S)
  if thread.is_alive():
    raise ValueError(
      f"the chat template has not ended after {TRIAL_S:g} s on one short turn; "
      "data.chat_template takes the file of another one"
    )
