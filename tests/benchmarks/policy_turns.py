r"""Policy iterations against TRL's and tunix's learners, in turns.

    python -m tests.benchmarks.policy_turns grpo --trl TRL/bin/python \
        --tunix TUNIX/bin/python
    python -m tests.benchmarks.policy_turns ppo --tunix TUNIX/bin/python

TRL is an interpreter with the extra `peers`, TUNIX one with google-tunix 0.1.7,
which wants an older safetensors. All start from one folder, a Qwen2 of 8.5M
parameters, and each is a process of its own that takes an iteration when it is
its turn: 32 responses of 64 tokens sampled at temperature 1, scored by a
function that costs nothing, and one optimiser step. `grpo`: 8 responses to each
of 4 prompts, KL to the start in the loss. `ppo`: 32 prompts, a critic of its
own, KL in the reward. Prints JSON: seconds on the clock and of the processor
with quartiles, and rivals' over ours. As all take turns, ratios of processor
time hold while other work shares the machine.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from jaxalign.experiments import train_policy
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import prompts, section
from jaxalign.experiments.policy import reward_source, rollout
from jaxalign.runtime.distributed import mesh as meshes
from tests import shipped
from tests.benchmarks import trl_runs

WARM_UP = 2  # iterations that compile


def config_of(kind: str, folder: pathlib.Path) -> train_policy.Config:
  """Our config, with the changes that a user makes on the command line."""
  made = shipped.config("policy_maxmin_crowd")
  for key, value in trl_runs.changes(folder, kind).items():
    section_of, _, name = key.rpartition(".")
    inside = made
    for part in section_of.split(".") if section_of else ():
      inside = inside[part]
    with inside.ignore_type():
      inside[name] = value
  return configuration.to_dataclass(train_policy.Config, made)


def ours(kind: str, folder: pathlib.Path) -> None:
  """An iteration for each line of the input, as `train_policy` has them."""
  config = config_of(kind, folder)
  mesh = meshes.make_mesh(config.mesh)
  stage = train_policy.build(config, mesh)
  source = reward_source.open_source(config.source, mesh, config.mesh.rules)
  tokenizer = section.open_tokenizer(config.data, config.model.init_from)
  dataset = prompts.load_prompts(
    config.data,
    config.data.train_files,
    tokenizer=tokenizer,
    group_names=config.source.names,
  )
  order = prompts.make_batches(
    config.data,
    dataset,
    tokenizer,
    config.train.num_prompts,
    seed=0,
    shuffle=True,
  )
  key = jax.random.key(0)
  frozen, state = stage.init_frozen(key), stage.init(key)
  rollout_of = rollout.make_rollout(stage, dataset, tokenizer, source)
  for step, _ in enumerate(sys.stdin):
    begun, spent = time.perf_counter(), time.process_time()
    draw, learn = jax.random.split(jax.random.fold_in(key, step))
    found = rollout_of(state.actor.params, frozen, order[step], draw)
    state, metrics = stage.learn(state, frozen, found.batch, learn)
    jax.device_get(metrics)
    wall, cpu = time.perf_counter() - begun, time.process_time() - spent
    sys.stdout.write(f"seconds {wall} {cpu}\n")
    sys.stdout.flush()


class Contestant:
  """A process that takes an iteration when it is told to."""

  def __init__(self, command: list[object], log: pathlib.Path):
    self._log = log
    env = os.environ | {
      "PYTHONPATH": str(trl_runs.ROOT),
      "JAX_PLATFORMS": "cpu",
    }
    with log.open("w") as errors:
      self._process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=env,
        text=True,
      )

  def turn(self) -> tuple[float, float]:
    """Seconds of an iteration, on the clock and of the processor."""
    try:
      self._process.stdin.write("\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      self._process.wait()
    for line in self._process.stdout:
      if line.startswith("seconds "):
        wall, cpu = map(float, line.split()[1:3])
        return wall, cpu
    raise SystemExit(f"{self._log}:\n{self._log.read_text()[-3000:]}")

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.wait()


def measure(kind: str, given: argparse.Namespace) -> dict[str, object]:
  """All contestants in turn."""
  here = pathlib.Path(__file__)
  with tempfile.TemporaryDirectory() as top:
    folder = pathlib.Path(top)
    trl_runs.prepare(folder, kind)
    commands = {"ours": [sys.executable, "-m", __spec__.name, kind, "--folder"]}
    commands["ours"] = [*commands["ours"], folder]
    if given.trl is not None:
      commands["trl"] = [
        given.trl,
        here.with_name("trl_trainers.py"),
        "turns",
        folder,
      ]
    if given.tunix is not None:
      script = here.with_name("tunix_learners.py")
      commands["tunix"] = [given.tunix, script, kind, folder]
    seconds: dict[str, list[tuple[float, float]]] = {w: [] for w in commands}
    running = {
      who: Contestant(command, folder / f"{who}.log")
      for who, command in commands.items()
    }
    try:
      for turn in range(WARM_UP + given.rounds):
        for who, contestant in running.items():
          spent = contestant.turn()
          if turn >= WARM_UP:
            seconds[who].append(spent)
    finally:
      for contestant in running.values():
        contestant.close()
  found: dict[str, object] = {"rounds": given.rounds}
  for column, kind_of in enumerate(("clock", "processor")):
    each = {who: np.array(pairs)[:, column] for who, pairs in seconds.items()}
    found[kind_of] = {
      "seconds": {who: trl_runs.spread(x) for who, x in each.items()},
      **{
        f"{who}_over_ours": trl_runs.spread(x / each["ours"])
        for who, x in each.items()
        if who != "ours"
      },
    }
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("kind", choices=["ppo", "grpo"])
  parser.add_argument("--trl", type=pathlib.Path)
  parser.add_argument("--tunix", type=pathlib.Path)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--folder", type=pathlib.Path, help="of one of them")
  given = parser.parse_args()
  if given.folder is not None:
    ours(given.kind, given.folder)
    return
  found = measure(given.kind, given)
  sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
  main()
