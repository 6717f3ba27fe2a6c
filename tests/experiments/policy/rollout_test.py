"""What a source is shown, and what an iteration logs."""

import dataclasses
import tempfile
import types

import jax
import numpy as np
from absl.testing import absltest

from jaxalign.data.batching import prompt_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.policy import rollout as rollouts
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.reward_sources import labels as label_shares
from tests.data.tokenization import tokenizer_files_test
from tests.runtime.reward_sources import labels_test


class RolloutsTest(absltest.TestCase):
  def test_a_response_is_the_text_that_follows_its_prompt(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    tokenizer_files_test.llama(folder)
    tokenizer = tokenizer_files.load_tokenizer(folder)
    asked, answers = "there was", [" a little girl.", "?"]
    dataset = prompt_dataset.encode_prompts(
      [Record(asked, ())], tokenizer, max_length=9, group_names=()
    )
    dataset = dataclasses.replace(dataset, columns={"answer": ["girl"]})
    before = dataset.sequences[0].tolist()
    after = [
      tokenizer.encode(asked + text)[len(before) - 1 :] for text in answers
    ]
    new = max(map(len, after)) + 1
    ids = np.zeros((1, 2, 9 + new), np.int32)
    mask = np.zeros(ids.shape, bool)
    for row, answer in enumerate(after):
      line = slice(9 - len(before), 9 + len(answer))
      ids[0, row, line], mask[0, row, line] = before + answer, True
    sampled = {
      "tokens": ids,
      "mask": mask,
      "sampler_log_probs": np.zeros((1, 2, new), np.float32),
    }
    rows = meshes.batch_sharding(meshes.make_mesh(meshes.MeshConfig(1, 1, 1)))
    stage = types.SimpleNamespace(
      prompts={"where": types.SimpleNamespace(sharding=rows)},
      sample=lambda *given: jax.device_put(sampled),
      batch={},
    )
    batch = {
      **dataset.collate(np.array([0]), 9, 0),
      "where": np.ones(1, bool),
      "row": np.zeros(1, np.int32),
      "index": np.zeros(1, np.int32),
    }
    seen = []

    def source(questions, texts, columns):
      self.assertEqual(columns, {"answer": ["girl", "girl"]})
      seen.extend(zip(questions, texts, strict=True))
      return np.zeros((len(texts), 1), np.float32)

    rollout = rollouts.make_rollout(stage, dataset, tokenizer, source)
    found = rollout(None, None, batch, jax.random.key(0))
    self.assertEqual(seen, [(asked, text) for text in answers])
    self.assertEqual(found.num_tokens, sum(map(len, after)))
    self.assertEqual(found.columns, {"answer": ["girl", "girl"]})

  def test_what_labels_are_worth_beyond_the_reward(self):
    source = labels_test.labelled()
    found = label_shares.score(source, ["p"] * 4, ["", "a", "aa", "aaaa"])
    got = rollouts.label_outcomes(source, found, (2, 2))
    shares = np.array([0, 0.25, 0.5, 1.0]).reshape(2, 2)
    np.testing.assert_array_equal(got["label_probs"][..., 0], shares)
    worth = 2 * shares - 1
    np.testing.assert_array_equal(got["label_gaps"][..., 0], 1 - worth)
    np.testing.assert_array_equal(got["label_gaps"][..., 1], -1 - worth)
    self.assertEqual({x.dtype for x in got.values()}, {np.dtype(np.float32)})

  def test_a_critic_of_labels_wants_their_mean_as_the_reward(self):
    source = labels_test.labelled()
    found = label_shares.score(source, ["p"], ["aa"])
    risky = found._replace(rewards=found.rewards - 0.1)
    with self.assertRaisesRegex(ValueError, "one is 0.1 off: source.risk must"):
      rollouts.label_outcomes(source, risky, (1, 1))
    plain = labels_test.plain()
    with self.assertRaisesRegex(ValueError, "predicts no labels"):
      rollouts.label_outcomes(
        plain, label_shares.score(plain, ["p"], ["aa"]), (1, 1)
      )

  def test_a_kl_that_is_none_is_left_out(self):
    logged = {"train/kl/a": 1.0, "train/kl/b": float("nan"), "train/kl": 2.0}
    self.assertEqual(
      rollouts.measured(3, logged), (3, {"train/kl/a": 1.0, "train/kl": 2.0})
    )

  def test_what_went_wrong_is_kept(self):
    _, kept = rollouts.measured(1, {"train/kl": float("nan")})
    self.assertIn("train/kl", kept)


if __name__ == "__main__":
  absltest.main()
