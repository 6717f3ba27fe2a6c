"""Reading in parts: every order of rows and columns, and how much it holds."""

import json
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from jaxalign.models.hf import loader, param_map
from jaxalign.models.hf.family import Tensor
from jaxalign.models.hf.safetensor_files import TensorFiles
from tests import checkout

# Loads a folder in a process of its own and prints what it held at most beside
# the parameters; the first pass compiles what is compiled.
MEASURE = """
import ctypes, gc, json, pathlib, sys, threading, time
from jaxalign import models
import jax, jax.numpy as jnp

def resident():
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  return 1024 * sum(
    int(l.split()[1]) for l in lines if l.startswith("VmRSS:")
  )

folder = sys.argv[1]
config = models.load_config(folder)
jax.block_until_ready(models.load_params(folder, config))
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)  # or the second load reuses the first
peak, stop = [0], threading.Event()
def watch():
  while not stop.is_set():
    peak[0] = max(peak[0], resident())
    time.sleep(0.0005)
before = resident()
thread = threading.Thread(target=watch)
thread.start()
start = time.perf_counter()
params = jax.block_until_ready(models.load_params(folder, config))
seconds = time.perf_counter() - start
stop.set()
thread.join()
size = sum(x.nbytes for x in jax.tree.leaves(params))
held = peak[0] - before - size
print(json.dumps({"peak": held, "size": size, "seconds": seconds}))
"""


class ReadPartTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())
    self.rng = np.random.default_rng(0)

  def files(self, tensor):
    file = self.folder / "model.safetensors"
    safetensors.numpy.save_file({"w": np.ascontiguousarray(tensor)}, str(file))
    return TensorFiles(self.folder)

  @parameterized.product(
    transpose=(False, True), by_head=(False, True), chunk=(8, 48, 2**20)
  )
  def test_side_by_side_projections(self, transpose, by_head, chunk):
    ours = self.rng.normal(size=(3, 5, 4)).astype(np.float32)  # q, k, v
    turns = 2 if by_head else 1
    fused = ours.reshape(3, 5, turns, -1).transpose(1, 2, 0, 3).reshape(5, 12)
    files = self.files(fused.T if transpose else fused)
    row = Tensor("w", ("q", "k", "v"), transpose=transpose, by_head=by_head)
    for i in range(3):
      part = param_map.Part(row, (5, 4), i * 4 // turns, 12, turns)
      for index in (
        (slice(None), slice(None)),
        (slice(1, 4), slice(None)),
        (slice(None), slice(1, 3)),
        (slice(4, 5), slice(0, 3)),
      ):
        with mock.patch.object(loader, "CHUNK_BYTES", chunk):
          got = loader.read_part(files, "w", part, index, np.dtype("float64"))
        self.assertEqual(got.dtype, np.float64)
        np.testing.assert_array_equal(got, ours[i][index])

  def test_half_precision_vectors(self):
    whole = jnp.arange(12, dtype=jnp.bfloat16)
    files = self.files(np.asarray(whole))
    row = Tensor("w", ("q", "k", "v"), by_head=True)
    part = param_map.Part(row, (4,), 2, 12, 2)
    got = loader.read_part(
      files, "w", part, (slice(1, 4),), np.dtype("float32")
    )
    np.testing.assert_array_equal(got, [3, 8, 9])


class MemoryTest(absltest.TestCase):
  def test_no_more_than_a_tensor_beside_the_parameters(self):
    folder = tempfile.mkdtemp()
    config = {
      "model_type": "llama",
      "architectures": ["LlamaForCausalLM"],
      "vocab_size": 12_000,
      "hidden_size": 1024,
      "intermediate_size": 4096,
      "num_hidden_layers": 8,
      "num_attention_heads": 8,
      "tie_word_embeddings": True,
    }
    shapes = {"model.embed_tokens.weight": (12_000, 1024)}
    shapes["model.norm.weight"] = (1024,)
    for i in range(8):
      layer = f"model.layers.{i}."
      for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"{layer}{name}.weight"] = (1024,)
      for name in "qkvo":
        shapes[f"{layer}self_attn.{name}_proj.weight"] = (1024, 1024)
      for name in ("gate", "up"):
        shapes[f"{layer}mlp.{name}_proj.weight"] = (4096, 1024)
      shapes[f"{layer}mlp.down_proj.weight"] = (1024, 4096)
    pathlib.Path(folder, "config.json").write_text(json.dumps(config))
    tensors = {
      name: np.ones(shape, "float32") for name, shape in shapes.items()
    }
    safetensors.numpy.save_file(tensors, f"{folder}/model.safetensors")
    largest = max(tensor.nbytes for tensor in tensors.values())
    done = subprocess.run(
      [sys.executable, "-c", MEASURE, folder],
      cwd=checkout.ROOT,
      capture_output=True,
      check=True,
      text=True,
    )
    got = json.loads(done.stdout)
    self.assertGreater(got["size"], 8 * largest)
    self.assertLess(got["peak"], 1.3 * largest)


if __name__ == "__main__":
  absltest.main()
