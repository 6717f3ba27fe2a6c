r"""How fast files become batches, and how long a step waits for one.

    python -m tests.benchmarks.data

Reads, tokenises and batches the synthetic crowd, and real pairs where
JAXALIGN_DATA names them, then trains the model of `configs/rm_bt_crowd.py` with
batches made on demand and ahead of the step, in turns. Prints JSON: rates with
the quartiles of their rounds, and the share of the loop's time that it spent
waiting for its batch.
"""

import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import jax

from jaxalign.data.batching import loader, pair_dataset, sft_dataset
from jaxalign.data.records import reader
from jaxalign.data.synthetic import crowd
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments import train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from tests import shipped

ROUNDS, WARM_UP, STEPS = 7, 5, 60
LENGTH, BATCH_SIZE = 256, 64
BUCKETS = (64, 128, 192, 256)


def seconds_of(function) -> float:
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
  low, middle, high = statistics.quantiles(values, n=4)
  return {"median": middle, "q1": low, "q3": high}


def rate(amount: float, times: list[float]) -> dict[str, float]:
  return spread([amount / seconds for seconds in times])


def crowd_file(folder: str) -> str:
  """The training split of a crowd as JSONL."""
  path = os.path.join(folder, "crowd.jsonl")
  records = crowd.draw_records(crowd.preset("two_groups"), split="train")
  with open(path, "w", encoding="utf-8") as file:
    file.writelines(f"{json.dumps(r.to_row())}\n" for r in records)
  return path


def stages(specs: list[str], words: Tokenizer) -> dict[str, object]:
  """Reading, tokenising, batching and packing of some sources, in turns."""
  records, _ = reader.read_records(specs)
  encode = lambda: pair_dataset.encode_pairs(records, words, max_length=LENGTH)
  dataset = encode()
  source = loader.Batches(
    dataset,
    batch_size=BATCH_SIZE,
    buckets=BUCKETS,
    pad_id=words.pad_id,
    seed=0,
    shuffle=True,
  )
  num_tokens = int(dataset.lengths.sum())
  turns = {
    "read": lambda: reader.read_records(specs),
    "tokenise": encode,
    "batch": lambda: [source[step] for step in range(len(source))],
    "pack": lambda: sft_dataset.pack_records(records, words, length=LENGTH),
  }
  times: dict[str, list[float]] = {name: [] for name in turns}
  for turn in range(ROUNDS + 1):
    for name, function in turns.items():
      seconds = seconds_of(function)
      if turn:  # the first of each warms up
        times[name].append(seconds)
  masks = [source[step]["mask"] for step in range(len(source))]
  shown = int(sum(mask.sum() for mask in masks))
  rows = sft_dataset.pack_records(records, words, length=LENGTH)
  used = int(rows.sequences.lengths.sum())
  return {
    "pairs": len(dataset),
    "tokens": num_tokens,
    "read_pairs_per_second": rate(len(records), times["read"]),
    "tokenise_tokens_per_second": rate(num_tokens, times["tokenise"]),
    "batch_tokens_per_second": rate(shown, times["batch"]),
    "batch_milliseconds": spread(
      [1000 * seconds / len(source) for seconds in times["batch"]]
    ),
    "pack_with_tokenising_tokens_per_second": rate(used, times["pack"]),
    "padding_share_of_batches": 1 - shown / sum(m.size for m in masks),
    "padding_share_of_packed_rows": 1 - used / (len(rows) * LENGTH),
  }


def waiting() -> dict[str, object]:
  """Share of a training loop's time spent on getting the next batch."""
  cfg = shipped.config("rm_bt_crowd")
  cfg.mesh.data = 1
  config = configuration.to_dataclass(train_reward.Config, cfg)
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
  built = train_reward.build(config, mesh)
  words = tokenizer_files.byte_tokenizer()
  dataset = pair_dataset.encode_pairs(
    crowd.draw_records(crowd.preset("two_groups"), split="train"),
    words,
    max_length=config.data.max_length,
  )
  source = loader.Batches(
    dataset,
    batch_size=config.train.batch_size,
    buckets=config.data.buckets,
    pad_id=words.pad_id,
    seed=0,
    shuffle=True,
  )
  rows, key = built.batch["where"].sharding, jax.random.key(1)
  state = built.init(jax.random.key(0))

  def train(prefetch: int) -> tuple[float, float]:
    """Seconds waited and seconds in all of STEPS steps."""
    nonlocal state
    stream = loader.batch_iterator(
      source, start_step=0, num_steps=WARM_UP + STEPS, prefetch=prefetch
    )
    waited, start = 0.0, time.perf_counter()
    for step in range(WARM_UP + STEPS):
      if step == WARM_UP:
        jax.block_until_ready(state)
        waited, start = 0.0, time.perf_counter()
      asked = time.perf_counter()
      batch = next(stream)
      waited += time.perf_counter() - asked
      state, metrics = built.step(
        state, multihost.global_batch(batch, rows), key
      )
      # As the loop does, which looks at the metrics of every step.
      jax.block_until_ready(metrics)
    return waited, time.perf_counter() - start

  train(0)
  shares: dict[int, list[float]] = {0: [], config.data.prefetch: []}
  milliseconds = []
  for _ in range(ROUNDS):
    for prefetch, found in shares.items():
      waited, total = train(prefetch)
      found.append(waited / total)
      milliseconds.append(1000 * total / STEPS)
  return {
    "step_milliseconds": spread(milliseconds),
    "wait_share": {
      f"prefetch {prefetch}": spread(found)
      for prefetch, found in shares.items()
    },
  }


def main() -> None:
  os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
  byte = tokenizer_files.byte_tokenizer()
  result: dict[str, object] = {
    "cores": len(os.sched_getaffinity(0)),
    "python": sys.version.split()[0],
    "jax": jax.__version__,
  }
  with tempfile.TemporaryDirectory() as folder:
    result["crowd, bytes"] = stages([crowd_file(folder)], byte)
  if "JAXALIGN_DATA" in os.environ:
    data = pathlib.Path(os.environ["JAXALIGN_DATA"])
    specs = [
      str(data / name / "pairs_train.jsonl.gz")
      for name in ("hh_helpful", "hh_harmless", "humour")
    ]
    for name in ("stories260k_lm", "gpt2_bpe"):
      words = tokenizer_files.load_tokenizer(str(data / name))
      result[f"HH and humour, {name}"] = stages(specs, words)
  result["training"] = waiting()
  sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
