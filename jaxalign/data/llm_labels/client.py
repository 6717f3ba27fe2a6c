"""HTTP client of the library: JSON in, JSON out, and chat completions on top.

Every request is made until an answer comes or the attempts are used up, no
faster and no more at a time than allowed. What was answered before is not asked
again. The key comes from the environment and is hidden in everything that
leaves this module.
"""

import asyncio
import collections
import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jaxalign.data.llm_labels.prompts import (
  Answer,
  ConnectionConfig,
  EndpointConfig,
  Messages,
  question_body,
  question_key,
  read_key,
)

if TYPE_CHECKING:
  import httpx

# What may pass by itself; any other status will be the same next time.
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 529)
MAX_ANSWER_BYTES = 32 * 2**20  # unpacked; what is longer is no answer
MAX_TOKENS_SAID = 10**9  # of a question or an answer, by the endpoint's count
# Errors that malformed JSON of a server can raise.
GARBAGE = (
  ValueError,
  LookupError,
  TypeError,
  AttributeError,
  ArithmeticError,  # 1e999 as a whole number
  RecursionError,  # 100,000 brackets
)


T = TypeVar("T")


class EndpointError(Exception):
  """The endpoint refuses every question: a wrong address, key or model."""


class _TransientError(Exception):
  """An attempt that may succeed next time.

  Attributes:
    kind: what went wrong, a word that is counted.
    wait_s: what the endpoint asked to wait, if it did.
  """

  def __init__(self, kind: str, wait_s: float | None = None):
    super().__init__(kind)
    self.kind = kind
    self.wait_s = wait_s


def ask_all(
  config: EndpointConfig,
  questions: Sequence[Messages],
  *,
  known: Mapping[str, Answer],
  remember: Callable[[str, Answer], None],
  seed: int = 0,
) -> tuple[list[Answer | None], dict[str, int]]:
  """Asks what is not known yet; equal questions once.

  Args:
    config: the endpoint.
    questions: messages of {role, content} each.
    known: answers by `question_key`.
    remember: called with each new answer as it arrives.
    seed: of the random part of waiting.

  Returns:
    The answers in the order asked, None where every attempt failed, and counts:
    `known`, `asked`, `attempts`, `failed`, and one per kind of failed attempt,
    such as `http_429`, `timeout`, `connection`, `garbage`.

  Raises:
    EndpointError: the endpoint refuses for a reason that will not pass.
    ValueError: the key is missing.
  """
  keys = [question_key(config, messages) for messages in questions]
  wanted = {
    key: messages
    for key, messages in zip(keys, questions, strict=True)
    if key not in known
  }
  counts: collections.Counter[str] = collections.Counter(
    known=len({*keys} - {*wanted}), asked=len(wanted), attempts=0, failed=0
  )
  found: dict[str, Answer | None] = {}
  if wanted:
    secret = read_key(config)

    def parse(key: str, content: Any) -> Answer:
      del key
      answer = _answer(content)
      return answer._replace(text=_hidden(answer.text, secret))

    found, made = post_all(
      f"{config.url.rstrip('/')}/chat/completions",
      config,
      {key: question_body(config, asked) for key, asked in wanted.items()},
      parse=parse,
      remember=remember,
      seed=seed,
    )
    counts.update(made)
  return [known[k] if k in known else found[k] for k in keys], dict(counts)


def post_all(
  url: str,
  config: ConnectionConfig,
  bodies: Mapping[str, Any],
  *,
  parse: Callable[[str, Any], T],
  remember: Callable[[str, T], None],
  seed: int = 0,
) -> tuple[dict[str, T | None], dict[str, int]]:
  """Posts JSON bodies to one address and parses what comes back.

  Args:
    url: the address.
    config: rate, retries and timeouts.
    bodies: what to post, by any key.
    parse: `(key, JSON of the answer)` to a result; one of `GARBAGE` means
      garbage, which is asked for again, as is what exceeds MAX_ANSWER_BYTES.
    remember: called with each new result as it arrives.
    seed: of the random part of waiting.

  Returns:
    The results by key, None where every attempt failed, and counts: `attempts`,
    `failed`, and one per kind of failed attempt, such as `http_429`, `timeout`,
    `connection`, `garbage`, `too_long`.

  Raises:
    EndpointError: the server refuses for a reason that will not pass.
    ValueError: the key is missing.
  """
  counts: collections.Counter[str] = collections.Counter(attempts=0, failed=0)
  session = _Session(
    url, config, read_key(config), parse, remember, counts, seed
  )
  found = asyncio.run(session.post(bodies)) if bodies else {}
  return found, dict(counts)


