"""The page on other trainers, run against the installed ones.

TRL is imported; of OpenRLHF and verl, whose packages do not import without a
GPU's libraries, the file of the client is executed unmodified, with stand-ins
for the modules that it does not use here.
"""

import asyncio
import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import re
import sys
import tempfile
import types
import unittest
import warnings
from unittest import mock

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.chat import Turn
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.runtime.reward_sources import FunctionSource, trainer_functions
from tests import checkout
from tests.experiments import sample_test, serve_test
from tests.runtime.reward_sources import model_test

PAGE = "docs/trainers.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
ROOM = dict(max_bytes=10_000, max_waiting_bytes=99_000)


def needs(name: str):
  """Skips a test where a peer is not installed, by its name and version."""
  return unittest.skipUnless(
    importlib.util.find_spec(name), f"needs {versions().get(name, name)}"
  )


def versions() -> dict[str, str]:
  """Packages of the page's table by import name, with their versions."""
  text = (checkout.ROOT / PAGE).read_text(encoding="utf-8")
  rows = re.findall(r"^\| (\w+) \| ([\d.]+) \|", text, re.M)
  return {name.lower(): f"{name} {version}" for name, version in rows}


def run_block(title: str) -> dict:
  """Runs the Python block below a heading; returns the names it leaves."""
  text = (checkout.ROOT / PAGE).read_text(encoding="utf-8")
  start = text.index(f"\n## {title}\n")
  found = BLOCK.search(text, start)
  line = text.count("\n", 0, found.start()) + 1
  names = {"os": os}
  source = "\n" * line + found[1]
  exec(compile(source, PAGE, "exec"), names)  # noqa: S102
  return names


def in_runs(test: absltest.TestCase) -> None:
  """Goes to a folder with the runs that the page speaks of."""
  folder = pathlib.Path(tempfile.mkdtemp())
  for name, path in (
    ("rm", model_test.folder()),
    ("sft", sample_test.policy()),
  ):
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / "model").symlink_to(path)
  before = os.getcwd()
  os.chdir(folder)
  # Those of the peers are theirs to mend.
  test.enter_context(warnings.catch_warnings())
  warnings.simplefilter("ignore")
  test.addCleanup(os.chdir, before)


class Recorded:
  """Calls of reward functions, with what they gave."""

  def __init__(self, test: absltest.TestCase) -> None:
    self.calls = []
    call = trainer_functions.RewardFunction.__call__

    def noted(function, prompts, completions, **columns):
      rewards = call(function, prompts, completions, **columns)
      self.calls.append((function.__name__, prompts, completions, rewards))
      return rewards

    test.enter_context(
      mock.patch.object(trainer_functions.RewardFunction, "__call__", noted)
    )


def by_source(prompts, responses) -> np.ndarray:
  """Calibrated rewards of the page's reward model, [B, K]."""
  return model_test.open_source()(prompts, responses)


def unmodified(name: str, path: str, **stand_ins) -> types.ModuleType:
  """A module of an installed package, without importing the package.

  Args:
    name: of the package.
    path: of the file in it.
    **stand_ins: modules that the file imports, dots as two underscores.
  """
  root = importlib.util.find_spec(name).submodule_search_locations[0]
  spec = importlib.util.spec_from_file_location(
    f"{name}.{path.removesuffix('.py').replace('/', '.')}",
    os.path.join(root, path),
  )
  module = importlib.util.module_from_spec(spec)
  replaced = {key.replace("__", "."): value for key, value in stand_ins.items()}
  before = {key: sys.modules.get(key) for key in replaced}
  sys.modules.update(replaced)
  try:  # what it imports beside them stays
    spec.loader.exec_module(module)
  finally:
    for key, value in before.items():
      del sys.modules[key]
      if value is not None:
        sys.modules[key] = value
  return module


class PageTest(absltest.TestCase):
  def test_the_versions_of_the_page_are_those_installed(self):
    for name, said in versions().items():
      distribution = "google-tunix" if name == "tunix" else name
      try:
        found = importlib.metadata.version(distribution)
      except importlib.metadata.PackageNotFoundError:
        continue
      self.assertEqual(said.split()[1], found)
    self.assertCountEqual(versions(), ["trl", "tunix", "openrlhf", "verl"])

  def test_any_other_client_posts_turns(self):
    source = serve_test.source_of(serve_test.lengths)
    with (
      serve_test.serving(source, **ROOM) as url,
      mock.patch.dict(os.environ, REWARD_URL=f"{url}/v1"),
      mock.patch("builtins.print") as shown,
    ):
      run_block("Any other")
    ((reply,),) = (call.args for call in shown.call_args_list)
    self.assertEqual(reply["rewards"], [[8.0, -8.0]])


