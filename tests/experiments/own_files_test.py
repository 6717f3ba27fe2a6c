"""Configs for any pretrained model, each on what the others have left."""

import itertools
import json
import tempfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import pipeline
from jaxalign.models import heads
from jaxalign.models.hf import config_map, weights
from tests import checkout, documented_test

SHORT = (
  *("train.num_steps=2", "train.batch_size=4", "mesh.data=1"),
  "optimizer.warmup_steps=1",
)
SCORED = ("data.max_length=64", "data.buckets=(64,)", "eval.num_samples=20")
ROUNDS = "recipe.steps_per_round=1"
SAMPLED = (
  *("train.num_iterations=1", "train.num_prompts=8", "train.eval_prompts=8"),
  *("mesh.data=1", "data.max_prompt_length=32", "sampling.max_new_tokens=4"),
)
KINDS = ("train", "eval")
TURNS = (
  "{% for message in messages %}{{ message['role'] + ': ' + message['content'] "
  "+ '\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
CHAINS = {
  "full": (
    ("sft", "sft.py", ("data.length=64",)),
    ("train_reward", "reward.py", SCORED),
    ("train_policy", "policy.py", ()),
  ),
  "small": (
    ("sft", "sft.py:lora", ("data.length=64",)),
    ("train_reward", "reward.py:lora", SCORED),
    ("train_reward", "reward.py:head", SCORED),
    ("train_policy", "policy.py:grpo", ()),
  ),
  "groups": (
    ("sft", "sft.py", ("data.length=64",)),
    ("train_reward", "mixture.py:lora", (*SCORED, ROUNDS)),
    ("train_reward", "mixture.py:head", (*SCORED, ROUNDS)),
    ("train_policy", "policy.py:mixture", ()),
  ),
}


def language_model(num_layers: int = 1, template: str | None = None) -> str:
  """The folder of a small model, as one might have it from elsewhere."""
  tokenizer = tokenizer_files.byte_tokenizer()
  tokenizer.fast.chat_template = template
  network = config_map.scratch_config(
    "llama",
    vocab_size=tokenizer.vocab_size,
    num_layers=num_layers,
    num_heads=2,
    num_kv_heads=2,
    embed_dim=16,
    mlp_dim=32,
    max_positions=512,
    tie_embeddings=True,
    num_outputs=None,
    pad_id=tokenizer.pad_id,
    bos_id=tokenizer.bos_id,
    eos_id=tokenizer.eos_id,
  )
  token = np.zeros((1, 1), np.int32)
  params = heads.causal_lm(network).init(jax.random.key(0), token, token == 0)
  folder = tempfile.mkdtemp()
  weights.save_pretrained(folder, params, network)
  tokenizer.save(folder)
  return folder


class OwnFilesTest(parameterized.TestCase):
  @parameterized.parameters(*CHAINS)
  @pytest.mark.slow
  def test_from_a_folder_and_files_to_a_policy(self, chain):
    workdir, given = epath.Path(tempfile.mkdtemp()), language_model()
    files = {}
    for name, number in (("train", 24), ("eval", 12)):
      path = workdir / f"{name}.jsonl"
      path.write_text(documented_test.pairs(number))
      files[name] = f"data.{name}_files=('{path}',)"
    steps = []
    for stage, config, own in CHAINS[chain]:
      # Rewards are asked of the last one, and a policy starts from the first.
      start, last = "{0 sft}/model", f"{{{steps[-1].name if steps else ''}}}"
      changes = (f"model.init_from={start if steps else given}",)
      changes += SHORT if stage != "train_policy" else SAMPLED
      if stage == "train_policy":
        changes += (
          f"source.models=('{last}/model',)",
          "source.buckets=(64,)",
        )
      name = f"{len(steps)} {stage.removeprefix('train_')}"
      steps.append(
        pipeline.StepConfig(
          name,
          stage,
          str(checkout.ROOT / "configs" / config),
          (*files.values(), *changes, *own),
        )
      )
    pipeline.run(
      pipeline.Config(seed=0, crowd_seed=0, steps=tuple(steps)), workdir
    )
    for step in steps:
      model = workdir / step.name / "model"
      self.assertTrue((model / "model.safetensors").exists(), step.name)
    description = json.loads((model / "jaxalign.json").read_text())
    self.assertEqual(description["kind"], "policy")

  def test_from_votes_to_a_policy_with_adapters_for_two_groups(self):
    workdir, given = epath.Path(tempfile.mkdtemp()), language_model(2, TURNS)
    ask = lambda text: [{"role": "user", "content": text}]
    votes = [
      dict(person=p, item=i, text=f"We need {i}.", prompt=ask("What?"))
      | dict(vote=1 if (i + p) % 3 else -1)
      for p in range(4)
      for i in range(5)
    ]
    prompts = [{"prompt": ask(f"What of {i}?")} for i in range(4)]
    for name, rows in (("votes", votes), ("prompts", prompts)):
      lines = "".join(f"{json.dumps(row)}\n" for row in rows)
      (workdir / f"{name}.jsonl").write_text(lines)
    reward = (
      f"data.train_files=('item_votes:{workdir}/votes.jsonl',)",
      *("data.eval_files=()", "data.max_length=64", "data.buckets=(64,)"),
      *(f"model.init_from={given}", "model.layer=1", "model.pooling=mean"),
      *(*SHORT, ROUNDS, "recipe.restarts=1"),
    )
    policy = (
      *(f"model.init_from={given}", "model.lora={{'rank': 2}}"),
      *(f"data.{k}_files=('{workdir}/prompts.jsonl',)" for k in KINDS),
      *("source.models=('{mixture}/model',)", "source.names=('a', 'b')"),
      "source.buckets=(64,)",
      "judge={{'models': ('{mixture}/model',), 'buckets': (64,)}}",
      *("kl.controller=adaptive", "kl.target=1.0"),
      *("kl.horizon=16.0", "policy.epochs=1", *SAMPLED),
      *("train.num_prompts=4", "train.eval_prompts=None"),
    )
    config = lambda name: str(checkout.ROOT / "configs" / name)
    steps = (
      ("mixture", "train_reward", config("mixture.py:head"), reward),
      ("policy", "train_policy", config("policy.py:grpo"), policy),
    )
    pipeline.run(
      pipeline.Config(
        seed=0,
        crowd_seed=0,
        steps=tuple(itertools.starmap(pipeline.StepConfig, steps)),
      ),
      workdir,
    )
    scores = json.loads((workdir / "policy/eval.json").read_text())
    for ours, theirs in (("a", "component_0"), ("b", "component_1")):
      utility = scores[f"eval/utility/{ours}"]
      self.assertEqual(utility, scores[f"eval/judge/{theirs}"])
    described = json.loads(
      (workdir / "mixture/model/jaxalign.json").read_text()
    )
    self.assertEqual(described["pooling"], "mean")
    adapted, start = (
      safetensors.numpy.load_file(f"{folder}/model.safetensors")
      for folder in (workdir / "policy/model", given)
    )
    moved = {k for k in start if not np.array_equal(start[k], adapted[k])}
    self.assertNotEmpty(moved)
    self.assertTrue(all("q_proj" in k or "v_proj" in k for k in moved), moved)


if __name__ == "__main__":
  absltest.main()
