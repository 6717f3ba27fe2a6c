"""Real prompts, a pretrained policy and a function as its reward."""

import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.synthetic import text_rewards
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import train_policy
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import sampling
from jaxalign.models.hf import config_map
from tests import shipped
from tests.data import real_data


def stories_config(variant: str):
  return shipped.config("policy_maxmin_stories", variant)


class EndsTest(absltest.TestCase):
  def ends(self, *ids: int) -> tuple[int, ...]:
    tokenizer = dataclasses.replace(
      tokenizer_files.byte_tokenizer(), end_ids=(7,)
    )
    network = config_map.scratch_config(
      "llama",
      vocab_size=259,
      num_layers=1,
      num_heads=1,
      embed_dim=2,
      mlp_dim=2,
      eos_id=(258, 9),
    )
    return sampling.ends_of(ids, tokenizer, network)

  def test_the_ends_of_all_files_and_of_the_config(self):
    self.assertEqual(self.ends(), (258, 7, 9))
    self.assertEqual(self.ends(46, 33), (258, 7, 9, 46, 33))
    self.assertEqual(self.ends(258, 46), (258, 7, 9, 46))

  def test_a_token_that_is_not_there_is_named(self):
    for token in (-1, 259):
      with self.assertRaisesRegex(
        ValueError, rf"end_ids must be in \[0, 259\), got {token}"
      ):
        self.ends(token)


class StoriesTest(absltest.TestCase):
  def test_sentences_end_and_are_judged(self):
    real_data.folder("stories260k_lm")
    cfg = stories_config("smoke")
    cfg.train.num_iterations = 1
    config = configuration.to_dataclass(train_policy.Config, cfg)
    seen = []
    original = text_rewards.sentiment_and_conciseness

    def recorded(prompts, responses):
      seen.extend(zip(prompts, responses, strict=True))
      return original(prompts, responses)

    text_rewards.sentiment_and_conciseness = recorded
    try:
      workdir = epath.Path(tempfile.mkdtemp())
      train_policy.run(config, workdir)
    finally:
      text_rewards.sentiment_and_conciseness = original
    scores = json.loads((workdir / "eval.json").read_text())
    self.assertGreater(scores["eval/ended"], 0)
    self.assertLess(scores["eval/response_tokens"], 24)
    # Nothing goes on behind the end of a sentence.
    for prompt, response in seen:
      self.assertNotIn(prompt, response)
      self.assertEmpty(set(".!?") & set(response.rstrip()[:-1]))
    last = [response for _, response in seen[-8:]]
    expected = original([], last).mean(axis=0)
    np.testing.assert_allclose(
      [scores["eval/utility/sentiment"], scores["eval/utility/conciseness"]],
      expected,
      atol=1e-5,
    )


if __name__ == "__main__":
  absltest.main()
