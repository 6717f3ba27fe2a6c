"""The wheel in an environment of its own: it trains, scores and serves.

Nothing of the checkout can be reached: the wheel is built from a copy of the
tracked files, installed with its extras from the package index, and run from an
empty folder.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest
from absl.testing import absltest

from tests import checkout

WAIT_S = 120  # for a server to listen
PAIRS = [
  {"prompt": f"Q: {i}\nA:", "chosen": " yes yes", "rejected": " no"}
  for i in range(40)
]


class WheelTest(absltest.TestCase):
  def run_in(self, folder, *command):
    """Output of a command that ends well, away from this checkout."""
    done = subprocess.run(
      [*map(str, command)],
      cwd=folder,
      env=self.environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stdout[-4000:])
    return done.stdout

  def setUp(self):
    super().setUp()
    self.environment = {
      name: value
      for name, value in os.environ.items()
      if name not in ("PYTHONPATH", "XLA_FLAGS")
    } | {"JAX_PLATFORMS": "cpu", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    source = self.root / "source"
    for path in checkout.files():
      copy = source / path.relative_to(checkout.ROOT)
      copy.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(path, copy)
    self.run_in(
      source,
      *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
      *(f"--wheel-dir={self.root}", "."),
    )
    shutil.rmtree(source)
    (self.wheel,) = self.root.glob("*.whl")

  @pytest.mark.slow
  def test_it_trains_scores_and_serves(self):
    self.run_in(self.root, sys.executable, "-m", "venv", "env")
    bin_folder = self.root / "env" / "bin"
    self.run_in(
      self.root,
      *(bin_folder / "python", "-m", "pip", "install", "--quiet"),
      "--no-compile",
      f"{self.wheel}[train,serve]",
    )
    folder = self.root / "empty"
    folder.mkdir()
    lines = "".join(f"{json.dumps(row)}\n" for row in PAIRS)
    (folder / "pairs.jsonl").write_text(lines)
    jaxalign = bin_folder / "jaxalign"
    self.assertIn("reward.py", self.run_in(folder, jaxalign, "configs"))
    files = "--config.data.eval_files=('pairs.jsonl',)"
    self.run_in(
      folder,
      *(jaxalign, "train_reward", "--config=rm_bt_crowd:smoke"),
      *("--config.data.train_files=('pairs.jsonl',)", files),
      *("--config.train.num_steps=4", "--workdir=runs/rm"),
      "--config.train.checkpoint_every=4",
    )
    self.run_in(
      folder,
      *(jaxalign, "score", "--config=score", "--config.model=runs/rm/model"),
      *(files, "--workdir=runs/score"),
    )
    scored = (folder / "runs/score/scores.jsonl").read_text().splitlines()
    self.assertLen(scored, len(PAIRS))
    want = [row[0] for row in json.loads(scored[0])["rewards"]]
    server = subprocess.Popen(
      [
        *(jaxalign, "serve", "--config=serve", "--workdir=runs/serve"),
        *("--config.source.models=('runs/rm/model',)",),
        *("--config.source.calibrated=False", "--config.serve.port=0"),
      ],
      cwd=folder,
      env=self.environment,
    )
    try:
      got = self.asked(folder / "runs/serve/serve.json", server)
    finally:
      server.send_signal(signal.SIGTERM)
    self.assertEqual(server.wait(WAIT_S), 0)
    for one, other in zip(got, want, strict=True):
      self.assertAlmostEqual(one, other, places=5)

  def asked(self, address, server):
    """What the server says of the first pair."""
    until = time.monotonic() + WAIT_S
    while not address.exists():
      self.assertIsNone(server.poll())
      self.assertLess(time.monotonic(), until)
      time.sleep(0.2)
    first = PAIRS[0]
    body = {
      "prompts": [first["prompt"]] * 2,
      "responses": [first["chosen"], first["rejected"]],
    }
    request = urllib.request.Request(
      json.loads(address.read_text())["url"] + "/rewards",
      json.dumps(body).encode(),
      {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
      return [row[0] for row in json.loads(reply.read())["rewards"]]


if __name__ == "__main__":
  absltest.main()
