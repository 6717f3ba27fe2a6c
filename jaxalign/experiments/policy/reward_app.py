"""Web application of `serve`: requests for rewards, checked and answered."""

import asyncio
import contextlib
import dataclasses
import hmac
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette import applications, exceptions, requests, responses, routing

from jaxalign.data.llm_labels import prompts as questions
from jaxalign.experiments.policy.reward_queue import QueueFullError, RewardQueue
from jaxalign.ops import checks
from jaxalign.runtime.reward_sources import base, http

log = logging.getLogger("jaxalign")

VERSION = "/v1"
RETRY_AFTER = {"Retry-After": "1"}

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ServeConfig:
  """Address and limits of the reward server.

  Attributes:
    host: address to listen on; 127.0.0.1 is reached from this machine alone.
    port: 0 takes a free one, which serve.json names.
    max_texts: of a request.
    max_bytes: of a request's body.
    max_waiting: texts that may wait or be scored at a time; beyond them
      requests are sent away with status 503.
    linger_ms: how long the first request of a batch waits for others.
    shutdown_s: seconds from SIGTERM or SIGINT to the end of the process; until
      shortly before, requests under way are answered.
    max_waiting_bytes: of the bodies of all requests under way; beyond them
      status 503.
    token_variable: environment variable that holds the token which requests
      must bring, None for none.
  """

  host: str = "127.0.0.1"
  port: int = 8008
  max_texts: int = 1024
  max_bytes: int = 16_000_000
  max_waiting: int = 8192
  linger_ms: float = 5.0
  shutdown_s: int = 30
  max_waiting_bytes: int = 64_000_000
  token_variable: str | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    if not 0 <= self.port < 65536:
      raise ValueError(f"port must be in [0, 65536), got {self.port}")
    checks.at_least(
      1,
      max_texts=self.max_texts,
      max_bytes=self.max_bytes,
      shutdown_s=self.shutdown_s,
    )
    if self.max_waiting < self.max_texts:
      raise ValueError(
        "max_waiting must be >= max_texts, got "
        f"{self.max_waiting} and {self.max_texts}"
      )
    if self.max_waiting_bytes < self.max_bytes:
      raise ValueError(
        "max_waiting_bytes must be >= max_bytes, got "
        f"{self.max_waiting_bytes} and {self.max_bytes}"
      )
    checks.at_least(0, linger_ms=self.linger_ms)
    questions.check_variable("token_variable", self.token_variable)


class _RefusedError(Exception):
  """A request that is answered with a reason instead of rewards."""

  def __init__(
    self, status: int, reason: str, headers: dict[str, str] | None = None
  ):
    super().__init__(reason)
    self.status = status
    self.headers = headers


def make_app(
  source: base.RewardSource, config: ServeConfig, *, batch_size: int
) -> applications.Starlette:
  """The web application.

  Args:
    source: what is served.
    config: bounds.
    batch_size: texts that are scored together.

  Returns:
    An ASGI application with `POST /v1/rewards` and `GET /health`; its
    `state.queue` is the `RewardQueue`.

  Raises:
    ValueError: there is no token where there should be one.
  """
  token = questions.read_variable("token_variable", config.token_variable)
  queue = RewardQueue(
    source,
    batch_size=batch_size,
    max_waiting=config.max_waiting,
    max_waiting_bytes=config.max_waiting_bytes,
    linger_s=config.linger_ms / 1000,
  )

  @contextlib.asynccontextmanager
  async def lifespan(app: applications.Starlette) -> AsyncIterator[None]:
    del app
    work = asyncio.create_task(queue.run())
    yield
    # The server has waited for requests: what is scored now, nobody awaits.
    queue.close()
    work.cancel()
    log.info(
      "served %(texts)d texts of %(requests)d requests in %(batches)d batches; "
      "%(refused)d refused, %(failed)d failed, %(gone)d left by their clients",
      queue.counts,
    )

  async def rewards(request: requests.Request) -> responses.Response:
    if not _may_ask(request, token):
      raise _RefusedError(
        401,
        "this server wants its token, as `Authorization: Bearer TOKEN`",
        {"WWW-Authenticate": "Bearer"},
      )
    try:
      async with _json_body(request, queue, config.max_bytes) as content:
        prompts, texts = await asyncio.to_thread(
          _parsed, content, config.max_texts
        )
        found = await _while_there(request, queue.score(prompts, texts))
    except asyncio.CancelledError:  # shutdown_s is nearly over
      raise QueueFullError("the server is shutting down") from None
    reply = http.Reply(source.names, found, source.mixture_weights)
    return responses.JSONResponse(reply.to_json())

  async def health(request: requests.Request) -> responses.Response:
    if not _may_ask(request, token):
      return responses.JSONResponse({"status": "ok"})
    weights = source.mixture_weights
    return responses.JSONResponse(
      {
        "status": "ok",
        "names": list(source.names),
        "mixture_weights": None if weights is None else list(weights),
        "waiting": queue.waiting,
        "max_waiting": config.max_waiting,
        "waiting_bytes": queue.waiting_bytes,
        "max_waiting_bytes": config.max_waiting_bytes,
        **queue.counts,
      }
    )

  app = applications.Starlette(
    routes=[
      routing.Route(f"{VERSION}{http.PATH}", rewards, methods=["POST"]),
      routing.Route("/health", health),
    ],
    exception_handlers={
      _RefusedError: _refused,
      QueueFullError: _full,
      base.RewardError: _failed,
      exceptions.HTTPException: _no_such_thing,
      Exception: _failed,
    },
    lifespan=lifespan,
  )
  app.state.queue = queue
  return app


