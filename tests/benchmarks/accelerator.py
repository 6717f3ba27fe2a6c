r"""Shares of an accelerator's two limits: multiplying when it trains, reading
when it decodes.

    python -m tests.benchmarks.accelerator [--small] [train] [decode]

A reward model of Pythia-1.4B's shape, random weights, float32 parameters and
AdamW, products in bfloat16, on one device. `train` runs the built step with
each attention and remat, MORE's step, and torch's sequence classifier (autocast
to bfloat16, fused AdamW, its own fastest attention) in turns, beside the rate
of one large product. `decode` samples greedily at several batches, ours and
`generate` of transformers in turns, beside the rate of a copy; what one token
takes is the difference of a long and a short answer, so that reading the prompt
is not in it. `--small` is for a CPU. A contestant that does not fit is named,
with the error. Prints a line of JSON per part; medians with their quartiles.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import models
from jaxalign.experiments import train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.models.hf import param_map
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.profiling import compiled as inspect
from jaxalign.runtime.profiling import memory as memory_use
from tests import shipped

SMALL = "--small" in sys.argv
ROUNDS = 3 if SMALL else 7
PAIRS, LENGTH, SQUARE = (2, 64, 512) if SMALL else (16, 512, 8192)
BATCHES, PROMPT, NEW = ((2,), 16, 9) if SMALL else ((1, 64), 128, 129)
COPIED = 2**20 if SMALL else 2**30  # float32 numbers
SHAPE = dict(
  family="gpt_neox",
  num_layers=2 if SMALL else 24,
  num_heads=4 if SMALL else 16,
  num_kv_heads=4 if SMALL else 16,
  embed_dim=64 if SMALL else 2048,
  mlp_dim=256 if SMALL else 8192,
  vocab_size=512 if SMALL else 50_304,
)
# Name -> the changes of the model section and the recipe.
STEPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  "dense, dots": ({"remat": "dots", "attention": "dense"}, {}),
  "fused, dots": ({"remat": "dots", "attention": "fused"}, {}),
  "fused, none": ({"remat": "none", "attention": "fused"}, {}),
  "more, fused, dots": (
    {"remat": "dots", "attention": "fused"},
    {"name": "more", "num_sources": 4},
  ),
}


def clock(function: Callable[[], Any]) -> float:
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def in_turns(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
  """Seconds of each call, the first of each left out."""
  times: dict[str, list[float]] = {name: [] for name in calls}
  for turn in range(ROUNDS + 1):
    for name, call in calls.items():
      seconds = clock(call)
      if turn:
        times[name].append(seconds)
  return times


def quartiles(values: list[float]) -> list[float]:
  low, middle, high = statistics.quantiles(values, n=4)
  return [middle, low, high]


def report(part: str, result: dict[str, Any]) -> None:
  device = {
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
    "shape": SHAPE,
  }
  sys.stdout.write(json.dumps({"part": part} | device | result) + "\n")
  sys.stdout.flush()


def matmul_rate() -> float:
  """FLOP/s of large products in bfloat16, one after another in one program."""
  size, repeats = SQUARE, 10
  a, b = (
    jax.random.normal(jax.random.key(i), (size, size), jnp.bfloat16)
    for i in range(2)
  )

  @jax.jit
  def run(a, b):
    scaled = lambda _, x: (x @ b) * (size**-0.5)
    return jax.lax.fori_loop(0, repeats, scaled, a)

  call = lambda: jax.block_until_ready(run(a, b))
  seconds = in_turns({"matmul": call})["matmul"]
  return repeats * 2 * size**3 / statistics.median(seconds)


def copy_rate() -> float:
  """Bytes per second that are read and written."""
  array = jnp.ones(COPIED, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  call = lambda: jax.block_until_ready(copy(array))
  seconds = in_turns({"copy": call})["copy"]
  return 2 * array.nbytes / statistics.median(seconds)


def config(
  model: dict[str, Any], recipe: dict[str, Any]
) -> train_reward.Config:
  cfg = shipped.config("rm_bt_pythia_1_4b", "shape")
  cfg.data.update(max_length=LENGTH, buckets=(LENGTH,))
  with cfg.ignore_type():
    cfg.model.update(shape=None, architecture=dict(SHAPE))
  cfg.model.update(model)
  if recipe:
    cfg.recipe = recipe
  cfg.train.batch_size = cfg.eval.batch_size = PAIRS
  cfg.optimizer.update(schedule="constant", warmup_steps=0)
  cfg.mesh.update(data=1, fsdp=1)
  return configuration.to_dataclass(train_reward.Config, cfg)


def batch_of(built: Any) -> dict[str, np.ndarray]:
  """Full rows of random tokens, pairs of all sources alike."""
  rng = np.random.default_rng(0)
  batch = {}
  for name, spec in built.batch.items():
    if name == "tokens":
      tokens = rng.integers(0, SHAPE["vocab_size"], spec.shape)
      batch[name] = tokens.astype(spec.dtype)
    elif spec.dtype == np.bool_ or name == "chosen_prob":
      batch[name] = np.ones(spec.shape, spec.dtype)
    elif name == "source":
      batch[name] = (np.arange(PAIRS) % 4).astype(spec.dtype)
    elif name in ("row", "index"):
      batch[name] = np.arange(PAIRS, dtype=spec.dtype)
    else:
      batch[name] = np.zeros(spec.shape, spec.dtype)
  return batch


def torch_config(**options: Any) -> Any:
  """The shape in transformers' words."""
  import transformers

  return transformers.GPTNeoXConfig(
    num_hidden_layers=SHAPE["num_layers"],
    num_attention_heads=SHAPE["num_heads"],
    hidden_size=SHAPE["embed_dim"],
    intermediate_size=SHAPE["mlp_dim"],
    vocab_size=SHAPE["vocab_size"],
    **options,
  )