class CallableTest(absltest.TestCase):
  @needs("trl")
  def test_trl_trains_on_what_the_model_gives(self):
    in_runs(self)
    recorded = Recorded(self)
    trainer = run_block("TRL")["trainer"]
    self.assertLen(recorded.calls, 4)  # two outputs, two steps
    for name, prompts, completions, rewards in recorded.calls:
      column = model_test.NAMES.index(name)
      np.testing.assert_allclose(
        rewards, by_source(prompts, completions)[:, column], atol=2e-5
      )
    logged = trainer.state.log_history
    for step in range(2):
      for k, name in enumerate(model_test.NAMES):
        _, _, _, rewards = recorded.calls[2 * step + k]
        self.assertAlmostEqual(
          logged[step][f"rewards/{name}/mean"], np.mean(rewards), places=4
        )
    self.assertGreater(np.ptp(recorded.calls[0][3]), 1e-3)

  @needs("trl")
  def test_trl_hands_over_turns_and_columns(self):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    in_runs(self)
    recorded = Recorded(self)
    seen = []

    def right(prompts, completions, answer):
      seen.append(answer)
      return [
        float(word in said[0]["content"])
        for word, said in zip(answer, completions, strict=True)
      ]

    functions = trainer_functions.reward_functions(model_test.open_source())
    functions += trainer_functions.reward_functions(
      FunctionSource(right, names=("right",))
    )
    prompts = [[{"role": "user", "content": text}] for text in ("Why", "How")]
    table = {"prompt": prompts, "answer": ["a", "b"]}
    trainer = GRPOTrainer(
      model="runs/sft/model",
      reward_funcs=functions,
      args=GRPOConfig(
        output_dir="runs/trl",
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=8,
        max_steps=1,
        report_to="none",
        use_cpu=True,
      ),
      train_dataset=Dataset.from_dict(table),
    )
    trainer.train()
    name, asked, said, rewards = recorded.calls[0]
    self.assertEqual(name, "warm")
    self.assertIsInstance(said[0], list)
    wanted = by_source(
      [tuple(Turn(**turn) for turn in prompt) for prompt in asked],
      [turns[0]["content"] for turns in said],
    )
    np.testing.assert_allclose(rewards, wanted[:, 0], atol=2e-5)
    self.assertCountEqual(seen[0], ["a", "a", "b", "b"])

  @needs("tunix")
  def test_tunix_adds_up_what_the_model_gives(self):
    in_runs(self)
    names = run_block("tunix")
    wanted = by_source(["Q: a\nA:", "Q: b\nA:"], [" yes", " no"])
    np.testing.assert_allclose(
      names["found"]["rewards"], wanted.sum(1), atol=2e-5
    )
    logged = names["found"]["log_metrics"]
    for k, name in enumerate(model_test.NAMES):
      np.testing.assert_allclose(
        logged[f"rewards/{name}"][0], wanted[:, k], atol=2e-5
      )


