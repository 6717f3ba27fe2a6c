"""Iterations of tunix's PPO and GRPO learners, one for each line of the input.

    TUNIX/bin/python tests/benchmarks/tunix_learners.py ppo|grpo FOLDER

`policy_turns` starts this with an interpreter that has tunix and no jaxalign.
FOLDER holds model/, train.jsonl and settings.json. The learner asks for a batch
of prompts when it has done with the last: that is where it waits for a line,
and answers the one before with the seconds that its iteration took.
"""

import json
import pathlib
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import optax
import transformers
from tunix.models.qwen2 import model as qwen
from tunix.models.qwen2 import params as qwen_params
from tunix.rl import rl_cluster
from tunix.rl import utils as rl_utils
from tunix.rl.grpo import grpo_learner
from tunix.rl.ppo import ppo_learner
from tunix.rl.rollout import base_rollout


def letters(prompts, completions, **columns) -> list[float]:
  """How many letters e a completion has: costs nothing."""
  return [float(text.count("e")) for text in completions]


def clocks() -> tuple[float, float]:
  """Seconds on the clock, and of this process on all cores."""
  return time.perf_counter(), time.process_time()


def batches(folder: pathlib.Path, size: int) -> Iterator[dict[str, list[str]]]:
  """Prompts of an iteration, as often as a line comes."""
  lines = (folder / "train.jsonl").read_text().splitlines()
  prompts = [json.loads(line)["prompt"] for line in lines]
  begun, at = None, 0
  while True:
    if begun is not None:
      wall, cpu = (b - a for a, b in zip(begun, clocks(), strict=True))
      sys.__stdout__.write(f"seconds {wall} {cpu}\n")
      sys.__stdout__.flush()
    if not sys.stdin.readline():
      return
    begun = clocks()
    yield {"prompts": np.array(prompts[at : at + size])}
    at = (at + size) % (len(prompts) - size)


def main() -> None:
  kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  settings = json.loads((folder / "settings.json").read_text())
  config = json.loads((folder / "model/config.json").read_text())
  network = qwen.ModelConfig(
    num_layers=config["num_hidden_layers"],
    vocab_size=config["vocab_size"],
    embed_dim=config["hidden_size"],
    hidden_dim=config["intermediate_size"],
    num_heads=config["num_attention_heads"],
    head_dim=config["hidden_size"] // config["num_attention_heads"],
    num_kv_heads=config["num_key_value_heads"],
    rope_theta=10_000,
    norm_eps=config["rms_norm_eps"],
  )
  devices = np.array(jax.devices()[:1]).reshape(1, 1)
  mesh = jax.sharding.Mesh(devices, ("fsdp", "tp"))
  load = lambda: qwen_params.create_model_from_safe_tensors(
    str(folder / "model"), network, mesh
  )
  actor, reference = load(), load()
  size, new = settings["batch_size"], settings["max_new_tokens"]
  adam = lambda: optax.adamw(settings["learning_rate"])
  role = rl_cluster.Role
  cluster = rl_cluster.RLCluster(
    actor=actor,
    critic=rl_utils.create_critic_model(actor) if kind == "ppo" else None,
    reference=reference,
    tokenizer=transformers.AutoTokenizer.from_pretrained(folder / "model"),
    cluster_config=rl_cluster.ClusterConfig(
      role_to_mesh={one: mesh for one in role},
      rollout_engine="vanilla",
      training_config=rl_cluster.RLTrainingConfig(
        actor_optimizer=adam(),
        critic_optimizer=adam() if kind == "ppo" else None,
        eval_every_n_steps=1_000_000,
        max_steps=1_000_000,
      ),
      rollout_config=base_rollout.RolloutConfig(
        max_tokens_to_generate=new,
        max_prompt_length=settings["max_prompt_length"],
        kv_cache_size=settings["max_prompt_length"] + new,
        temperature=1.0,
        # An end that no text has: all responses are as long as they may be.
        eos_tokens=[network.vocab_size - 1],
      ),
    ),
  )
  if kind == "ppo":
    learner = ppo_learner.PPOLearner(
      rl_cluster=cluster,
      reward_fns=[letters],
      ppo_config=ppo_learner.PPOConfig(beta=settings["beta"]),
    )
  else:
    responses = settings["num_responses"]
    learner = grpo_learner.GRPOLearner(
      rl_cluster=cluster,
      reward_fns=[letters],
      algo_config=grpo_learner.GRPOConfig(
        num_generations=responses, beta=settings["beta"]
      ),
    )
    size //= responses
  with mesh:
    learner.train(batches(folder, size))


if __name__ == "__main__":
  main()
