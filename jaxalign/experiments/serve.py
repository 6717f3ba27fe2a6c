r"""A reward source behind HTTP: texts in, calibrated rewards out.

python -m jaxalign.experiments.serve --config=configs/serve.py \
    --config.source.models="('runs/rm_bt_crowd/model',)" --workdir=runs/serve
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import jax
import uvicorn
from etils import epath
from starlette import applications, exceptions, requests, responses, routing

from jaxalign.experiments.policies import reward_source
from jaxalign.experiments.policies.reward_queue import (
  QueueFullError,
  RewardQueue,
)
from jaxalign.experiments.stage import configuration, program
from jaxalign.runtime import mesh as meshes
from jaxalign.runtime import reward_sources, served_rewards

log = logging.getLogger("jaxalign")

VERSION = "/v1"
RETRY_AFTER = {"Retry-After": "1"}


@dataclasses.dataclass(frozen=True)
class ServeConfig:
  """Where the server listens and how much it takes on.

  Attributes:
    host: address to listen on; 127.0.0.1 is reached from this machine alone.
    port: 0 takes a free one, which serve.json names.
    max_texts: of a request.
    max_bytes: of a request's body.
    max_waiting: texts that may wait or be scored at a time; beyond them
      requests are sent away with status 503.
    linger_ms: how long the first request of a batch waits for company.
    shutdown_s: how long requests under way are waited for at the end.
  """

  host: str
  port: int
  max_texts: int
  max_bytes: int
  max_waiting: int
  linger_ms: float
  shutdown_s: int

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    if not 0 <= self.port < 65536:
      raise ValueError(f"port must be in [0, 65536), got {self.port}")
    for name in ("max_texts", "max_bytes", "shutdown_s"):
      if self.__getattribute__(name) < 1:
        raise ValueError(
          f"{name} must be >= 1, got {self.__getattribute__(name)}"
        )
    if self.max_waiting < self.max_texts:
      raise ValueError(
        "max_waiting must be >= max_texts, got "
        f"{self.max_waiting} and {self.max_texts}"
      )
    if self.linger_ms < 0:
      raise ValueError(f"linger_ms must be >= 0, got {self.linger_ms}")


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `serve` reads.

  Attributes:
    source: what is served.
    serve: where and how much.
    mesh: devices.
  """

  source: reward_source.RewardSourceConfig
  serve: ServeConfig
  mesh: meshes.MeshConfig


class _RefusedError(Exception):
  """A request that is answered with a reason instead of rewards."""

  def __init__(self, status: int, reason: str):
    super().__init__(reason)
    self.status = status


def make_app(
  source: reward_sources.RewardSource, config: ServeConfig, *, batch_size: int
) -> applications.Starlette:
  """The web application.

  Args:
    source: what is served.
    config: bounds.
    batch_size: texts that are scored together.

  Returns:
    An ASGI application with `POST /v1/rewards` and `GET /health`.
  """
  queue = RewardQueue(
    source,
    batch_size=batch_size,
    max_waiting=config.max_waiting,
    linger_s=config.linger_ms / 1000,
  )

  @contextlib.asynccontextmanager
  async def lifespan(app: applications.Starlette) -> AsyncIterator[None]:
    del app
    work = asyncio.create_task(queue.run())
    yield
    queue.close()
    await work
    log.info("served %s", dict(queue.counts))

  async def rewards(request: requests.Request) -> responses.Response:
    content = await _json_body(request, config.max_bytes)
    try:
      prompts, texts = served_rewards.parse_request(content)
    except ValueError as error:
      raise _RefusedError(400, str(error)) from None
    if len(texts) > config.max_texts:
      raise _RefusedError(
        413, f"a request may hold {config.max_texts} texts, got {len(texts)}"
      )
    found = await queue.score(prompts, texts)
    reply = served_rewards.Reply(source.names, found, source.mixture_weights)
    return responses.JSONResponse(reply.to_json())

  async def health(request: requests.Request) -> responses.Response:
    del request
    weights = source.mixture_weights
    return responses.JSONResponse(
      {
        "status": "ok",
        "names": list(source.names),
        "mixture_weights": None if weights is None else list(weights),
        "waiting": queue.waiting,
        "max_waiting": config.max_waiting,
        **queue.counts,
      }
    )

  return applications.Starlette(
    routes=[
      routing.Route(
        f"{VERSION}{served_rewards.PATH}", rewards, methods=["POST"]
      ),
      routing.Route("/health", health),
    ],
    exception_handlers={
      _RefusedError: _refused,
      QueueFullError: _full,
      reward_sources.RewardError: _failed,
      exceptions.HTTPException: _no_such_thing,
      Exception: _failed,
    },
    lifespan=lifespan,
  )


