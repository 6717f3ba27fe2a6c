r"""Tokens per second against transformers, and what continuous batching saves.

    python -m tests.benchmarks.generation
    python -m tests.benchmarks.generation --batches 1 8 32 --growth

GPT-2 of 124M parameters with random weights, float32, greedy, batch 8 or those
named, prompts of 64 tokens and 64 new ones: ours (parameters by layer) and
`generate` of transformers on the same weights take turns in one process, with a
pause before each turn, because the threads of either library wait by spinning.
Then a queue of prompts whose answers are mostly short and sometimes long, in
fixed batches that wait for their longest row and with rows refilled as they
end. Then what the two forms of the parameters cost. `--growth` takes 32 to 512
new tokens in turns and gives the exponent of time by their number, on the clock
and of the processor, between neighbours and over all. Prints JSON: medians with
their quartiles and ratios between what ran in this very process. The share of
memory bandwidth is of what a copy on the same device reaches.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import models
from jaxalign.models.hf import param_map

BATCH, PROMPT, NEW = 8, 64, 64
GROWTH = (32, 64, 128, 256, 512)  # new tokens
ROUNDS, PAUSE = 5, 0.5  # turns of each, seconds
QUEUE = 48  # prompts of the skewed mix
SHORT, LONG, LONG_SHARE = 8, 64, 0.125  # new tokens


def config() -> models.DecoderConfig:
  return models.scratch_config(
    "gpt2",
    vocab_size=50_257,
    num_layers=12,
    num_heads=12,
    embed_dim=768,
    mlp_dim=3072,
    max_positions=1024,
    activation="gelu_tanh",
    tie_embeddings=True,
    pad_id=50_256,
    eos_id=50_256,
  )


def parameters(config: models.DecoderConfig):
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == "scale":
      return jnp.ones(leaf.shape, leaf.dtype)
    return jnp.asarray(rng.normal(size=leaf.shape) * 0.02, leaf.dtype)

  return jax.tree.map_with_path(draw, param_map.abstract_params(config))


def clock(function) -> float:
  time.sleep(PAUSE)
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def spread(times: list[float], tokens: int) -> dict[str, float]:
  low, middle, high = statistics.quantiles(times, n=4)
  return {
    "tokens_per_s": tokens / middle,
    "q1": tokens / high,
    "q3": tokens / low,
  }


def prompts(number: int) -> tuple[np.ndarray, np.ndarray]:
  tokens = np.random.default_rng(1).integers(0, 50_000, (number, PROMPT))
  return tokens.astype(np.int32), np.ones((number, PROMPT), bool)


def torch_call(folder: str, batch: int):
  """`generate` of transformers, or None without torch."""
  try:
    import torch
    import transformers
  except ImportError:
    return None
  model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
  tokens = torch.tensor(prompts(batch)[0]).long()

  def call() -> None:
    with torch.no_grad():
      model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
      )

  return call


def greedy(network, params, batch: int, new: int) -> None:
  """Our own generation, to its end."""
  out = models.generate(
    network,
    params,
    *prompts(batch),
    keys=jax.random.split(jax.random.key(0), batch),
    max_new_tokens=new,
    temperature=0.0,
    pad_id=network.pad_id,
  )
  jax.block_until_ready(out)


def growth(network, params, lengths=GROWTH, rounds=ROUNDS) -> dict[str, object]:
  """Seconds by the number of new tokens, and the exponents of their growth."""
  each = models.unstack_layers(params)
  found = {
    kind: {new: [] for new in lengths} for kind in ("clock", "processor")
  }
  for turn in range(1 + rounds):  # of which the first compiles
    for new in lengths:
      spent = time.process_time()
      wall = clock(lambda new=new: greedy(network, each, BATCH, new))
      spent = time.process_time() - spent
      if turn:
        found["clock"][new].append(wall)
        found["processor"][new].append(spent)
  result: dict[str, object] = {}
  for kind, times in found.items():
    middle = {new: statistics.median(times[new]) for new in lengths}
    exponent = lambda a, b, at=middle: math.log(at[b] / at[a], b / a)
    result[kind] = {
      "seconds": {new: spread_of(times[new]) for new in lengths},
      "exponent": exponent(lengths[0], lengths[-1]),
      "exponents": [
        exponent(*pair) for pair in zip(lengths, lengths[1:], strict=False)
      ],
    }
  return result


def against_transformers(network, params, batch=BATCH) -> dict[str, object]:
  """Both libraries in turn."""
  each = models.unstack_layers(params)
  ours = lambda params: greedy(network, params, batch, NEW)
  calls = {"by_layer": lambda: ours(each), "stacked": lambda: ours(params)}
  with tempfile.TemporaryDirectory() as folder:
    models.save_pretrained(folder, params, network)
    theirs = torch_call(folder, batch)
  if theirs is not None:
    calls["transformers"] = theirs
  start = time.perf_counter()
  calls["by_layer"]()
  compiled = time.perf_counter() - start
  for name in ("stacked", "transformers"):
    if name in calls:
      calls[name]()
  times = {name: [] for name in calls}
  for _ in range(ROUNDS):
    for name, call in calls.items():
      times[name].append(clock(call))
  result = {n: spread(t, batch * NEW) for n, t in times.items()}
  result["first_call_s"] = compiled
  if theirs is not None:
    ratios = [
      b / a
      for a, b in zip(times["by_layer"], times["transformers"], strict=True)
    ]
    result["times_transformers"] = spread_of(ratios)
  step = statistics.median(times["by_layer"]) / NEW
  result["share_of_copy_bandwidth"] = (
    decode_bytes(network, params, batch) / step / copy_bandwidth()
  )
  return result


def spread_of(values: list[float]) -> dict[str, float]:
  low, middle, high = statistics.quantiles(values, n=4)
  return {"median": middle, "q1": low, "q3": high}


def decode_bytes(network, params, batch: int) -> float:
  """What a step has to read: the weights, and half the cache on average."""
  weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  size = jnp.dtype(network.dtype).itemsize
  slots = PROMPT + NEW
  cache = 2 * network.num_layers * batch * slots * network.embed_dim * size
  return weights + cache


def copy_bandwidth() -> float:
  """Bytes per second that a pass over memory in its place reads and writes."""
  array = jnp.zeros(2**26, jnp.float32)
  over = jax.jit(lambda x: x + 1, donate_argnums=0)  # no page is new
  times = []
  for _ in range(6):  # the first compiles
    time.sleep(PAUSE)
    start = time.perf_counter()
    array = jax.block_until_ready(over(array))
    times.append(time.perf_counter() - start)
  return 2 * array.nbytes / statistics.median(times[1:])


def skewed(network, params) -> dict[str, object]:
  """One queue in fixed batches, and with rows refilled."""
  each = models.unstack_layers(params)
  rng = np.random.default_rng(2)
  limits = np.where(rng.random(QUEUE) < LONG_SHARE, LONG, SHORT)
  tokens, mask = prompts(QUEUE)
  keys = jax.random.split(jax.random.key(0), QUEUE)

  def run(refill_size: int):
    return models.generate_queue(
      network,
      each,
      tokens,
      mask,
      keys=keys,
      batch_size=BATCH,
      refill_size=refill_size,
      max_new_tokens=LONG,
      limits=limits,
      temperature=0.0,
      pad_id=network.pad_id,
    )

  # A refill of the whole batch waits for all its rows: that is static batching
  # with early exit.
  calls = {
    "static": lambda: run(BATCH),
    "continuous_1": lambda: run(1),
    "continuous_4": lambda: run(4),
  }
  results = {name: call() for name, call in calls.items()}
  for result in results.values():
    np.testing.assert_array_equal(result.tokens, results["static"].tokens)
  times = {name: [] for name in calls}
  for _ in range(3):
    for name, call in calls.items():
      times[name].append(clock(call))
  total = int(limits.sum())
  made = {name: spread(t, total) for name, t in times.items()}
  for name in ("continuous_1", "continuous_4"):
    pairs = zip(times["static"], times[name], strict=True)
    made[f"{name}_times_static"] = statistics.median(a / b for a, b in pairs)
  return made | {"queue": QUEUE, "new_tokens": total}


def conversion(params) -> dict[str, float]:
  """Seconds from one form of the parameters to the other."""
  unstack = jax.jit(models.unstack_layers)
  stack = jax.jit(models.stack_layers)
  each = jax.block_until_ready(unstack(params))
  jax.block_until_ready(stack(each))
  return {
    "unstack_s": clock(lambda: jax.block_until_ready(unstack(params))),
    "stack_s": clock(lambda: jax.block_until_ready(stack(each))),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--batches", type=int, nargs="+", default=[])
  parser.add_argument("--growth", action="store_true")
  given = parser.parse_args()
  network = config()
  params = parameters(network)
  result = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
  for batch in given.batches:
    turns = against_transformers(network, params, batch)
    result[f"against_transformers_{batch}"] = turns
  if given.growth:
    result["growth"] = growth(network, params)
  if not given.batches and not given.growth:
    result |= {
      "against_transformers": against_transformers(network, params),
      "skewed": skewed(network, params),
      "conversion": conversion(params),
    }
  json.dump(result, sys.stdout, indent=2)


if __name__ == "__main__":
  main()
