"""Hugging Face Hub on this machine: the few calls that jaxalign makes of it.

Models are fetched from a folder, and uploads are kept in memory. The client is
the installed `huggingface_hub`, told where the hub is.
"""

import base64
import functools
import hashlib
import http.server
import json
import pathlib
import threading
from unittest import mock

import huggingface_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
  """The few calls of the hub that fetching a model needs."""

  def __init__(self, *args, folder, server):
    self.folder, self.asked, self.uploads = folder, server.asked, server
    super().__init__(*args)

  def log_message(self, *args):
    pass

  def do_HEAD(self):
    self.answer(body=False)

  def do_GET(self):
    self.answer(body=True)

  def answer(self, *, body):
    path = self.path.partition("?")[0]
    self.asked.append(path)
    headers = {"X-Repo-Commit": COMMIT}
    if path.startswith("/api/models/org/tiny/revision/"):
      files = sorted(f.name for f in self.folder.iterdir())
      content = json.dumps(
        {
          "id": "org/tiny",
          "sha": COMMIT,
          "siblings": [{"rfilename": name} for name in files],
        }
      ).encode()
    elif path == f"/api/models/org/tiny/tree/{COMMIT}":
      content = json.dumps(
        [
          {
            "type": "file",
            "path": file.name,
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
          }
          for file in self.folder.iterdir()
        ]
      ).encode()
    elif path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
      content = (self.folder / path.rpartition("/")[2]).read_bytes()
      headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
    else:
      content = b'{"error": "Repository not found"}'
      headers["X-Error-Code"] = "RepoNotFound"
      self.send_response(404)
      self.finish_answer(headers, content if body else b"", len(content))
      return
    self.send_response(200)
    self.finish_answer(headers, content if body else b"", len(content))

  def finish_answer(self, headers, content, length):
    for name, value in headers.items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(length))
    self.end_headers()
    self.wfile.write(content)

  def do_PUT(self):
    """What the batch call of large files told the client to send."""
    content = self.rfile.read(int(self.headers["Content-Length"]))
    self.uploads.large[hashlib.sha256(content).hexdigest()] = content
    self.reply({})

  def do_POST(self):
    path = self.path.partition("?")[0]
    body = self.rfile.read(int(self.headers["Content-Length"]))
    owner_and_name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
    if self.uploads.refuses or "Authorization" not in self.headers:
      self.reply({"error": "You do not have the rights"}, 403)
    elif path == "/api/validate-yaml":
      self.reply({"errors": [], "warnings": []})
    elif path == "/api/repos/create":
      asked = json.loads(body)
      name = f"{asked['organization']}/{asked['name']}"
      known = name in self.uploads.repositories
      fresh = dict(visibility=asked.get("visibility"), files={}, message=None)
      self.uploads.repositories.setdefault(name, fresh)
      self.reply({"url": f"{self.uploads.url}/{name}"}, 409 if known else 200)
    elif "/preupload/" in path:
      files = [
        {
          "path": file["path"],
          "uploadMode": (
            "lfs" if file["path"].endswith(".safetensors") else "regular"
          ),
          "shouldIgnore": False,
        }
        for file in json.loads(body)["files"]
      ]
      self.reply({"files": files})
    elif path.endswith(".git/info/lfs/objects/batch"):
      objects = [
        one
        | {
          "actions": {
            "upload": {"href": f"{self.uploads.url}/large/{one['oid']}"}
          }
        }
        for one in json.loads(body)["objects"]
      ]
      self.reply({"objects": objects, "transfer": "basic"})
    elif "/commit/" in path:
      made = self.uploads.repositories[owner_and_name]
      for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
          made["message"] = value["summary"]
        elif item["key"] == "file":
          made["files"][value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
          made["files"][value["path"]] = self.uploads.large[value["oid"]]
      url = f"{self.uploads.url}/{owner_and_name}/commit/{COMMIT}"
      self.reply({"commitUrl": url, "commitOid": COMMIT})
    else:
      self.reply({"error": f"no such call {path}"}, 404)

  def reply(self, content, status=200):
    self.send_response(status)
    body = json.dumps(content).encode()
    self.finish_answer({"Content-Type": "application/json"}, body, len(body))


class Uploads:
  """What a hub was asked and given.

  Attributes:
    url: of the hub.
    asked: paths, in order.
    repositories: by OWNER/NAME `visibility`, `files` and the last `message`.
    large: contents by SHA-256, before a commit names them.
    refuses: whether it gives nobody the right to write.
  """

  def __init__(self) -> None:
    self.url = ""
    self.asked: list[str] = []
    self.repositories: dict[str, dict] = {}
    self.large: dict[str, bytes] = {}
    self.refuses = False


def start(test, folder: pathlib.Path) -> Uploads:
  """Serves a folder as org/tiny until the test ends, and takes uploads.

  Args:
    test: whose process sees this hub as the hub, with a token.
    folder: of a model.
  """
  uploads = Uploads()
  server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0),
    functools.partial(Hub, folder=folder, server=uploads),
  )
  threading.Thread(target=server.serve_forever, daemon=True).start()
  test.addCleanup(server.server_close)
  test.addCleanup(server.shutdown)
  uploads.url = f"http://127.0.0.1:{server.server_port}"
  variables = dict(HF_ENDPOINT=uploads.url, HF_TOKEN="hf_test")
  test.enter_context(mock.patch.dict("os.environ", variables))
  for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
    constant = huggingface_hub.constants, name, value
    test.enter_context(mock.patch.object(*constant))
  return uploads