async def _json_body(request: requests.Request, max_bytes: int) -> Any:
  """The body's JSON, read no further than `max_bytes`."""
  body = bytearray()
  async for part in request.stream():
    body += part
    if len(body) > max_bytes:
      raise _RefusedError(413, f"a body may hold {max_bytes} bytes, got more")
  try:
    return json.loads(body)
  except (ValueError, RecursionError) as error:
    raise _RefusedError(400, f"the body must be JSON: {error}") from None


def _error(
  status: int, reason: str, headers: dict[str, str] | None = None
) -> responses.Response:
  return responses.JSONResponse({"error": reason}, status, headers)


async def _refused(request: requests.Request, error: Any) -> Any:
  return _error(error.status, str(error))


async def _full(request: requests.Request, error: Any) -> Any:
  return _error(503, str(error), RETRY_AFTER)


async def _failed(request: requests.Request, error: Any) -> Any:
  return _error(500, f"no rewards: {type(error).__name__}: {error}")


async def _no_such_thing(request: requests.Request, error: Any) -> Any:
  """An unknown path, or a known one by another method."""
  reason = (
    f"{request.method} {request.url.path}: {error.detail}; there are POST "
    f"{VERSION}{served_rewards.PATH} and GET /health"
  )
  return _error(error.status_code, reason, error.headers)


def make_server(
  app: applications.Starlette, config: ServeConfig
) -> tuple[uvicorn.Server, socket.socket]:
  """A server that has its address but does not listen yet.

  Args:
    app: of `make_app`.
    config: where.

  Returns:
    The server and its socket, for `server.run(sockets=[socket])`.

  Raises:
    ValueError: the address is taken or not this machine's.
  """
  try:
    bound = socket.create_server((config.host, config.port))
  except OSError as error:
    raise ValueError(
      f"cannot listen on {config.host}:{config.port}: {error}"
    ) from error
  options = uvicorn.Config(
    app,
    log_config=None,
    access_log=False,
    lifespan="on",
    timeout_graceful_shutdown=config.shutdown_s,
  )
  return uvicorn.Server(options), bound


def run(config: Config, workdir: epath.Path) -> None:
  """Serves until it is told to stop (SIGINT or SIGTERM).

  Requests under way are answered first.

  Args:
    config: the resolved config.
    workdir: gets serve.json with the address and the outputs.

  Raises:
    ValueError: several processes, or an address that is taken.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"serve runs in one process, got {jax.process_count()}: a request comes "
      "to one of them alone"
    )
  source = reward_source.open_source(
    config.source, meshes.make_mesh(config.mesh), config.mesh.rules
  )
  source([""], [""])  # what cannot score at all fails here, not at a client
  app = make_app(source, config.serve, batch_size=config.source.batch_size)
  server, bound = make_server(app, config.serve)
  host, port = bound.getsockname()[:2]
  configuration.write_json(
    workdir / "serve.json",
    {"url": f"http://{host}:{port}{VERSION}", "names": list(source.names)},
  )
  log.info("%s at http://%s:%d%s", ", ".join(source.names), host, port, VERSION)
  # The server has stopped in good order before it hands an interrupt on.
  with bound, contextlib.suppress(KeyboardInterrupt):
    server.run(sockets=[bound])


def main() -> None:
  """Runs the stage from the command line."""
  program.define_flags()
  program.main(Config, run)


if __name__ == "__main__":
  main()
