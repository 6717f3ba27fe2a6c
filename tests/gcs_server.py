"""Google Cloud Storage's JSON API on localhost, in the place of gs:// paths.

What its clients need that a run here uses: gcsfs under etils.epath, TensorStore
and google-cloud-storage under Orbax. Objects are replaced whole and carry a
generation, which conditional requests are held to; folders do not exist.
"""

import base64
import contextlib
import datetime
import hashlib
import http.server
import importlib.util
import itertools
import json
import os
import re
import threading
import unittest
import urllib.parse
from collections.abc import Callable
from unittest import mock

import fsspec
from etils.epath import backend

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
LISTING = re.compile(r"/storage/v1/b/([^/]+)/o")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")


class Refused(Exception):
  """An answer other than success: status and reason."""


class Server:
  """A store that listens while the context is entered.

  Attributes:
    buckets: names to objects, objects to content and generation.
    closed: buckets that nobody may touch.
    witness: called with the name of an object, just before it is stored (False)
      and just after (True).
    requests: method, bucket and object of every request, in order.
  """

  def __init__(self, *buckets: str):
    self.buckets: dict[str, dict[str, tuple[bytes, int, str]]] = {
      name: {} for name in buckets
    }
    self.closed: set[str] = set()
    self.witness: Callable[[str, bool], None] = lambda name, stored: None
    self.requests: list[tuple[str, str, str]] = []
    self.sessions: dict[str, tuple[str, str, dict, bytearray]] = {}
    self.lock = threading.RLock()
    self.generations = itertools.count(1)
    handler = type("Bound", (_Handler,), {"store": self})
    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    self._thread = threading.Thread(target=self._server.serve_forever)

  def __enter__(self) -> "Server":
    self._thread.start()
    return self

  def __exit__(self, *error: object) -> None:
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()

  @property
  def environment(self) -> dict[str, str]:
    """What tells a process to take this server for Google's."""
    url = f"http://127.0.0.1:{self._server.server_port}"
    return {
      "STORAGE_EMULATOR_HOST": url,  # gcsfs, google-cloud-storage
      "TENSORSTORE_GCS_HTTP_URL": url,
      "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",  # TensorStore
      # What is asked over gRPC has no server here.
      "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }

  def names(self, bucket: str, prefix: str = "") -> list[str]:
    """The objects of a bucket."""
    with self.lock:
      return sorted(n for n in self.buckets[bucket] if n.startswith(prefix))

  def read(self, bucket: str, name: str) -> bytes:
    """An object's content."""
    with self.lock:
      return self.buckets[bucket][name][0]

  def objects(self, bucket: str) -> dict[str, tuple[bytes, int, str]]:
    """The objects of a bucket that may be touched."""
    if bucket not in self.buckets:
      raise Refused(404, "The specified bucket does not exist.")
    if bucket in self.closed:
      raise Refused(403, f"nobody has no access to the bucket {bucket}.")
    return self.buckets[bucket]

  def put(self, bucket: str, name: str, content: bytes, query: dict) -> dict:
    """Replaces an object, if it is of the generation asked for."""
    with self.lock:
      objects = self.objects(bucket)
      self.check(objects, name, query)
      now = datetime.datetime.now(datetime.UTC).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
      )
      self.witness(name, False)
      objects[name] = content, next(self.generations), now
      self.witness(name, True)
      return self.describe(bucket, name)

  def check(self, objects: dict, name: str, query: dict) -> None:
    """Holds a request to its conditions."""
    generation = objects[name][1] if name in objects else 0
    if query.get("ifGenerationMatch", str(generation)) != str(generation):
      raise Refused(412, "conditionNotMet")
    if query.get("ifGenerationNotMatch") == str(generation):
      raise Refused(304, "not modified")

  def get(self, bucket: str, name: str, query: dict) -> tuple[bytes, int, str]:
    """An object's content, generation and time."""
    with self.lock:
      objects = self.objects(bucket)
      if name not in objects:
        raise Refused(404, f"No such object: {bucket}/{name}")
      self.check(objects, name, query)
      return objects[name]

  def delete(self, bucket: str, name: str, query: dict) -> None:
    """Removes an object."""
    with self.lock:
      self.get(bucket, name, query)
      del self.buckets[bucket][name]

  def describe(self, bucket: str, name: str) -> dict:
    """An object's resource."""
    content, generation, time = self.buckets[bucket][name]
    return {
      "kind": "storage#object",
      "bucket": bucket,
      "name": name,
      "size": str(len(content)),
      "generation": str(generation),
      "metageneration": "1",
      "updated": time,
      "timeCreated": time,
      "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
    }

  def list(self, bucket: str, query: dict) -> dict:
    """A page of objects, and of prefixes up to the delimiter."""
    with self.lock:
      self.objects(bucket)
      prefix = query.get("prefix", "")
      delimiter = query.get("delimiter")
      items, prefixes = [], []
      for name in self.names(bucket, prefix):
        if name < query.get("startOffset", ""):
          continue
        if "endOffset" in query and name >= query["endOffset"]:
          continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
          folder = prefix + rest.split(delimiter)[0] + delimiter
          if folder not in prefixes:
            prefixes.append(folder)
        else:
          items.append(self.describe(bucket, name))
    # Clients must ask again: a page is small here.
    start = int(query.get("pageToken", 0))
    stop = start + min(int(query.get("maxResults", 50)), 50)
    both = [*items, *prefixes]
    page = {
      "kind": "storage#objects",
      "items": [x for x in both[start:stop] if isinstance(x, dict)],
      "prefixes": [x for x in both[start:stop] if isinstance(x, str)],
    }
    if stop < len(both):
      page["nextPageToken"] = str(stop)
    return page


