"""Web application of `serve`: requests for rewards, checked and answered."""

import asyncio
import contextlib
import dataclasses
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette import (
  applications,
  exceptions,
  middleware,
  requests,
  responses,
  routing,
)

from jaxalign.data.llm_labels import prompts as questions
from jaxalign.experiments.policy import reward_protocols, served_metrics
from jaxalign.experiments.policy.reward_queue import QueueFullError, RewardQueue
from jaxalign.experiments.reward_model import user_assignment
from jaxalign.ops import checks
from jaxalign.runtime.reward_sources import base, http, labels

log = logging.getLogger("jaxalign")

VERSION = "/v1"
RETRY_AFTER = {"Retry-After": "1"}
MAX_LOGGED = 50  # kinds of refused requests

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
    output: name of the output that is the reward where a client of another
      program takes one number; None where there is but one.
    ends: texts that are dropped from the end of what such a client sends, such
      as the end of text of its policy, for a source that does not know it.
    model: what such a client is told that the model is called.
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
  output: str | None = None
  ends: tuple[str, ...] = ()
  model: str = "jaxalign"

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
    An ASGI application with a POST route for each of
    `reward_protocols.PROTOCOLS` and GET /health, /ready, /metrics and
    /v1/models; its `state.queue` is the `RewardQueue`.

  Raises:
    ValueError: there is no token where there should be one, or no such output.
  """
  token = questions.read_variable("token_variable", config.token_variable)
  if config.output is not None and config.output not in source.names:
    raise ValueError(
      f"output must be one of {', '.join(source.names)}, got {config.output!r}"
    )
  queue = RewardQueue(
    labels.SideBySide(source),
    batch_size=batch_size,
    max_waiting=config.max_waiting,
    max_waiting_bytes=config.max_waiting_bytes,
    linger_s=config.linger_ms / 1000,
  )
  server = _Server(source, config, queue, token)
  routes = server.routes()
  app = applications.Starlette(
    routes=routes,
    exception_handlers={
      _RefusedError: server.refused,
      QueueFullError: _full,
      base.RewardError: _failed,
      exceptions.HTTPException: server.no_such_thing,
      Exception: _failed,
    },
    lifespan=server.lifespan,
    middleware=[
      middleware.Middleware(
        _Measured,
        observed=server.observed,
        paths=frozenset(route.path for route in routes),
      )
    ],
  )
  app.state.queue = queue
  return app


class _Server:
  """Endpoints of one source, with what they share."""

  def __init__(
    self,
    source: base.RewardSource,
    config: ServeConfig,
    queue: RewardQueue,
    token: str | None,
  ) -> None:
    self.observed = served_metrics.Observed()
    self._source, self._config = source, config
    self._queue, self._token = queue, token
    self._served = reward_protocols.Served(
      tuple(source.names),
      config.model,
      config.output,
      config.ends,
      int(time.time()),
    )
    self._refusals: set[tuple[str, str, int]] = set()

  def routes(self) -> list[routing.Route]:
    """All of them; the first is the library's own."""
    posts = [
      routing.Route(each.path, self._endpoint(each), methods=["POST"])
      for each in reward_protocols.PROTOCOLS
    ]
    gets = {
      "/health": self._health,
      "/ready": self._ready,
      "/metrics": self._metrics,
      f"{VERSION}/models": self._models,
    }
    return [*posts, *(routing.Route(*each) for each in gets.items())]

  @contextlib.asynccontextmanager
  async def lifespan(self, app: applications.Starlette) -> AsyncIterator[None]:
    """Works the queue off while the server runs."""
    del app
    work = asyncio.create_task(self._queue.run())
    yield
    # The server has waited for requests: what is scored now, nobody awaits.
    self._queue.close()
    work.cancel()
    log.info(
      "served %(texts)d texts of %(requests)d requests in %(batches)d batches; "
      "%(refused)d refused, %(failed)d failed, %(gone)d left by their clients",
      self._queue.counts,
    )

  def _endpoint(
    self, protocol: reward_protocols.Protocol
  ) -> Callable[[requests.Request], Awaitable[responses.Response]]:
    async def rewards(request: requests.Request) -> responses.Response:
      self._check_token(request)
      limits, source = self._config, self._source
      try:
        async with _json_body(
          request, self._queue, limits.max_bytes
        ) as content:
          texts = await asyncio.to_thread(
            _parsed, protocol, content, limits.max_texts, self._served
          )
          own = []
          if protocol.path == f"{VERSION}{http.PATH}":
            own = _person(content, source, limits.max_texts, texts)
          found = await _while_there(
            request,
            self._queue.score(
              [*texts.prompts, *(prompt for prompt, _ in own)],
              [*texts.responses, *(text for _, text in own)],
              texts.columns,
            ),
          )
      except asyncio.CancelledError:  # shutdown_s is nearly over
        raise QueueFullError("the server is shutting down") from None
      number = len(texts.responses)
      apart = labels.SideBySide(source).apart
      asked, said = apart(found[:number]), apart(found[number:])
      heads, place = _placed(said, source) if own else (None, None)
      reply = http.Reply(
        source.names,
        asked.rewards,
        source.mixture_weights,
        heads,
        labels.labels_of(source),
        asked.label_probs,
        place,
        asked.factors,
      )
      answer = protocol.answer(content, reply, self._served)
      return responses.JSONResponse(answer)

    return rewards

  def _check_token(self, request: requests.Request) -> None:
    if not _may_ask(request, self._token):
      raise _RefusedError(
        401,
        "this server wants its token, as `Authorization: Bearer TOKEN`",
        {"WWW-Authenticate": "Bearer"},
      )

  async def _health(self, request: requests.Request) -> responses.Response:
    """Whether the process lives, and to those with the token how it is."""
    if not _may_ask(request, self._token):
      return responses.JSONResponse({"status": "ok"})
    weights = self._source.mixture_weights
    return responses.JSONResponse(
      {
        "status": "ok",
        "names": list(self._source.names),
        "mixture_weights": None if weights is None else list(weights),
        "waiting": self._queue.waiting,
        "max_waiting": self._config.max_waiting,
        "waiting_bytes": self._queue.waiting_bytes,
        "max_waiting_bytes": self._config.max_waiting_bytes,
        **self._queue.counts,
      }
    )

  async def _ready(self, request: requests.Request) -> responses.Response:
    """Whether one more text would be taken; needs no token."""
    if self._queue.has_room:
      return responses.JSONResponse({"status": "ready"})
    raise QueueFullError("no room for one more text, or shutting down")

  async def _metrics(self, request: requests.Request) -> responses.Response:
    self._check_token(request)
    gauges = {
      "waiting_texts": self._queue.waiting,
      "waiting_texts_limit": self._config.max_waiting,
      "waiting_bytes": self._queue.waiting_bytes,
      "waiting_bytes_limit": self._config.max_waiting_bytes,
      "ready": int(self._queue.has_room),
    }
    return responses.Response(
      self.observed.exposed(self._queue.counts, gauges),
      media_type=served_metrics.CONTENT_TYPE,
    )

  async def _models(self, request: requests.Request) -> responses.Response:
    self._check_token(request)
    return responses.JSONResponse(reward_protocols.models(self._served))

  async def refused(self, request: requests.Request, error: Any) -> Any:
    """A request that cannot be answered; logged, as clients may hide it."""
    self._log_once(request, error.status, str(error))
    return _error(error.status, str(error), error.headers)

  async def no_such_thing(self, request: requests.Request, error: Any) -> Any:
    """An unknown path, or a known one by another method."""
    paths: dict[str, list[str]] = {"POST": [], "GET": []}
    for route in self.routes():
      method = "POST" if "POST" in (route.methods or ()) else "GET"
      paths[method].append(route.path)
    reason = (
      f"{request.method} {request.url.path}: {error.detail}; there are POST "
      f"{', '.join(paths['POST'])} and GET {', '.join(paths['GET'])}"
    )
    self._log_once(request, error.status_code, reason)
    return _error(error.status_code, reason, error.headers)

  def _log_once(
    self, request: requests.Request, status: int, reason: str
  ) -> None:
    kind = request.method, request.url.path[:100], status
    if kind in self._refusals or len(self._refusals) >= MAX_LOGGED:
      return
    self._refusals.add(kind)
    log.warning(
      "%s %s was answered %d, and more of its kind are not logged: %s",
      *kind,
      reason,
    )


