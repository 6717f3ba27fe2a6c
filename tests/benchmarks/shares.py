r"""What a host reads and holds of a file of many records.

    python -m tests.benchmarks.shares [RECORDS]

Each row of the output is one process of a run of P: seconds until it knows all
lengths, seconds until it holds the rows of the first epoch that it shows, its
share of all tokens, and its memory: what it cannot give back to the file system
(`anonymous_mb`), at the end. The other processes are made up, which works
because the file repeats itself every chunk, so that all find the same lengths.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from jaxalign.data.batching import (
  loader,
  pair_dataset,
  sharded_tokens,
  token_store,
)
from jaxalign.data.records import reader
from jaxalign.data.tokenization import tokenizer_files

RECORDS, BATCH_SIZE = 2**20, 1024  # a multiple of 16 chunks
RUNS = ((1, False), (1, True), (4, False), (4, True), (16, True))


def write(path: str, records: int) -> None:
  """Records that repeat themselves every chunk."""
  rng = np.random.default_rng(0)
  text = lambda size: "".join(map(chr, rng.integers(97, 123, size)))
  rows = [
    {
      "prompt": text(rng.integers(10, 60)),
      "chosen": f" {text(rng.integers(5, 60))}",
      "rejected": f" {text(rng.integers(5, 60))}.",
      "source": f"s{i % 4}",
    }
    for i in range(token_store.CHUNK)
  ]
  chunk = "".join(f"{json.dumps(row)}\n" for row in rows)
  with open(path, "w", encoding="utf-8") as file:
    for _ in range(records // token_store.CHUNK):
      file.write(chunk)


def anonymous() -> float:
  """Memory of this process that is no map of a file, MB."""
  with open("/proc/self/smaps_rollup", encoding="ascii") as file:
    lines = dict(line.split(":") for line in file.readlines()[1:])
  return int(lines["Anonymous"].split()[0]) / 2**10


def measure(path: str, count: int, streaming: bool) -> dict[str, float]:
  """One process of `count`."""
  start, tokenizer = time.perf_counter(), tokenizer_files.byte_tokenizer()
  found = reader.PairStream(reader.RecordStream([path]))
  records = found if streaming else list(found)
  gather = lambda array: np.stack([array] * count)
  dataset = pair_dataset.encode_pairs(
    records,
    tokenizer,
    max_length=128,
    on_disk=streaming,
    processes=sharded_tokens.Processes(0, count, gather),
  )
  known = time.perf_counter()
  source = loader.Batches(
    dataset,
    batch_size=BATCH_SIZE,
    buckets=(64, 128),
    pad_id=tokenizer.pad_id,
    seed=0,
    shuffle=True,
    process_index=0,
    process_count=count,
  )
  source.hold(range(len(source)))
  held = time.perf_counter()
  return {
    "processes": count,
    "streaming": streaming,
    "lengths_s": round(known - start, 1),
    "rows_s": round(held - known, 1),
    "tokens_share": round(
      len(dataset.sequences.values) / int(dataset.lengths.sum()), 4
    ),
    "tokens_gb": round(dataset.sequences.values.nbytes / 2**30, 3),
    "anonymous_mb": round(anonymous(), 1),
  }


def main() -> None:
  """Measures each run in a process of its own."""
  if len(sys.argv) > 2:
    path, count, streaming = sys.argv[1:]
    print(json.dumps(measure(path, int(count), streaming == "True")))
    return
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "pairs.jsonl")
    write(path, int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS)
    for count, streaming in RUNS:
      subprocess.run(
        [
          sys.executable,
          "-m",
          "tests.benchmarks.shares",
          path,
          str(count),
          str(streaming),
        ],
        check=True,
      )


if __name__ == "__main__":
  main()
