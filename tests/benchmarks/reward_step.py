r"""The reward step against torch and against this machine's matmul rate.

    python -m tests.benchmarks.reward_step

One GPT-2 of about 19M parameters, 40 pairs of 64 tokens, float32, AdamW: our
built step and a torch sequence classifier with the same weights take turns in
one process, with a pause before each turn: the threads of either library wait
by spinning, and would take a core from the other. Ours runs once scanned over
layers and once unrolled. Prints JSON: medians with their quartiles, ratios
between what ran in this very process, compile seconds, the compiler's memory
figures, and the FLOPs that the TPU compiler counts for one layer over the
formula.

Every step maps and unmaps its scratch memory, and what the kernel takes for
that varies with what ran before. On Linux these keep it in the process, at the
price of a heap that stays as large as it ever was:

    GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0
    GLIBC_TUNABLES=$GLIBC_TUNABLES:glibc.malloc.trim_threshold=1099511627776
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.experiments import train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.profiling import compiled as inspect
from jaxalign.runtime.profiling import memory
from tests import shipped

PAIRS, LENGTH, ROUNDS = 40, 64, 7
LAYERS = 6
PAUSE = 0.5  # seconds
OURS = ("scanned", "unrolled")


def config(num_layers: int = LAYERS, unroll: int = 1) -> train_reward.Config:
  """The crowd config with a larger network."""
  cfg = shipped.config("rm_bt_crowd")
  cfg.data.update(max_length=LENGTH, buckets=(LENGTH,))
  cfg.model.architecture.update(
    family="gpt2",
    num_layers=num_layers,
    num_heads=8,
    num_kv_heads=8,
    embed_dim=512,
    mlp_dim=2048,
  )
  cfg.model.unroll = unroll
  cfg.train.update(batch_size=PAIRS, num_steps=1000)
  cfg.optimizer.update(schedule="constant", warmup_steps=0)
  cfg.mesh.data = 1
  return configuration.to_dataclass(train_reward.Config, cfg)


def rows(batch: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
  """A full batch of random bytes, nothing padded.

  Args:
    batch: what the step takes, by column.
  """
  shape = batch["tokens"].shape
  known = {
    "tokens": np.random.default_rng(0).integers(0, 256, shape),
    "mask": True,
    "where": True,
    "chosen_prob": 1,
    "row": np.arange(shape[0]),
    "index": np.arange(shape[0]),
  }
  return {
    name: np.broadcast_to(known.get(name, 0), x.shape).astype(x.dtype)
    for name, x in batch.items()
  }


def clock(function) -> float:
  time.sleep(PAUSE)
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def spread(times: list[float]) -> dict[str, float]:
  low, middle, high = statistics.quantiles(times, n=4)
  return {"median_s": middle, "q1_s": low, "q3_s": high}


def torch_step(folder: str, tokens: np.ndarray):
  """AdamW steps of torch's classifier on the same batch, or None."""
  try:
    import torch
    import transformers
  except ImportError:
    return None
  model = transformers.GPT2ForSequenceClassification.from_pretrained(folder)
  model.train()
  for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
  tokens = torch.tensor(tokens.swapaxes(0, 1).reshape(-1, LENGTH))
  mask = torch.ones_like(tokens)

  def step() -> None:
    optimizer.zero_grad()
    rewards = model(tokens, attention_mask=mask).logits[:, 0]
    chosen, rejected = rewards.chunk(2)
    loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  return step


def tpu_layer_flops() -> dict[str, float] | str:
  """FLOPs the TPU compiler counts for one layer, over the formula's.

  Two layers minus one, unrolled and without remat, forward and backward.
  """
  try:
    device = inspect.tpu_topology("v5e:1x1")[:1]
  except RuntimeError as error:
    return f"not measured: {error}"
  counted, formula = [], []
  for layers in (1, 2):
    built = train_reward.build(
      config(layers, unroll=layers),
      meshes.make_mesh(meshes.MeshConfig(1, 1, 1), device),
    )
    counted.append(built.lower().compile().cost_analysis()["flops"])
    formula.append(memory.batch_flops(built.network, built.batch, built.passes))
  layer = counted[1] - counted[0], formula[1] - formula[0]
  return {
    "counted": layer[0],
    "formula": layer[1],
    "ratio": layer[0] / layer[1],
  }


def our_step(unroll: int):
  """The built step with its state, ready to be called again and again."""
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
  built = train_reward.build(config(unroll=unroll), mesh)
  start = time.perf_counter()
  compiled = built.lower().compile()
  seconds = time.perf_counter() - start
  state = built.init(jax.random.key(0))
  batch = multihost.global_batch(rows(built.batch), meshes.batch_sharding(mesh))

  def step() -> None:
    nonlocal state
    state, metrics = compiled(state, batch, jax.random.key(1))
    jax.block_until_ready(metrics)

  return built, compiled, seconds, state, step


def main() -> None:
  built, compiled, compile_seconds, state, scanned = our_step(unroll=1)
  with tempfile.TemporaryDirectory() as folder:
    weights.save_pretrained(
      folder, multihost.fetch(state.params), built.network
    )
    theirs = torch_step(folder, rows(built.batch)["tokens"])
  del state  # the first step is given its buffers
  _, _, unrolled_seconds, _, unrolled = our_step(unroll=LAYERS)

  square = jax.random.normal(jax.random.key(2), (4096, 4096), jnp.float32)
  multiply = jax.jit(jnp.matmul)
  matmul = lambda: jax.block_until_ready(multiply(square, square))
  turns = {"scanned": scanned, "unrolled": unrolled, "matmul": matmul}
  if theirs is not None:
    turns["torch"] = theirs
  times: dict[str, list[float]] = {name: [] for name in turns}
  for turn in range(ROUNDS + 1):
    for name, function in turns.items():
      seconds = clock(function)
      if turn:  # the first of each warms up
        times[name].append(seconds)
  median = {name: statistics.median(values) for name, values in times.items()}
  tokens = PAIRS * 2 * LENGTH
  flops = memory.batch_flops(built.network, built.batch, built.passes)
  peak = 2 * 4096**3 / median["matmul"]
  result = {
    "parameters": sum(x.size for x in jax.tree.leaves(built.state.params)),
    "cores": os.cpu_count(),
    "python": sys.version.split()[0],
    "jax": jax.__version__,
    "step": {name: spread(values) for name, values in times.items()},
    "tokens_per_second": {way: tokens / median[way] for way in OURS},
    "share_of_matmul_rate": {way: flops / median[way] / peak for way in OURS},
    "matmul_gflops_per_second": peak / 1e9,
    "over_torch": {way: median["torch"] / median[way] for way in OURS}
    if theirs
    else None,
    "compile_seconds": dict(
      zip(OURS, (compile_seconds, unrolled_seconds), strict=True)
    ),
    "memory_bytes": inspect.memory_report(compiled)._asdict(),
    "tpu_layer_flops": tpu_layer_flops(),
  }
  sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
