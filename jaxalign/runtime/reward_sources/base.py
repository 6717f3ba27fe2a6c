"""Reward source protocol: one call that takes texts and gives rewards.

A policy is trained towards what comes through this call alone, so a source has
its own tokenizer, its own machine or its own language: texts are handed over.
"""

import logging
import pkgutil
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jaxalign.data.records.chat import Text
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.reward_sources import function_calls
from jaxalign.runtime.reward_sources import labels as label_shares
from jaxalign.runtime.reward_sources.function_calls import Columns
from jaxalign.runtime.reward_sources.labels import Labels

_log = logging.getLogger(__name__)

Prompt = Text
Score = Callable[..., Any]


class RewardError(Exception):
  """A reward source failed in every attempt; it may answer later."""


class RewardSource(Protocol):
  """Prompts with responses in, one calibrated reward per output out.

  Every process of a run passes the same texts and gets the same rewards. A
  source that predicts labels may say so, see `labels.Labelled`.

  Attributes:
    names: of the K outputs, such as the groups.
    mixture_weights: share of each output's group, [K], None where unknown.
    units: raw rewards that one unit of each output stands for, [K], by which a
      gap says how probable a preference is; None where they are unknown.
  """

  names: tuple[str, ...]
  mixture_weights: tuple[float, ...] | None
  units: tuple[float, ...] | None

  def __call__(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Rewards of B responses, float32 [B, K].

    A reward depends on its own prompt, response and columns alone, in what
    order and in what company they come does not matter; no text gives [0, K].

    Args:
      prompts: text or chat turns, B of them.
      responses: text, or turns that continue a chat, B of them.
      columns: what else is known of each, such as `answer`, by name and B
        values each; models do without.

    Raises:
      RewardError: there are no rewards; the same call may be made again.
    """


def checked_rewards(
  rewards: Any, *, num_texts: int, names: Sequence[str], origin: str
) -> np.ndarray:
  """Rewards as the protocol has them, or an error that says who is wrong.

  Args:
    rewards: array-like, [B, K], or [B] where there is one output.
    num_texts: B.
    names: of the K outputs.
    origin: who gave them, for errors.

  Returns:
    float32 [B, K].

  Raises:
    RewardError: another shape, no numbers, or one that is not finite.
  """
  try:
    found = np.asarray(rewards, np.float32)
  except (TypeError, ValueError) as error:
    raise RewardError(f"{origin} gave no array of numbers: {error}") from None
  if len(names) == 1 and found.shape == (num_texts,):
    found = found[:, None]
  if found.shape != (num_texts, len(names)):
    raise RewardError(
      f"{origin} must give [{num_texts}, {len(names)}] rewards for {num_texts} "
      f"texts and the outputs {', '.join(names)}, got shape {found.shape}"
    )
  bad = np.argwhere(~np.isfinite(found))
  if len(bad):
    row, column = bad[0]
    raise RewardError(
      f"{origin} gave {found[row, column]} as {names[column]} of text {row}, "
      f"and {len(bad)} such rewards in all"
    )
  return found


def check_texts(
  prompts: Sequence[Prompt],
  responses: Sequence[Text],
  columns: Columns | None = None,
) -> None:
  """Raises ValueError unless every response has its prompt and its columns."""
  if len(prompts) != len(responses):
    raise ValueError(
      f"prompts and responses must be equally many, got {len(prompts)} and "
      f"{len(responses)}"
    )
  for name, values in (columns or {}).items():
    if len(values) != len(responses):
      raise ValueError(
        f"column {name} must have a value for each of {len(responses)} "
        f"responses, got {len(values)}"
      )


def from_main(
  ask: Callable[[], np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
  """Result of a call on process 0, shared with every process.

  Args:
    ask: gives finite float32 of `shape`; called on process 0.
    shape: the same on all processes.

  Returns:
    Its result, [...].

  Raises:
    RewardError: on the others, where process 0 got none and raises its own.
  """
  if jax.process_count() == 1:
    return ask()
  rewards = np.full(shape, np.nan, np.float32)
  try:
    if multihost.is_main():
      rewards = ask()
  finally:
    # Also after an error, or the others would wait forever.
    rewards = multihost.all_hosts_gather(rewards)[0]
  if np.isnan(rewards).any():
    raise RewardError("process 0 got no rewards; its log says why")
  return rewards


def retried(
  call: Callable[[], Any], *, max_attempts: int, backoff_s: float, origin: str
) -> Any:
  """Retries a call that fails for a reason that may pass.

  Args:
    call: an OSError (so a time-out or a lost connection) means "later".
    max_attempts: calls at most.
    backoff_s: wait before the second one; it doubles.
    origin: who is called, for logs and errors.

  Returns:
    What the call returns.

  Raises:
    RewardError: every attempt failed.
  """
  for attempt in range(max_attempts):
    if attempt:
      time.sleep(backoff_s * 2 ** (attempt - 1))
    try:
      return call()
    except OSError as error:
      failure = error
      _log.warning(
        "%s: attempt %d of %d: %r", origin, attempt + 1, max_attempts, error
      )
  raise RewardError(
    f"{origin} failed {max_attempts} times, last with {failure!r}"
  ) from failure


class FunctionSource:
  """A Python function as a source; its rewards are taken as calibrated.

  It sees what its parameters name, see `function_calls.caller`.

  Attributes:
    names: of the outputs.
    mixture_weights: share of each output's group, None where unknown.
    units: None, unknown.
    labels: that a response can get, None without a function for them.
  """

  units: tuple[float, ...] | None = None

  def __init__(
    self,
    function: Score,
    *,
    names: tuple[str, ...] = ("reward",),
    mixture_weights: tuple[float, ...] | None = None,
    max_attempts: int = 1,
    backoff_s: float = 1.0,
    origin: str = "the reward function",
    labels: Labels | None = None,
    label_function: Score | None = None,
  ) -> None:
    """Wraps a function.

    Args:
      function: `(prompts, responses)`, lists of B each, to rewards [B, K], or
        [B] where there is one output; raises OSError for what may pass. Further
        parameters are columns, and TRL's form is called as there.
      names: of the K outputs.
      mixture_weights: share of each output's group.
      max_attempts: calls at most.
      backoff_s: wait before the second one; it doubles.
      origin: what errors call it.
      labels: that a response can get; with `label_function` alone.
      label_function: as `function`, to shares of these labels, [B, d].

    Raises:
      ValueError: labels without a function for them, or the reverse.
    """
    if (labels is None) != (label_function is None):
      raise ValueError("labels and label_function go together, got one of them")
    self.labels = labels
    self._label_function = label_function
    self.function = function
    self.names = names
    self.mixture_weights = mixture_weights
    self.max_attempts = max_attempts
    self.backoff_s = backoff_s
    self.origin = origin
    self._call = function_calls.caller(function, origin)

  def __call__(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Rewards of B responses, float32 [B, K]; see `RewardSource`."""
    check_texts(prompts, responses, columns)
    shape = (len(responses), len(self.names))
    if not responses:
      return np.zeros(shape, np.float32)

    def ask() -> np.ndarray:
      given = retried(
        lambda: self._call(prompts, responses, columns or {}),
        max_attempts=self.max_attempts,
        backoff_s=self.backoff_s,
        origin=self.origin,
      )
      return checked_rewards(
        given, num_texts=shape[0], names=self.names, origin=self.origin
      )

    return from_main(ask, shape)

  def label_probs(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Shares of the labels of B responses, float32 [B, d].

    Raises:
      ValueError: there are no labels, or the function gives no distributions.
    """
    if self.labels is None or self._label_function is None:
      raise ValueError(f"{self.origin} predicts no labels")
    check_texts(prompts, responses, columns)
    names = self.labels.names
    if not responses:
      return np.zeros((0, len(names)), np.float32)
    call = function_calls.caller(self._label_function, self.origin)
    return from_main(
      lambda: label_shares.checked_probs(
        call(prompts, responses, columns or {}),
        num_texts=len(responses),
        names=names,
      ),
      (len(responses), len(names)),
    )


def resolve_function(spec: str) -> Score:
  """A function by its dotted name.

  Args:
    spec: `package.module:function`.

  Returns:
    The function.

  Raises:
    ValueError: no such form, module or function.
  """
  module, _, name = spec.partition(":")
  if not module or not name:
    raise ValueError(
      f"a reward function is named `module:function`, got {spec!r}"
    )
  try:
    # The user's own code, which no floor of this library may import.
    found = pkgutil.resolve_name(spec)
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(f"no reward function {spec!r}: {error}") from error
  if not callable(found):
    raise ValueError(f"{spec!r} must be a function, got {type(found).__name__}")
  return found


class MeasuredSource:
  """A source whose rewards are measured in deviations from a mean.

  Attributes:
    names: of the outputs.
    mixture_weights: share of each output's group, None where unknown.
    units: these deviations, in the source's own raw rewards, [K].
    labels: those of a source of one output, their values measured alike; None
      of another.
    num_factors: those of a source of personal rewards, else 0.
  """

  def __init__(
    self, source: RewardSource, mean: Sequence[float], std: Sequence[float]
  ) -> None:
    """Wraps a source.

    Args:
      source: what gives raw rewards.
      mean: of each output on some responses, K.
      std: its standard deviation there, K.

    Raises:
      ValueError: an output is constant there.
    """
    self.names = source.names
    self.mixture_weights = source.mixture_weights
    self._source = source
    self._mean, self._std = (
      np.asarray(part, np.float64) for part in (mean, std)
    )
    for name, deviation in zip(self.names, self._std, strict=True):
      if not deviation > 0:
        raise ValueError(
          f"{name} has standard deviation {deviation} on the responses of "
          "calibrate_on: a constant reward cannot be calibrated"
        )
    within = source.units or (1.0,) * len(self.names)
    self.units = tuple(float(u) for u in self._std * np.asarray(within))
    known = label_shares.labels_of(source) if len(self.names) == 1 else None
    self.labels = label_shares.rescaled(known, mean, std)
    self.num_factors = label_shares.num_factors(source)

  def __call__(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Rewards of B responses, float32 [B, K]; see `RewardSource`."""
    return self._measured(self._source(prompts, responses, columns))

  def _measured(self, rewards: np.ndarray) -> np.ndarray:
    raw = rewards.astype(np.float64)
    return ((raw - self._mean) / self._std).astype(np.float32)

  def scored(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> label_shares.Scored:
    """Rewards, and label shares or factors, of B responses in one pass."""
    found = label_shares.score(self._source, prompts, responses, columns)
    factors = found.factors
    if factors is not None:
      factors = (factors / self._std).astype(np.float32)
    return label_shares.Scored(
      self._measured(found.rewards), found.label_probs, factors
    )

  def label_probs(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Shares of the labels of B responses, float32 [B, d]."""
    return label_shares.shares(self.scored(prompts, responses, columns))


class JoinedSource:
  """Several sources side by side, their outputs in the order given.

  Attributes:
    names: of all outputs.
    mixture_weights: those of a single source, else None.
    units: the same.
    labels: the same.
    num_factors: the same, else 0.
  """

  def __init__(
    self, sources: Sequence[RewardSource], *, names: tuple[str, ...] = ()
  ) -> None:
    """Joins sources.

    Args:
      sources: one or more.
      names: of all K outputs, in place of the sources' own.

    Raises:
      ValueError: no source, two outputs of one name, or another number of
        names.
    """
    own = tuple(name for source in sources for name in source.names)
    if not own:
      raise ValueError("a reward source must have an output, got none")
    if names and len(names) != len(own):
      raise ValueError(
        f"names must name the {len(own)} outputs {', '.join(own)}, got "
        f"{len(names)}: {', '.join(names)}"
      )
    self.names = names if names else own
    if len(set(self.names)) < len(self.names):
      raise ValueError(
        f"outputs must have different names, got {', '.join(self.names)}; "
        "names gives others"
      )
    self.sources = tuple(sources)
    self.mixture_weights = (
      self.sources[0].mixture_weights if len(self.sources) == 1 else None
    )
    self.units = self.sources[0].units if len(self.sources) == 1 else None
    alone = self.sources[0] if len(self.sources) == 1 else None
    self.labels = label_shares.labels_of(alone)
    self.num_factors = label_shares.num_factors(alone)

  def __call__(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Rewards of B responses, float32 [B, K]; see `RewardSource`."""
    parts = [source(prompts, responses, columns) for source in self.sources]
    return np.concatenate(parts, axis=1)

  def scored(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> label_shares.Scored:
    """Rewards and, of a single source, what else it tells, in one pass."""
    if len(self.sources) > 1:
      return label_shares.Scored(self(prompts, responses, columns), None)
    return label_shares.score(self.sources[0], prompts, responses, columns)

  def label_probs(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Shares of the labels of B responses, float32 [B, d]."""
    return label_shares.shares(self.scored(prompts, responses, columns))