class ServedTest(absltest.TestCase):
  prompts = ("Q: a\nA:", "Q: bb\nA:")
  responses = (" yes", " yes yes")

  def wanted(self) -> np.ndarray:
    return by_source(self.prompts, self.responses)

  @needs("openrlhf")
  def test_openrlhf_gets_the_reward_of_each_query(self):
    agent = unmodified(
      "openrlhf",
      "utils/agent.py",
      openrlhf=mock.MagicMock(),
      openrlhf__utils=mock.MagicMock(),
      openrlhf__utils__logging_utils=types.SimpleNamespace(
        init_logger=logging.getLogger
      ),
    )
    tokenizer = tokenizer_files.load_tokenizer(model_test.folder()).fast
    rows = []
    with serve_test.serving(
      model_test.open_source(), output="brief", **ROOM
    ) as url:
      executor = agent.SingleTurnAgentExecutor(f"{url}/get_reward")
      for prompt, response in zip(self.prompts, self.responses, strict=True):
        rows.append(
          asyncio.run(
            executor.execute(
              prompt,
              "label",
              types.SimpleNamespace(max_tokens=32, logprobs=None),
              64,
              _as_tensors(tokenizer),
              _Engine(tokenizer, response),
            )
          )
        )
    wanted = self.wanted()
    for k, row in enumerate(rows):
      np.testing.assert_allclose(row["reward"], wanted[k, 1:], atol=2e-5)
      np.testing.assert_allclose(row["scores"], wanted[k, 1:], atol=2e-5)
      np.testing.assert_allclose(
        row["extra_logs"]["reward_warm"], wanted[k, :1], atol=2e-5
      )

  @needs("verl")
  def test_verl_gets_it_by_the_function_of_the_page(self):
    verl = {
      "verl": mock.MagicMock(),
      "verl__experimental": mock.MagicMock(),
      "verl__experimental__reward_loop": mock.MagicMock(),
      "verl__experimental__reward_loop__reward_manager": types.SimpleNamespace(
        register=lambda name: lambda manager: manager
      ),
      "verl__experimental__reward_loop__reward_manager__base": (
        types.SimpleNamespace(RewardManagerBase=_Manager)
      ),
      "verl__utils": mock.MagicMock(),
      "verl__utils__reward_score": mock.MagicMock(),
    }
    naive = unmodified(
      "verl", "experimental/reward_loop/reward_manager/naive.py", **verl
    )
    tokenizer = tokenizer_files.load_tokenizer(model_test.folder()).fast
    found = []
    with (
      serve_test.serving(model_test.open_source(), **ROOM) as url,
      mock.patch.dict(os.environ, REWARD_URL=f"{url}/v1"),
    ):
      score = run_block("verl")["compute_score"]
      for prompt, response in zip(self.prompts, self.responses, strict=True):
        row = _Row(tokenizer, prompt, response)

        async def asked(row=row):
          manager = naive.NaiveRewardManager(None, tokenizer, score)
          return await manager.run_single(row)

        found.append(asyncio.run(asked()))
    wanted = self.wanted()
    for k, row in enumerate(found):
      self.assertAlmostEqual(row["reward_score"], wanted[k, 0], places=4)
      info = row["reward_extra_info"]
      self.assertAlmostEqual(info["brief"], wanted[k, 1], places=4)

  @needs("verl")
  def test_verl_reads_what_vllm_and_sglang_would_answer(self):
    loop = unmodified(
      "verl",
      "experimental/reward_loop/reward_loop.py",
      **{
        name: mock.MagicMock()
        for name in (
          "ray ray__actor omegaconf tensordict verl verl__protocol "
          "verl__single_controller verl__single_controller__ray "
          "verl__single_controller__ray__base verl__trainer verl__trainer__ppo "
          "verl__trainer__ppo__reward verl__utils verl__utils__fs "
          "verl__utils__ray_utils verl__experimental__reward_loop__reward_model"
        ).split()
      },
    )
    tokenizer = tokenizer_files.load_tokenizer(model_test.folder()).fast
    turns = [
      [{"role": "user", "content": "Why?"}],
      [{"role": "user", "content": "How?"}],
    ]
    rewards = {}
    with serve_test.serving(
      model_test.open_source(), output="warm", **ROOM
    ) as url:
      for engine in ("vllm", "sglang"):
        worker = loop.RewardLoopWorker.__new__(loop.RewardLoopWorker)
        worker.config = _Config(engine)
        worker.reward_router_address = url.removeprefix("http://")
        worker.input_tokenizer = worker.reward_model_tokenizer = tokenizer
        rewards[engine] = [
          asyncio.run(
            worker.compute_score_disrm(_Row(tokenizer, prompt, response))
          )["reward_score"]
          for prompt, response in zip(turns, self.responses, strict=True)
        ]
    wanted = by_source(
      [(Turn(**prompt[0]),) for prompt in turns], self.responses
    )
    for found in rewards.values():
      np.testing.assert_allclose(found, wanted[:, 0], atol=2e-5)


def _as_tensors(tokenizer):
  """A tokenizer whose ids have a first axis and `tolist`, as torch's do."""

  def call(text, **options):
    del options
    return {"input_ids": np.array([_ids(tokenizer, text)])}

  call = mock.MagicMock(side_effect=call)
  call.decode = tokenizer.decode
  return call


def _ids(tokenizer, text: str) -> list[int]:
  return tokenizer(text, add_special_tokens=False)["input_ids"]


class _Engine:
  """Says one response, ended."""

  def __init__(self, tokenizer, response):
    self._ids = [*_ids(tokenizer, response), tokenizer.eos_token_id]

  async def generate(self, ids, params, **options):
    del ids, params, options
    output = types.SimpleNamespace(
      token_ids=self._ids, finish_reason="stop", logprobs=None
    )
    return types.SimpleNamespace(outputs=[output])


class _Manager:
  """What verl's base class of reward managers sets."""

  def __init__(self, config, tokenizer, compute_score):
    del config, compute_score
    self.tokenizer = tokenizer
    self.loop = asyncio.get_running_loop()


class _Row:
  """One row of verl's data, and a batch of it."""

  def __init__(self, tokenizer, prompt, response):
    ids = np.array([*_ids(tokenizer, response), tokenizer.eos_token_id, 0])
    self.batch = {
      "responses": ids,
      "attention_mask": np.array([1] * (len(ids) - 1) + [0]),
    }
    self.non_tensor_batch = {
      "data_source": "x",
      "reward_model": {"ground_truth": None},
      "extra_info": {"prompt": prompt},
      "raw_prompt": prompt,
    }

  def __getitem__(self, index):
    return self

  def __len__(self):
    return 1


def _Config(engine):
  model = types.SimpleNamespace(
    rollout=types.SimpleNamespace(name=engine), model_path="runs/rm/model"
  )
  return types.SimpleNamespace(reward=types.SimpleNamespace(reward_model=model))


if __name__ == "__main__":
  absltest.main()
