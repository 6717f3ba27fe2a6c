"""A real HTTP server on this machine that speaks the chat API, and misbehaves.

A behaviour is a function of the request's JSON and of how often this very
question was asked before; it writes whatever it likes.
"""

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator


def reply(handler, text, *, status=200, headers=(), **choice):
  """A well-formed answer."""
  body = {
    "choices": [
      {
        "message": {"role": "assistant", "content": text}
        | choice.pop("message", {}),
        "finish_reason": "stop",
      }
      | choice
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
  }
  raw(handler, json.dumps(body).encode(), status=status, headers=headers)


def raw(handler, body, *, status=200, headers=(), length=None):
  """Any bytes, claiming any length."""
  handler.send_response(status)
  handler.send_header("Content-Type", "application/json")
  handler.send_header(
    "Content-Length", str(len(body) if length is None else length)
  )
  for name, value in headers:
    handler.send_header(name, value)
  handler.end_headers()
  handler.wfile.write(body)


def break_off(handler, body):
  """Promises more than it sends, and hangs up."""
  raw(handler, body, length=len(body) + 500)
  handler.wfile.flush()
  handler.close_connection = True
  # close() alone would leave the socket open under the handler's files.
  handler.connection.shutdown(socket.SHUT_RDWR)


class Server(http.server.ThreadingHTTPServer):
  """Counts what it sees."""

  daemon_threads = True
  request_queue_size = 128

  def __init__(self, behave: Callable):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.behave = behave
    self.lock = threading.Lock()
    self.seen: dict[str, int] = {}
    self.keys: set[str | None] = set()
    self.paths: set[str] = set()
    self.times: list[float] = []
    self.open = self.most_open = 0

  @property
  def url(self) -> str:
    return f"http://127.0.0.1:{self.server_address[1]}/v1"

  def handle_error(self, request, client_address):
    """Clients that give up are part of the game."""


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"]))
    asked = json.loads(body)
    server = self.server
    question = json.dumps(asked["messages"])
    with server.lock:
      before = server.seen.get(question, 0)
      server.seen[question] = before + 1
      server.keys.add(self.headers["Authorization"])
      server.paths.add(self.path)
      server.times.append(time.monotonic())
      server.open += 1
      server.most_open = max(server.most_open, server.open)
    try:
      server.behave(self, asked, before)
    finally:
      with server.lock:
        server.open -= 1

  def log_message(self, *args):
    """Keeps the test output quiet."""


@contextlib.contextmanager
def serving(behave: Callable) -> Iterator[Server]:
  """Runs a server in a thread until the block ends."""
  server = Server(behave)
  thread = threading.Thread(target=server.serve_forever, args=(0.02,))
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
