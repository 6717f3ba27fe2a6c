r"""Whole runs against TRL's trainers, from the start of a process to its end.

    python -m tests.benchmarks.trl_runs --peers PEERS/bin/python reward grpo

PEERS is an environment with the extra `peers`. Both start from the same folder
and read the same files. `reward`: GPT-2 of 19M parameters, 60 steps of 16 pairs
of the crowd, evaluation, model written. `grpo`: a Qwen2 of 8.5M parameters, six
iterations of 4 prompts with 8 responses of 64 tokens, KL to the start in the
loss, a reward that costs nothing. The programs take turns, each `--rounds`
times, as a user starts them: `jaxalign STAGE`, once without compiled programs
of an earlier run ("cold") and once with them ("warm"), and `python` for TRL.
Prints JSON: seconds of a whole run, those of the processor, and of a step (the
median, without those that compile), with quartiles over the rounds, and TRL's
over ours.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np

from jaxalign import models
from jaxalign.data.records import chat
from jaxalign.data.synthetic import crowd
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.models import heads

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLICY = {
  "batch_size": 32,  # responses
  "num_steps": 6,
  "learning_rate": 1e-5,
  "max_prompt_length": 32,
  "max_new_tokens": 64,
  "beta": 0.04,
}
SETTINGS = {
  "reward": {
    "num_steps": 60,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "max_length": 64,
  },
  "grpo": {**POLICY, "num_responses": 8},
  "ppo": {**POLICY, "num_responses": 1},
}
# Steps that are left out: those that compile, and ours are logged by tens.
WARM_UP = {"reward": 10, "grpo": 2}
QWEN = dict(
  family="qwen2", num_layers=8, num_heads=8, embed_dim=256, mlp_dim=704
)
SHAPES = {
  "reward": dict(
    family="gpt2", num_layers=6, num_heads=8, embed_dim=512, mlp_dim=2048
  ),
  "grpo": QWEN,
  "ppo": QWEN,
}


def letters(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
  """How many letters e a response has: costs nothing."""
  return [float(text.count("e")) for text in responses]


def prepare(
  folder: pathlib.Path, kind: str, num_steps: int | None = None
) -> None:
  """Model, files and settings that both programs read."""
  people = crowd.crowd_of("two_groups", seed=0)
  for split, drawn, number in (("train", "train", 2000), ("eval", "test", 200)):
    rows = [
      {
        "prompt": chat.text_of(record.prompt),
        "chosen": chat.text_of(record.responses[0]),
        "rejected": chat.text_of(record.responses[1]),
      }
      for record in crowd.draw_records(people, split=drawn)[:number]
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(lines)
  texts = (folder / "train.jsonl").read_text().splitlines()
  tokenizer = tokenizer_files.train_tokenizer(texts, vocab_size=4096)
  network = models.scratch_config(
    **SHAPES[kind],
    num_kv_heads=SHAPES[kind]["num_heads"],
    vocab_size=4096,
    max_positions=128,
    tie_embeddings=kind == "reward",
    norm_eps=1e-5,
    bos_id=tokenizer.bos_id,
    eos_id=tokenizer.ends[0],
    pad_id=tokenizer.pad_id,
  )
  model = heads.causal_lm(network)
  tokens = jax.numpy.zeros((1, 2), int)
  params = model.init(jax.random.key(0), tokens, tokens == 0)
  (folder / "model").mkdir()
  models.save_pretrained(folder / "model", params, network)
  tokenizer.save(folder / "model")
  settings = dict(SETTINGS[kind])
  settings["num_steps"] = num_steps or settings["num_steps"]
  (folder / "settings.json").write_text(json.dumps(settings))


def changes(folder: pathlib.Path, kind: str) -> dict[str, object]:
  """What a user sets on the command line, by key of the config."""
  settings = json.loads((folder / "settings.json").read_text())
  common = {
    "data.train_files": (f"{folder}/train.jsonl",),
    "data.eval_files": (f"{folder}/eval.jsonl",),
    "data.tokenizer": None,
    "model.init_from": str(folder / "model"),
    "model.unroll": SHAPES[kind]["num_layers"],
    "optimizer.learning_rate": settings["learning_rate"],
    "optimizer.schedule": "constant",
    "optimizer.warmup_steps": 0,
  }
  if kind == "reward":
    return common | {
      "data.max_length": settings["max_length"],
      "data.buckets": (32, 48, settings["max_length"]),
      "train.num_steps": settings["num_steps"],
      "train.batch_size": settings["batch_size"],
      "train.eval_every": None,
      "train.checkpoint_every": settings["num_steps"],
    }
  prompts = settings["batch_size"] // settings["num_responses"]
  common |= {
    "data.max_prompt_length": settings["max_prompt_length"],
    "sampling.num_responses": settings["num_responses"],
    "sampling.max_new_tokens": settings["max_new_tokens"],
    "sampling.min_new_tokens": settings["max_new_tokens"],
    "source.crowd": None,
    "source.function": "tests.benchmarks.trl_runs:letters",
    "source.names": ("e",),
    "judge": None,
    "kl.coef": settings["beta"],
    "welfare.kind": "mean",
    "policy.epochs": 1,
    "train.num_iterations": settings["num_steps"],
    "train.num_prompts": prompts,
    "train.eval_every": None,
    "train.eval_prompts": prompts,
  }
  if kind == "ppo":
    return common | {
      "policy.minibatches": 1,
      "kl.place": "reward",
      "critic_optimizer.learning_rate": settings["learning_rate"],
    }
  return common | {
    "policy.kind": "grpo",
    "policy.whiten": False,
    "critic.kind": "none",
    "critic.clip": None,
    "critic.discount": None,
    "critic.gae_lambda": None,
    "critic_optimizer": None,
    "kl.place": "loss",
    "kl.estimator": "k3",
  }


def ours(folder: pathlib.Path, out: pathlib.Path, kind: str) -> list[object]:
  """The command that a user types."""
  stage, config = {
    "reward": ("train_reward", "rm_bt_crowd.py"),
    "grpo": ("train_policy", "policy_maxmin_crowd.py"),
  }[kind]
  flags = [
    f"--config.{key}={value}" for key, value in changes(folder, kind).items()
  ]
  command = pathlib.Path(sys.executable).parent / "jaxalign"
  return [command, stage, f"--config={config}", f"--workdir={out}", *flags]


def timed(
  command: Sequence[object], log: pathlib.Path, programs: pathlib.Path
) -> tuple[float, float]:
  """Seconds of a process, on the clock and of the processor."""
  env = os.environ | {
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAXALIGN_COMPILATION_CACHE": str(programs),
  }
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  begun = time.perf_counter()
  with log.open("w") as file:
    done = subprocess.run(
      [str(part) for part in command],
      stdout=file,
      stderr=subprocess.STDOUT,
      env=env,
      check=False,
    )
  if done.returncode:
    raise SystemExit(f"{command[0]} failed:\n{log.read_text()[-3000:]}")
  wall = time.perf_counter() - begun
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return wall, cpu


def step_of(out: pathlib.Path, kind: str) -> float:
  """Median seconds of our steps, as the run logged them."""
  lines = (out / "speed.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  rows = [row for row in rows if row["step"] > WARM_UP[kind]]
  if kind == "reward":
    name = "speed/steps_per_second"
    return statistics.median(1 / row[name] for row in rows if name in row)
  parts = [f"speed/{x}_seconds" for x in ("sampling", "scoring", "learning")]
  return statistics.median(
    sum(row[part] for part in parts) for row in rows if parts[0] in row
  )


def spread(values: Sequence[float]) -> dict[str, float]:
  low, middle, high = np.percentile(values, [25, 50, 75])
  return {"median": float(middle), "q1": float(low), "q3": float(high)}


def measure(
  kind: str, given: argparse.Namespace, top: pathlib.Path
) -> dict[str, object]:
  """Both programs in turn."""
  folder, log = top / kind, top / f"{kind}.log"
  folder.mkdir()
  prepare(folder, kind, given.steps)
  theirs = pathlib.Path(__file__).with_name("trl_trainers.py")
  values: dict[str, dict[str, list[float]]] = {
    name: {"cold": [], "warm": [], "trl": []}
    for name in ("run", "processor", "step")
  }
  for _ in range(given.rounds):
    programs = top / f"{kind}-programs"
    for who in ("cold", "warm", "trl"):
      out = top / f"{kind}-{who}"
      command = (
        [given.peers, theirs, kind, folder, out]
        if who == "trl"
        else ours(folder, out, kind)
      )
      wall, cpu = timed(command, log, programs)
      values["run"][who].append(wall)
      values["processor"][who].append(cpu)
      if who == "trl":
        known = json.loads(log.read_text().splitlines()[-1])["steps_s"]
        step = statistics.median(known[WARM_UP[kind] :])
      else:
        step = step_of(out, kind)
      values["step"][who].append(step)
      shutil.rmtree(out)
    shutil.rmtree(programs)
  found: dict[str, object] = {"rounds": given.rounds}
  for name, each in values.items():
    found[f"{name}_s"] = {who: spread(x) for who, x in each.items()}
    found[f"trl_over_ours_{name}"] = {
      who: spread(np.divide(each["trl"], each[who])) for who in ("cold", "warm")
    }
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("kinds", nargs="+", choices=[*WARM_UP])
  parser.add_argument("--peers", type=pathlib.Path, required=True)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--steps", type=int, help="in place of 60, or of six")
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as top:
    found = {
      kind: measure(kind, given, pathlib.Path(top)) for kind in given.kinds
    }
  sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
  main()