def torch_step() -> Callable[[], Any]:
  """A step of torch's classifier on the same shape, on its own device."""
  import torch
  import transformers

  device = "cuda" if torch.cuda.is_available() else "cpu"
  with torch.device(device):
    model = transformers.GPTNeoXForSequenceClassification(
      torch_config(num_labels=1, pad_token_id=0, use_cache=False)
    )
  model.train()
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-5, weight_decay=0.01, fused=device == "cuda"
  )
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, SHAPE["vocab_size"], (2 * PAIRS, LENGTH))
  tokens = torch.tensor(tokens, device=device)

  def step() -> None:
    optimizer.zero_grad()
    with torch.autocast(device, dtype=torch.bfloat16):
      rewards = model(tokens).logits[:, 0].float()
    chosen, rejected = rewards.chunk(2)
    loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    loss.item()  # waits for the device

  return step


def train() -> None:
  """Contestants share one state where their states are alike."""
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
  states: dict[str, Any] = {}
  calls: dict[str, Callable[[], Any]] = {}
  about: dict[str, dict[str, Any]] = {}
  for name, (model, recipe) in STEPS.items():
    if SMALL and model["attention"] == "fused":
      model = model | {"attention": "dense"}
    built = train_reward.build(config(model, recipe), mesh)
    kind = recipe.get("name", "bradley_terry")
    if kind not in states:
      states[kind] = built.init(jax.random.key(0))
    batch = multihost.global_batch(batch_of(built), meshes.batch_sharding(mesh))
    start = time.perf_counter()
    try:
      compiled = built.lower().compile()
      memory = inspect.memory_report(compiled)._asdict()
      about[name] = {
        "compile_s": time.perf_counter() - start,
        "memory_gb": {part: value / 1e9 for part, value in memory.items()},
      }

      def step(compiled=compiled, batch=batch, kind=kind) -> None:
        states[kind], metrics = compiled(states[kind], batch, jax.random.key(1))
        jax.block_until_ready(metrics)

      step()
      calls[name] = step
    except (RuntimeError, ValueError) as error:
      about[name] = {"failed": str(error)[:300]}
      states.pop(kind)  # the step may have been given it
      states[kind] = built.init(jax.random.key(0))
  flops = memory_use.batch_flops(built.network, built.batch, built.passes)
  try:
    calls["torch"] = torch_step()
    calls["torch"]()
  except (ImportError, RuntimeError) as error:
    calls.pop("torch", None)
    about["torch"] = {"failed": repr(error)[:200]}
  times = in_turns(calls)
  rate, tokens = matmul_rate(), 2 * PAIRS * LENGTH
  for name, seconds in times.items():
    middle = statistics.median(seconds)
    about.setdefault(name, {}).update(
      seconds=quartiles(seconds),
      tokens_per_s=tokens / middle,
      tflops=flops / middle / 1e12,
      share_of_matmul=flops / middle / rate,
    )
    if "torch" in times:
      pairs = zip(times["torch"], seconds, strict=True)
      about[name]["times_torch"] = quartiles([a / b for a, b in pairs])
  report(
    "train",
    {
      "tokens": tokens,
      "step_tflop": flops / 1e12,
      "matmul_tflops": rate / 1e12,
      "steps": about,
    },
  )


