"""Endpoint settings and prompts for LLM judges and personas."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib import parse

from jaxalign.ops import checks

Messages = Sequence[Mapping[str, str]]

VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class ConnectionConfig:
  """Rate, retries and timeouts of requests to a server.

  Attributes:
    key_variable: environment variable that holds the key, None for no key.
    concurrency: requests under way at a time.
    requests_per_minute: bound on attempts, None for none.
    timeout_s: seconds until an attempt is given up, however it trickles.
    max_attempts: per request.
    backoff_s: mean wait before the second attempt; it doubles.
    max_backoff_s: the longest wait, also where the server asks for more.
  """

  key_variable: str | None = None
  concurrency: int = 4
  requests_per_minute: float | None = None
  timeout_s: float = 60.0
  max_attempts: int = 6
  backoff_s: float = 1.0
  max_backoff_s: float = 60.0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1, concurrency=self.concurrency, max_attempts=self.max_attempts
    )
    checks.above(
      0,
      timeout_s=self.timeout_s,
      backoff_s=self.backoff_s,
      max_backoff_s=self.max_backoff_s,
      requests_per_minute=self.requests_per_minute,
    )
    check_variable("key_variable", self.key_variable)


@dataclasses.dataclass(frozen=True)
class EndpointConfig(ConnectionConfig):
  """Chat endpoint: address, model and sampling.

  Attributes:
    url: address up to and with the version, such as http://localhost:8000/v1.
    model: name the endpoint knows it by.
    temperature: of sampling, >= 0.
    max_tokens: of an answer.
    concurrency: requests under way at a time.
  """

  url: str = "http://localhost:8000/v1"
  model: str = "default"
  temperature: float = 0.7
  max_tokens: int = 64
  concurrency: int = 16

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    super().__post_init__()
    check_url(self.url)
    checks.at_least(1, max_tokens=self.max_tokens)
    checks.at_least(0, temperature=self.temperature)


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


def check_variable(key: str, name: str | None) -> None:
  """Raises ValueError unless a config's key names an environment variable.

  What is no name may be the secret itself, put in the wrong place: it is never
  quoted, neither here nor in any file.

  Args:
    key: of the config, for errors.
    name: its value; None for none.
  """
  if name is None:
    return
  usual = VARIABLE.fullmatch(name) is not None
  if not usual or (name != name.upper() and name not in os.environ):
    raise ValueError(
      f"{key} must be the name of an environment variable, such as MY_KEY, and "
      "not what it holds; got something else, which is not shown as it may be "
      "secret (a name with small letters must be set already)"
    )


def read_variable(key: str, name: str | None) -> str | None:
  """A secret from the environment, None where none is wanted.

  Args:
    key: of the config, for errors.
    name: the environment variable.

  Returns:
    Its value, without space at either end.

  Raises:
    ValueError: the variable is unset, empty or no header value; its value is
      not quoted.
  """
  check_variable(key, name)
  if name is None:
    return None
  value = os.environ.get(name, "").strip()
  if not value:
    raise ValueError(
      f"the environment variable that {key} names is not set or empty; set it, "
      f"or leave it out with {key}=None"
    )
  if not (value.isascii() and value.isprintable()):
    raise ValueError(
      f"the environment variable that {key} names holds a character that no "
      "HTTP header can"
    )
  return value


def read_key(config: ConnectionConfig) -> str | None:
  """The endpoint's key; see `read_variable`."""
  return read_variable("key_variable", config.key_variable)
