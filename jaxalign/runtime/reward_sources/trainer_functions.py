"""Reward functions for other trainers: one per output of a reward source.

TRL's and tunix's trainers call `(prompts=..., completions=..., **columns)` and
want one number per completion.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.runtime.reward_sources import base, http


class _LastCall:
  """A source that is asked once where its outputs are asked for in turn."""

  def __init__(self, source: base.RewardSource) -> None:
    self._source = source
    self._texts: http.Texts | None = None
    self._rewards: np.ndarray | None = None

  def rewards(self, texts: http.Texts) -> np.ndarray:
    """Rewards of the texts, float32 [B, K]."""
    if self._rewards is None or not _same(texts, self._texts):
      self._texts, self._rewards = None, None
      self._rewards = self._source(*texts)
      self._texts = texts
    return self._rewards


class RewardFunction:
  """One output of a source, called as TRL's and tunix's trainers call.

  Attributes:
    __name__: of the output, under which trainers log it.
  """

  def __init__(self, asked: _LastCall, names: Sequence[str], output: int):
    self.__name__ = names[output]
    self._asked, self._output = asked, output

  def __call__(
    self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
  ) -> list[float]:
    """One reward per completion.

    Args:
      prompts: texts, or chats as lists of {role, content}.
      completions: texts, or the turns that continue the chats.
      **columns: a list as long for each column of the data; what is no such
        list, as a trainer's state, is ignored.

    Returns:
      As many numbers.

    Raises:
      ValueError: a chat or a text that is none, with its number.
      RewardError: the source has no rewards.
    """
    pairs = [
      http.parse_text(number, prompt, completion)
      for number, (prompt, completion) in enumerate(
        zip(prompts, completions, strict=True)
      )
    ]
    texts = http.Texts(
      [prompt for prompt, _ in pairs],
      [response for _, response in pairs],
      {
        name: list(values)
        for name, values in columns.items()
        if _is_column(values, len(pairs))
      },
    )
    return self._asked.rewards(texts)[:, self._output].tolist()


def reward_functions(source: base.RewardSource) -> list[RewardFunction]:
  """A reward function for each output of a source.

  Args:
    source: asked once for all of its functions where they are called in turn
      with the same texts.

  Returns:
    K functions, for TRL's `reward_funcs` or tunix's `reward_fns`.
  """
  asked = _LastCall(source)
  return [
    RewardFunction(asked, source.names, output)
    for output in range(len(source.names))
  ]


def _is_column(values: Any, size: int) -> bool:
  if isinstance(values, np.ndarray):
    return bool(values.ndim) and len(values) == size
  return isinstance(values, (list, tuple)) and len(values) == size


def _same(texts: http.Texts, others: http.Texts | None) -> bool:
  try:
    return texts == others
  except ValueError:  # of arrays, which are equal place by place
    return False