class _Measured:
  """ASGI middleware that counts answers and their durations."""

  def __init__(
    self,
    app: Any,
    observed: served_metrics.Observed,
    paths: frozenset[str],
  ) -> None:
    self._app, self._observed, self._paths = app, observed, paths

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["path"] not in self._paths:
      return await self._app(scope, receive, send)
    begun, status = time.monotonic(), 500

    async def sending(message: Any) -> None:
      nonlocal status
      status = message.get("status", status)
      await send(message)

    try:
      await self._app(scope, receive, sending)
    finally:
      seconds = time.monotonic() - begun
      self._observed.add(scope["path"], status, seconds)


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


def _placed(
  said: labels.Scored, source: base.RewardSource
) -> user_assignment.Person:
  """A person by the texts of their pairs, the preferred one of each first."""
  gaps, factors = labels.raw_gaps(said, source.units)
  weights = source.mixture_weights or ()
  return user_assignment.person_of(gaps, factors, weights)


def _person(
  content: Any,
  source: base.RewardSource,
  max_texts: int,
  texts: http.Texts,
) -> list[tuple[base.Prompt, Any]]:
  """The texts of a person's pairs, beside those that are to be scored."""
  try:
    own = http.parse_person(content)
  except ValueError as error:
    raise _RefusedError(400, str(error)) from None
  known = source.mixture_weights is not None or labels.num_factors(source)
  if own and not known:
    raise _RefusedError(
      400,
      "person needs a model with a head per group, or with factors; here are "
      f"{', '.join(source.names)} and no mixture_weights",
    )
  number = len(texts.responses)
  if number + len(own) > max_texts:
    raise _RefusedError(
      413,
      f"a request may hold {max_texts} texts, got {number} and {len(own)} of a "
      "person's pairs",
    )
  return own


def _parsed(
  protocol: reward_protocols.Protocol,
  content: Any,
  max_texts: int,
  served: reward_protocols.Served,
) -> http.Texts:
  """Texts of a body's JSON, counted before they are read."""
  if isinstance(content, dict):
    for texts in content.values():
      if isinstance(texts, list) and len(texts) > max_texts:
        raise _RefusedError(
          413, f"a request may hold {max_texts} texts, got {len(texts)}"
        )
  try:
    return protocol.parse(content, served)
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


async def _full(request: requests.Request, error: Any) -> Any:
  return _error(503, str(error), RETRY_AFTER)


async def _failed(request: requests.Request, error: Any) -> Any:
  return _error(500, f"no rewards: {type(error).__name__}: {error}")
