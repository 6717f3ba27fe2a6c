r"""Reward server: texts in, calibrated rewards out, over HTTP.

python -m jaxalign.experiments.serve --config=configs/serve.py \
    --config.source.models="('runs/rm_bt_crowd/model',)" --workdir=runs/serve
"""

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import uvicorn
from etils import epath

from jaxalign.experiments.common import cli
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import reward_source
from jaxalign.experiments.policy.reward_app import (
  VERSION,
  ServeConfig,
  make_app,
)
from jaxalign.runtime.distributed import mesh as meshes

log = logging.getLogger("jaxalign")

# Of `shutdown_s`, for what comes after the last request.
TO_END_S = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `serve` reads.

  Attributes:
    source: what is served.
    serve: where and how much.
    mesh: devices.
  """

  source: reward_source.RewardSourceConfig
  serve: ServeConfig = ServeConfig()
  mesh: meshes.MeshConfig = meshes.MeshConfig()


def make_server(
  app: Any, config: ServeConfig
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
    # uvicorn wants whole seconds in its types, and waits for any number.
    timeout_graceful_shutdown=config.shutdown_s  # type: ignore[arg-type]
    - min(TO_END_S, config.shutdown_s / 2),
  )
  return uvicorn.Server(options), bound


@contextlib.contextmanager
def _told_to_stop(handler: Callable[..., Any]) -> Iterator[None]:
  """SIGINT and SIGTERM call `handler` inside the block."""
  numbers = signal.SIGINT, signal.SIGTERM
  before = {number: signal.signal(number, handler) for number in numbers}
  try:
    yield
  finally:
    for number, former in before.items():
      signal.signal(number, former)


def run(config: Config, workdir: epath.Path) -> None:
  """Serves until it is told to stop (SIGINT or SIGTERM), which is no failure.

  Requests under way are answered first, as far as `shutdown_s` allows.

  Args:
    config: the resolved config.
    workdir: gets serve.json with the address and the outputs.

  Raises:
    ValueError: several processes, an address that is taken, or no token.
    SystemExit: with status 0, told to stop before there was a server.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"serve runs in one process, got {jax.process_count()}: a request comes "
      "to one of them alone"
    )
  with _told_to_stop(lambda number, frame: sys.exit(0)):
    source = reward_source.open_source(
      config.source, meshes.make_mesh(config.mesh), config.mesh.rules
    )
    source([""], [""])  # what cannot score at all fails here, not at a client
    app = make_app(source, config.serve, batch_size=config.source.batch_size)
    server, bound = make_server(app, config.serve)
  host, port = bound.getsockname()[:2]
  # uvicorn listens to signals while it runs and raises them again at its end.
  with bound, _told_to_stop(server.handle_exit):
    configuration.write_json(
      workdir / "serve.json",
      {"url": f"http://{host}:{port}{VERSION}", "names": list(source.names)},
    )
    log.info(
      "%s at http://%s:%d%s", ", ".join(source.names), host, port, VERSION
    )
    server.run(sockets=[bound])
    if app.state.queue.scoring:
      log.warning("the time to stop is over: what is being scored is left")
      logging.shutdown()
      os._exit(0)  # the source's thread cannot be told to stop


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