def _may_ask(request: requests.Request, token: str | None) -> bool:
  """Whether a request has the token; True where none is wanted."""
  if token is None:
    return True
  kind, _, given = request.headers.get("authorization", "").partition(" ")
  # In constant time: how long it takes says nothing of the token.
  same = hmac.compare_digest(given.strip().encode(), token.encode())
  return kind.lower() == "bearer" and same


@contextlib.asynccontextmanager
async def _json_body(
  request: requests.Request, queue: RewardQueue, max_bytes: int
) -> AsyncIterator[Any]:
  """The body's JSON, read no further than `max_bytes` and counted by `queue`.

  Its bytes count as waiting until the block ends.
  """
  body, size = bytearray(), 0
  try:
    async for part in request.stream():
      queue.take_bytes(len(part))
      size += len(part)
      if size > max_bytes:
        raise _RefusedError(413, f"a body may hold {max_bytes} bytes, got more")
      body += part
    try:
      content = json.loads(body)
    except (ValueError, RecursionError) as error:
      raise _RefusedError(400, f"the body must be JSON: {error}") from None
    del body
    yield content
  except requests.ClientDisconnect:
    raise _RefusedError(400, "the client has gone") from None
  finally:
    queue.take_bytes(-size)


def _parsed(
  content: Any, max_texts: int
) -> tuple[list[base.Prompt], list[str]]:
  """Prompts and responses of a body's JSON, counted before they are read."""
  if isinstance(content, dict):
    for texts in content.values():
      if isinstance(texts, list) and len(texts) > max_texts:
        raise _RefusedError(
          413, f"a request may hold {max_texts} texts, got {len(texts)}"
        )
  try:
    return http.parse_request(content)
  except ValueError as error:
    raise _RefusedError(400, str(error)) from None


async def _while_there(
  request: requests.Request, work: Coroutine[Any, Any, T]
) -> T:
  """What `work` gives, which is cancelled when the client leaves.

  Raises:
    _RefusedError: the client has left.
  """

  async def left() -> None:
    while (await request.receive())["type"] != "http.disconnect":
      continue

  working, leaving = asyncio.create_task(work), asyncio.create_task(left())
  try:
    await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
      return working.result()
    raise _RefusedError(400, "the client has gone")
  finally:
    working.cancel()
    leaving.cancel()


def _error(
  status: int, reason: str, headers: dict[str, str] | None = None
) -> responses.Response:
  return responses.JSONResponse({"error": reason}, status, headers)


async def _refused(request: requests.Request, error: Any) -> Any:
  return _error(error.status, str(error), error.headers)


async def _full(request: requests.Request, error: Any) -> Any:
  return _error(503, str(error), RETRY_AFTER)


async def _failed(request: requests.Request, error: Any) -> Any:
  return _error(500, f"no rewards: {type(error).__name__}: {error}")


async def _no_such_thing(request: requests.Request, error: Any) -> Any:
  """An unknown path, or a known one by another method."""
  reason = (
    f"{request.method} {request.url.path}: {error.detail}; there are POST "
    f"{VERSION}{http.PATH} and GET /health"
  )
  return _error(error.status_code, reason, error.headers)