def started(test: unittest.TestCase, *buckets: str) -> Server:
  """A server that gs:// paths lead to, here and in new processes.

  Args:
    test: during which; skipped where the client is not installed.
    *buckets: that are there, empty.

  Returns:
    The server.
  """
  if importlib.util.find_spec("gcsfs") is None:
    test.skipTest("needs jaxalign[cloud]")
  server = test.enterContext(Server(*buckets))
  test.enterContext(mock.patch.dict(os.environ, server.environment))
  # The server of another test may be remembered.
  fsspec.get_filesystem_class("gs").clear_instance_cache()
  backend.fsspec_backend._get_filesystem.cache_clear()
  return server


class _Handler(http.server.BaseHTTPRequestHandler):
  """Reads a request, asks the store, answers."""

  store: Server
  protocol_version = "HTTP/1.1"
  # Head and body leave together: in two pieces the second waits for an answer.
  wbufsize = -1
  disable_nagle_algorithm = True

  def log_message(self, *args) -> None:
    """Standard error stays quiet."""

  def handle(self) -> None:
    """As ever, but clients may leave: gcsfs drops the slower of two answers."""
    with contextlib.suppress(ConnectionError):
      super().handle()

  def do_GET(self) -> None:
    self.answer(self.got)

  def do_POST(self) -> None:
    self.answer(self.posted)

  do_PUT = do_POST

  def do_DELETE(self) -> None:
    self.answer(self.deleted)

  def answer(self, act) -> None:
    """Runs what was asked for; errors in Google's words."""
    length = int(self.headers.get("Content-Length", 0))
    self.body = self.rfile.read(length)
    url = urllib.parse.urlsplit(self.path)
    self.route = url.path
    self.query = dict(urllib.parse.parse_qsl(url.query))
    try:
      status, content, headers = act()
    except Refused as refused:
      status, reason = refused.args
      error = {"error": {"code": status, "message": reason}}
      content, headers = json.dumps(error).encode(), {}
    if isinstance(content, dict):
      content = json.dumps(content).encode()
      headers = {"Content-Type": "application/json", **headers}
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    if status not in (204, 304):
      self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    if status not in (204, 304):
      self.wfile.write(content)

  def find(self, pattern: re.Pattern) -> tuple[str, ...] | None:
    """The parts of the address, if it is of this form."""
    match = pattern.fullmatch(self.route)
    if match is None:
      return None
    parts = tuple(urllib.parse.unquote(part) for part in match.groups())
    self.store.requests.append((self.command, *parts, "")[:3])
    return parts

  def got(self):
    """Content, an object's or bucket's resource, or a listing."""
    store = self.store
    if parts := self.find(OBJECT):
      content, generation, _ = store.get(*parts, self.query)
      if self.query.get("alt") != "media":
        return 200, store.describe(*parts), {}
      headers = {
        "x-goog-generation": str(generation),
        "Content-Type": "application/octet-stream",
      }
      if "Range" not in self.headers:
        return 200, content, headers
      first, last = self.headers["Range"].removeprefix("bytes=").split("-")
      start = int(first) if first else max(0, len(content) - int(last))
      stop = int(last) + 1 if first and last else len(content)
      stop = min(stop, len(content))
      if start >= len(content):
        raise Refused(416, "The requested range cannot be satisfied.")
      headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
      return 206, content[start:stop], headers
    if parts := self.find(LISTING):
      return 200, store.list(*parts, self.query), {}
    if parts := self.find(BUCKET):
      store.objects(*parts)
      return 200, {"kind": "storage#bucket", "name": parts[0]}, {}
    raise Refused(404, self.route)

  def posted(self):
    """The three kinds of uploads."""
    store = self.store
    parts = self.find(UPLOAD)
    if parts is None:
      raise Refused(404, self.route)
    (bucket,) = parts
    store.objects(bucket)
    kind = self.query["uploadType"]
    if kind == "media":
      name = self.query["name"]
      return 200, store.put(bucket, name, self.body, self.query), {}
    if kind == "multipart":
      boundary = self.headers["Content-Type"].split("boundary=")[1].strip('"')
      _, about, content = self.body.split(f"--{boundary}".encode(), 2)
      name = json.loads(about.split(b"\n\n", 1)[1])["name"]
      content = content.split(b"\n\n", 1)[1]
      content = content[: content.rindex(f"\n--{boundary}--".encode())]
      return 200, store.put(bucket, name, content, self.query), {}
    if "upload_id" not in self.query:
      name = self.query.get("name") or json.loads(self.body)["name"]
      session = str(next(store.generations))
      store.sessions[session] = bucket, name, self.query, bytearray()
      where = f"http://{self.headers['Host']}{self.route}"
      where += f"?uploadType=resumable&upload_id={session}"
      return 200, b"", {"Location": where}
    return self.resumed(self.query["upload_id"])

  def resumed(self, session: str):
    """A part of an upload; the last one makes the object."""
    bucket, name, query, content = self.store.sessions[session]
    content += self.body
    if not self.headers["Content-Range"].endswith("/*"):
      del self.store.sessions[session]
      return 200, self.store.put(bucket, name, bytes(content), query), {}
    return 308, b"", {"Range": f"bytes=0-{len(content) - 1}"}

  def deleted(self):
    """Removes an object, or forgets an upload."""
    if parts := self.find(OBJECT):
      self.store.delete(*parts, self.query)
      return 204, b"", {}
    raise Refused(404, self.route)
