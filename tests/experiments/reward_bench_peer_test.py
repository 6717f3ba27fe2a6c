"""RewardBench's own command and the stage `reward_bench` on one folder.

Rows are LLMBar and MT-Bench in RewardBench's layout, as far as they fit the
model. The authors' rewardbench 0.1.4 needs an older transformers, so
REWARDBENCH_PYTHON names the interpreter of an environment of its own:

    python -m venv bench && bench/bin/pip install rewardbench==0.1.4
    REWARDBENCH_PYTHON=bench/bin/python JAXALIGN_DATA=... \
        python -m pytest --tier=all tests/experiments/reward_bench_peer_test.py

Its program is not modified. It finds its rows in the folder
`allenai/reward-bench` below where it runs, and what it sends to "cuda" stays.
"""

import gzip
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import jax
import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import reward_bench
from jaxalign.experiments.common import config as configuration
from jaxalign.models import heads
from jaxalign.models.hf import config_map, weights
from tests import shipped
from tests.data import real_data

THEIRS = os.environ.get("REWARDBENCH_PYTHON")
LENGTH = 1024  # bytes of a text, less what a template adds
LLMBAR = {
  "Natural": "llmbar-natural",
  "Neighbor": "llmbar-adver-neighbor",
  "GPTInst": "llmbar-adver-GPTInst",
  "GPTOut": "llmbar-adver-GPTOut",
  "Manual": "llmbar-adver-manual",
}
MT_BENCH = ("mt-bench-easy", "mt-bench-med", "mt-bench-hard")
COMMAND = """
import transformers

to = transformers.BatchEncoding.to
transformers.BatchEncoding.to = lambda self, device, **options: to(
  self, "cpu" if device == "cuda" else device, **options
)
from rewardbench.rewardbench import main

main()
"""


def benchmark_rows() -> list[dict]:
  """Pairs of one question, in RewardBench's columns."""
  rows, turns = [], re.compile(r"\n\n(?:Human|Assistant):")
  for name in ("llmbar", "mt_bench"):
    path = real_data.folder(name) / "pairs_test.jsonl.gz"
    for pair in map(
      json.loads, gzip.decompress(path.read_bytes()).splitlines()
    ):
      _, asked, *more = turns.split(pair["prompt"])
      said = {side: pair[side].strip() for side in ("chosen", "rejected")}
      longest = max(len(text.encode()) for text in said.values())
      if more != [""] or len(asked.encode()) + longest > LENGTH - 64:
        continue
      # Which of MT-Bench's pairs were easy for whom, RewardBench alone knows.
      subset = LLMBAR.get(pair["group"], MT_BENCH[len(rows) % 3])
      rows.append(
        {"prompt": asked.strip(), **said, "subset": subset, "id": len(rows)}
      )
  return rows


def reward_model() -> str:
  """A random model of bytes, whose tokenizer adds no end to a text.

  The template of a chat writes one, and RewardBench, which tokenises what the
  template wrote, would read two.
  """
  tokenizer = tokenizer_files.byte_tokenizer()
  network = config_map.scratch_config(
    "llama",
    vocab_size=tokenizer.vocab_size,
    num_layers=1,
    num_heads=2,
    embed_dim=16,
    mlp_dim=32,
    max_positions=LENGTH,
    tie_embeddings=True,
    num_outputs=1,
    pad_id=tokenizer.pad_id,
    bos_id=tokenizer.bos_id,
    eos_id=tokenizer.eos_id,
  )
  token = np.zeros((1, 1), np.int32)
  params = heads.reward_model(network).init(
    jax.random.key(3), token, token == 0
  )
  folder = tempfile.mkdtemp()
  weights.save_pretrained(
    folder, jax.tree.map(lambda x: 2 * x, params), network
  )
  tokenizer.save(folder)
  file = pathlib.Path(folder) / "tokenizer.json"
  content = json.loads(file.read_text())
  for part in ("single", "pair"):
    added = content["post_processor"][part]
    added[:] = [piece for piece in added if "eos" not in json.dumps(piece)]
  file.write_text(json.dumps(content))
  return folder


@unittest.skipUnless(THEIRS, "REWARDBENCH_PYTHON is not set")
class RewardBenchCommandTest(absltest.TestCase):
  def test_subsets_and_sections_are_equal_to_the_last_digit(self):
    rows, folder = benchmark_rows(), reward_model()
    workdir = pathlib.Path(tempfile.mkdtemp())
    file = workdir / "allenai/reward-bench/filtered.jsonl"
    file.parent.mkdir(parents=True)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    file.write_text(lines)
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    card += "  - split: filtered\n    path: filtered.jsonl\n---\n"
    (file.parent / "README.md").write_text(card)
    os.symlink(folder, workdir / "rm")
    options = ["--model=rm", "--not_quantized", "--torch_dtype=float32"]
    done = subprocess.run(
      [THEIRS, "-c", COMMAND, *options, f"--max_length={LENGTH}"],
      cwd=workdir,
      env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stdout[-3000:])
    found = re.findall(r" - .*?([\w-]+): (\d+)/(\d+) \(([\d.]+)\)", done.stdout)
    subsets = {name: float(share) for name, _, _, share in found}
    sections = json.loads(
      re.search(r"Results: (\{.*\})", done.stdout)[1].replace("'", '"')
    )
    cfg = shipped.config("reward_bench")
    cfg.mesh.data = 1
    cfg.files = (f"allenai/reward-bench:{file}",)
    cfg.source.update(models=(folder,), buckets=(256, 512, LENGTH))
    ours = epath.Path(workdir) / "ours"
    ours.mkdir()
    reward_bench.run(configuration.to_dataclass(reward_bench.Config, cfg), ours)
    scores = json.loads((ours / "eval.json").read_text())["outputs"]["reward"]
    values = lambda part: {k: v["value"] for k, v in scores[part].items()}
    self.assertLen(subsets, 8)
    self.assertEqual(values("subsets"), subsets)
    for name, value in sections.items():  # 0 where the files have nothing of it
      self.assertAlmostEqual(values("sections").get(name, 0), value, places=15)
    print(json.dumps({"subsets": subsets, "sections": sections}, indent=2))


if __name__ == "__main__":
  absltest.main()
