"""Whom to ask and what: an endpoint's settings, questions and answers."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib import parse

Messages = Sequence[Mapping[str, str]]


@dataclasses.dataclass(frozen=True)
class ConnectionConfig:
  """How politely a server is asked, and how stubbornly.

  Attributes:
    key_variable: environment variable that holds the key, None for no key.
    concurrency: requests under way at a time.
    requests_per_minute: bound on attempts, None for none.
    timeout_s: seconds until an attempt is given up, however it trickles.
    max_attempts: per request.
    backoff_s: mean wait before the second attempt; it doubles.
    max_backoff_s: the longest wait, also where the server asks for more.
  """

  key_variable: str | None
  concurrency: int
  requests_per_minute: float | None
  timeout_s: float
  max_attempts: int
  backoff_s: float
  max_backoff_s: float

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    for name in ("concurrency", "max_attempts"):
      _at_least_1(name, self.__getattribute__(name))
    for name in ("timeout_s", "backoff_s", "max_backoff_s"):
      if self.__getattribute__(name) <= 0:
        raise ValueError(
          f"{name} must be > 0, got {self.__getattribute__(name)}"
        )
    rate = self.requests_per_minute
    if rate is not None and rate <= 0:
      raise ValueError(f"requests_per_minute must be > 0, got {rate}")


@dataclasses.dataclass(frozen=True)
class EndpointConfig(ConnectionConfig):
  """Whom to ask, and how politely.

  Attributes:
    url: address up to and with the version, such as http://localhost:8000/v1.
    model: name the endpoint knows it by.
    temperature: of sampling, >= 0.
    max_tokens: of an answer.
  """

  url: str
  model: str
  temperature: float
  max_tokens: int

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    super().__post_init__()
    check_url(self.url)
    _at_least_1("max_tokens", self.max_tokens)
    if self.temperature < 0:
      raise ValueError(f"temperature must be >= 0, got {self.temperature}")


def check_url(url: str) -> None:
  """Raises ValueError unless it is an address that may be written to files."""
  at = parse.urlsplit(url)
  if at.scheme not in ("http", "https") or not at.netloc:
    raise ValueError("url must begin with http:// or https:// and a host")
  if at.username or at.password or at.query:
    raise ValueError(
      "url must hold no user, password or query: it is written to files; "
      "key_variable names where the key is"
    )


def _at_least_1(name: str, value: int) -> None:
  if value < 1:
    raise ValueError(f"{name} must be >= 1, got {value}")


class Answer(NamedTuple):
  """What the model said.

  Attributes:
    text: its words; empty where it refused by other means.
    finish: why it stopped: "stop", "length", "content_filter" or another word.
    refused: whether the endpoint says that the model refused.
    prompt_tokens: of the question as billed, 0 if the endpoint does not say.
    completion_tokens: of the answer.
  """

  text: str
  finish: str
  refused: bool
  prompt_tokens: int
  completion_tokens: int


def question_body(config: EndpointConfig, messages: Messages) -> dict[str, Any]:
  """The JSON that asks a question."""
  return {
    "model": config.model,
    "messages": [dict(message) for message in messages],
    "temperature": config.temperature,
    "max_tokens": config.max_tokens,
  }


def question_key(config: EndpointConfig, messages: Messages) -> str:
  """Equal for questions that have the same answer; hexadecimal."""
  body = question_body(config, messages)
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_key(config: ConnectionConfig) -> str | None:
  """The key from the environment, None where none is wanted.

  Raises:
    ValueError: the variable is unset, empty or no header value; its value is
      not quoted.
  """
  if config.key_variable is None:
    return None
  key = os.environ.get(config.key_variable, "").strip()
  if not key:
    raise ValueError(
      f"environment variable {config.key_variable} must hold the key of the "
      "endpoint; key_variable=None asks without one"
    )
  if not (key.isascii() and key.isprintable()):
    raise ValueError(
      f"environment variable {config.key_variable} holds a character that no "
      "HTTP header can"
    )
  return key