@dataclasses.dataclass(eq=False)
class _Session(Generic[T]):
  """The state of one round of requests."""

  url: str
  config: ConnectionConfig
  key: str | None
  parse: Callable[[str, Any], T]
  remember: Callable[[str, T], None]
  counts: collections.Counter[str]
  seed: int
  free_at: float = 0.0  # when the next attempt may start

  async def post(self, bodies: Mapping[str, Any]) -> dict[str, T | None]:
    import httpx  # brings a command line along, and most runs ask nobody

    headers = (
      {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
    )
    found: dict[str, T | None] = {}
    left = iter(bodies.items())
    async with httpx.AsyncClient(
      headers=headers, timeout=self.config.timeout_s
    ) as client:

      async def work() -> None:
        for key, body in left:
          result = await self._until_answered(client, key, body)
          found[key] = result
          if result is not None:
            self.remember(key, result)

      workers = min(self.config.concurrency, len(bodies))
      try:
        async with asyncio.TaskGroup() as group:
          for _ in range(workers):
            group.create_task(work())
      except ExceptionGroup as several:
        # All say the same: the first one that ended the round.
        raise several.exceptions[0] from None
    return found

  async def _until_answered(
    self, client: "httpx.AsyncClient", key: str, body: Any
  ) -> T | None:
    rng = random.Random(f"{self.seed} {key}")
    for attempt in range(self.config.max_attempts):
      await self._wait_for_turn()
      self.counts["attempts"] += 1
      try:
        async with asyncio.timeout(self.config.timeout_s):
          return await self._attempt(client, key, body)
      except TimeoutError:
        failure = _TransientError("timeout")
      except _TransientError as error:
        failure = error
      self.counts[failure.kind] += 1
      if attempt + 1 < self.config.max_attempts:
        # Jitter, or all who were sent away would come back at once.
        wait = self.config.backoff_s * 2**attempt * (0.5 + rng.random())
        if failure.wait_s is not None:
          wait = max(wait, failure.wait_s)
        await asyncio.sleep(min(wait, self.config.max_backoff_s))
    self.counts["failed"] += 1
    return None

  async def _wait_for_turn(self) -> None:
    if self.config.requests_per_minute is None:
      return
    start = max(self.free_at, time.monotonic())
    self.free_at = start + 60.0 / self.config.requests_per_minute
    await asyncio.sleep(start - time.monotonic())

  async def _attempt(
    self, client: "httpx.AsyncClient", key: str, body: Any
  ) -> T:
    import httpx

    try:
      async with client.stream("POST", self.url, json=body) as response:
        content = await _content(response)
    except httpx.TimeoutException:
      raise _TransientError("timeout") from None
    except httpx.DecodingError:  # says it is gzip, and is not
      raise _TransientError("garbage") from None
    except httpx.TransportError:  # refused, reset or broken off half-way
      raise _TransientError("connection") from None
    if response.status_code in TRANSIENT:
      raise _TransientError(
        f"http_{response.status_code}",
        _seconds(response.headers.get("retry-after")),
      )
    if response.status_code != 200:
      said = _hidden(content.decode(errors="replace"), self.key)[:200]
      raise EndpointError(
        f"{self.url} answers with status {response.status_code}: {said}"
      )
    if len(content) > MAX_ANSWER_BYTES:
      raise _TransientError("too_long")
    try:
      return self.parse(key, json.loads(content))
    except GARBAGE:
      raise _TransientError("garbage") from None


async def _content(response: "httpx.Response") -> bytearray:
  """The body, read no further than a part beyond `MAX_ANSWER_BYTES`."""
  content = bytearray()
  async for part in response.aiter_bytes():
    content += part
    if len(content) > MAX_ANSWER_BYTES:
      break
  return content


def _hidden(text: str, key: str | None) -> str:
  return text if key is None else text.replace(key, "[key]")


def _answer(content: Any) -> Answer:
  """The first choice of a chat completion; an error for anything else."""
  choice = content["choices"][0]
  message = choice["message"]
  text = message["content"] if message.get("content") is not None else ""
  refusal = message.get("refusal")
  usage = content["usage"] if content.get("usage") is not None else {}
  answer = Answer(
    text=text,
    finish=str(choice.get("finish_reason")),
    refused=bool(refusal) or choice.get("finish_reason") == "content_filter",
    prompt_tokens=_tokens(usage.get("prompt_tokens", 0)),
    completion_tokens=_tokens(usage.get("completion_tokens", 0)),
  )
  text.encode("utf-8")
  return answer


def _tokens(said: Any) -> int:
  """Number of tokens that the endpoint reports."""
  number = int(said)
  if not 0 <= number <= MAX_TOKENS_SAID:
    raise ValueError("no number of tokens")
  return number


def _seconds(header: str | None) -> float | None:
  """A Retry-After in seconds; the form with a date is not used by anyone."""
  try:
    wait = 0.0 if header is None else float(header)
  except ValueError:
    return None
  return wait if wait > 0 else None  # nor is NaN a time to wait