def parameters(network: models.DecoderConfig) -> Any:
  """Random weights by layer, drawn on the device."""
  shapes = param_map.abstract_params(network)

  @jax.jit
  def draw(key):
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(key, len(leaves))
    drawn = [
      0.02 * jax.random.normal(key, leaf.shape, leaf.dtype)
      for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)

  # In a program of its own: cut inside, each layer would draw for itself.
  return jax.jit(models.unstack_layers)(draw(jax.random.key(0)))


def torch_generate() -> Callable[[int, int], Callable[[], Any]]:
  """`generate` of transformers on random weights of the same shape."""
  import torch
  import transformers

  device = "cuda" if torch.cuda.is_available() else "cpu"
  with torch.device(device):
    model = transformers.GPTNeoXForCausalLM(torch_config())
  model = model.to(torch.bfloat16).eval()

  def calling(batch: int, new: int) -> Callable[[], Any]:
    tokens = torch.tensor(prompts(batch), device=device).long()

    def call() -> None:
      with torch.no_grad():
        model.generate(
          tokens,
          attention_mask=torch.ones_like(tokens),
          do_sample=False,
          max_new_tokens=new,
          min_new_tokens=new,
        ).cpu()

    return call

  return calling


def prompts(batch: int) -> np.ndarray:
  rng = np.random.default_rng(1)
  tokens = rng.integers(1, SHAPE["vocab_size"], (batch, PROMPT))
  return tokens.astype(np.int32)


def decode() -> None:
  """What one more token takes, and the bytes that it has to read."""
  network = models.scratch_config(**SHAPE, max_positions=2048, dtype="bfloat16")
  params = parameters(network)
  # In the compute dtype, and of one of the two embeddings only looked up rows.
  weights = sum(leaf.size for leaf in jax.tree.leaves(params))
  read = 2 * (weights - SHAPE["vocab_size"] * SHAPE["embed_dim"])
  try:
    theirs = torch_generate()
  except ImportError:
    theirs = None
  bandwidth = copy_rate()
  result: dict[str, Any] = {}
  for batch in BATCHES:
    keys = jax.random.split(jax.random.key(0), batch)

    def ours(new: int, batch=batch, keys=keys) -> Callable[[], Any]:
      mask = np.ones((batch, PROMPT), bool)
      return lambda: jax.block_until_ready(
        models.generate(
          network,
          params,
          prompts(batch),
          mask,
          keys=keys,
          max_new_tokens=new,
          temperature=0.0,
          pad_id=0,
        )
      )

    calls = {"ours, long": ours(NEW), "ours, short": ours(1)}
    if theirs is not None:
      calls |= {
        "torch, long": theirs(batch, NEW),
        "torch, short": theirs(batch, 1),
      }
    first = {name: clock(call) for name, call in calls.items()}
    times = in_turns(calls)
    # Keys and values of the prompt and of half of the answer, on average.
    cache = 2 * SHAPE["num_layers"] * batch * SHAPE["embed_dim"] * 2
    moved = read + cache * (PROMPT + NEW / 2)
    rows: dict[str, Any] = {"first_call_s": first["ours, long"]}
    steps = {}
    for name in ("ours", "torch"):
      if f"{name}, long" not in times:
        continue
      pairs = zip(times[f"{name}, long"], times[f"{name}, short"], strict=True)
      steps[name] = [(a - b) / (NEW - 1) for a, b in pairs]
      middle = statistics.median(steps[name])
      rows[name] = {
        "token_ms": [1e3 * value for value in quartiles(steps[name])],
        "tokens_per_s": batch / middle,
        "call_s": quartiles(times[f"{name}, long"]),
        "share_of_copy": moved / middle / bandwidth,
      }
    if "torch" in steps:
      pairs = zip(steps["torch"], steps["ours"], strict=True)
      rows["times_torch"] = quartiles([a / b for a, b in pairs])
    result[str(batch)] = rows | {"gigabytes_per_token": moved / 1e9}
  report(
    "decode",
    {
      "prompt": PROMPT,
      "new": NEW,
      "copy_gigabytes_per_s": bandwidth / 1e9,
      "batches": result,
    },
  )


def main() -> None:
  for part in (train, decode):
    if part.__name__ in sys.argv or not {"train", "decode"} & {*sys.argv}:
      part()
      gc.collect()


if __name__ == "__main__":
  main()
