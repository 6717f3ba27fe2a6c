"""GDPO against the programs of TRL and verl, which its authors name.

Both are the authors' formula: each reward in deviations of its prompt's
responses, a weighted sum, then mean 0 and deviation 1 over the batch. They
differ in what is added to a deviation (1e-4 and 1e-6), and verl whitens over
tokens, which are as many in each response here.
"""

import tempfile
import warnings
from unittest import mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.algorithms import ppo_batch
from tests import trainers_test
from tests.experiments import sample_test

WEIGHTS = (0.7, 0.3)


def ours(scores) -> np.ndarray:
  """Of rewards [R, G, K], in deviations by N, [R, G]."""
  scores = np.asarray(scores, np.float32)
  found = ppo_batch.decoupled_relative(
    jnp.asarray(scores),
    jnp.zeros(scores.shape[:2], np.float32),
    jnp.asarray(WEIGHTS, np.float32),
    where=jnp.ones(len(scores), bool),
  )
  return np.asarray(found)


class VerlTest(absltest.TestCase):
  @trainers_test.needs("verl")
  def test_advantages_of_its_estimator(self):
    import torch

    bare = mock.MagicMock
    numbers = trainers_test.unmodified(
      "verl",
      "utils/torch_functional.py",
      tensordict=bare(),
      verl__utils__device=bare(),
    )
    core = trainers_test.unmodified(
      "verl",
      "trainer/ppo/core_algos.py",
      omegaconf=bare(),
      verl=mock.MagicMock(**{"utils.torch_functional": numbers}),
      verl__utils=mock.MagicMock(torch_functional=numbers),
      verl__utils__torch_functional=numbers,
      verl__utils__import_utils=mock.MagicMock(
        deprecated=lambda *_: lambda f: f
      ),
      verl__trainer__config=bare(),
      verl__workers__config=bare(),
    )
    prompts, responses, length = 4, 3, 5
    scores = np.random.default_rng(0).normal(size=(prompts, responses, 2))
    scores[..., 1] *= 50.0
    rows = prompts * responses
    flat = scores.reshape(rows, 2)
    ones = torch.ones(rows, length)
    found, _ = core.compute_gdpo_outcome_advantage(
      torch.zeros(rows, length),
      ones,
      np.repeat(np.arange(prompts), responses),
      config={
        "gdpo_reward_keys": ["one", "two"],
        "gdpo_reward_weights": list(WEIGHTS),
      },
      non_tensor_batch={"one": flat[:, 0], "two": flat[:, 1]},
      batch={
        "prompts": torch.zeros(rows, 2),
        "attention_mask": torch.ones(rows, 2 + length, dtype=torch.long),
      },
    )
    found = found.numpy()
    np.testing.assert_allclose(found[:, 0], found[:, -1], rtol=1e-6)
    tokens = rows * length  # over which its variance is that of a sample
    np.testing.assert_allclose(
      found[:, 0].reshape(prompts, responses),
      ours(scores) * np.sqrt((tokens - 1) / tokens),
      rtol=2e-5,
      atol=1e-6,
    )


class TrlTest(absltest.TestCase):
  @trainers_test.needs("trl")
  def test_advantages_that_its_trainer_logs(self):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    self.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(1)
    seen = []

    def one(completions, **columns):
      del columns
      seen.append(rng.normal(size=(len(completions), 2)))
      return seen[-1][:, 0].tolist()

    def two(completions, **columns):
      del columns
      return (50.0 * seen[-1][:, 1]).tolist()

    trainer = GRPOTrainer(
      model=sample_test.policy(),
      reward_funcs=[one, two],
      args=GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=6,
        num_generations=3,
        max_completion_length=4,
        max_steps=1,
        reward_weights=list(WEIGHTS),
        multi_objective_aggregation="normalize_then_sum",
        report_to="none",
        use_cpu=True,
        bf16=False,
      ),
      train_dataset=Dataset.from_dict({"prompt": ["Why?", "How?"]}),
    )
    trainer.train()
    found = np.array(list(trainer._logs["advantages"])[:6]).reshape(2, 3)
    scores = (seen[0] * [1.0, 50.0]).reshape(2, 3, 2)
    np.testing.assert_allclose(
      found, ours(scores) * np.sqrt(5 / 6), rtol=2e-3, atol=1e-4
    )
    self.assertGreater(np.abs(found).max(), 0.5)


if __name__ == "__main__":
  absltest.main()
