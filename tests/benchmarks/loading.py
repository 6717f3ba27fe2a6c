r"""How long a sharded checkpoint of 1 GB takes to load, and what it holds.

    python -m tests.benchmarks.loading

A Llama of 270M parameters in float32 is written in shards of 200 MB; each load
runs in a process of its own. Prints JSON: seconds, and the peak of resident
memory beside the parameters, over the largest tensor.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from jaxalign import models
from jaxalign.models.hf import weights
from tests.benchmarks import generation
from tests.models.hf.loader_test import MEASURE

ROOT = pathlib.Path(__file__).parents[2]
LOADS = 3


def config() -> models.DecoderConfig:
  return models.scratch_config(
    "llama",
    vocab_size=32_000,
    num_layers=14,
    num_heads=16,
    embed_dim=1024,
    mlp_dim=4096,
    tie_embeddings=True,
  )


def main() -> None:
  network = config()
  params = generation.parameters(network)
  largest = params["embed"]["tokens"].nbytes
  with tempfile.TemporaryDirectory() as folder:
    with mock.patch.object(weights, "MAX_SHARD_BYTES", 200_000_000):
      models.save_pretrained(folder, params, network)
    shards = len(list(pathlib.Path(folder).glob("model-*.safetensors")))
    loads = []
    for _ in range(LOADS):
      done = subprocess.run(
        [sys.executable, "-c", MEASURE, folder],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
      )
      loads.append(json.loads(done.stdout))
  result = {
    "bytes": loads[0]["size"],
    "shards": shards,
    "seconds": [load["seconds"] for load in loads],
    "peak_over_largest": [load["peak"] / largest for load in loads],
  }
  json.dump(result, sys.stdout, indent=2)


if __name__ == "__main__":
  main()
