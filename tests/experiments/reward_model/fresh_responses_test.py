"""Fresh responses beside pairs: what is read, refused and where rows go."""

import json
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.algorithms import metarm
from jaxalign.data.batching import sharded_tokens
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import train_reward
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import fresh_responses
from jaxalign.runtime.distributed import multihost
from tests.experiments.train_reward_test import smoke_config

TOKENIZER = tokenizer_files.byte_tokenizer()


def written(*numbers: int) -> str:
  """A file of records with so many responses each."""
  path = epath.Path(tempfile.mkdtemp()) / "responses.jsonl"
  path.write_text(
    "\n".join(
      json.dumps(
        {"prompt": f"q{i}", "responses": [f" {i}-{j}" for j in range(number)]}
      )
      for i, number in enumerate(numbers)
    )
  )
  return str(path)


def recipe(*files: str, **changes) -> metarm.MetaRmConfig:
  return metarm.MetaRmConfig(
    **dict(name="metarm", files=files, num_prompts=4, num_responses=3) | changes
  )


def joined(config, **changes):
  data = smoke_config(**changes).data
  found = preferences.load_pairs(data, data.train_files, TOKENIZER)
  pairs = preferences.make_batches(
    data, found, TOKENIZER, 8, seed=0, shuffle=True
  )
  return fresh_responses.join(config, pairs, data, TOKENIZER, 0), pairs


class FreshResponsesTest(parameterized.TestCase):
  def test_the_first_responses_of_each_record_lie_beside_the_pairs(self):
    both, pairs = joined(recipe(written(*[4] * 9)))
    self.assertLen(both, len(pairs))
    batch = both[3]
    for name, array in pairs[3].items():
      np.testing.assert_array_equal(batch[name], array)
    seen = set()
    for row, mask in zip(batch["meta_tokens"], batch["meta_mask"], strict=True):
      texts = [TOKENIZER.decode(r[m]) for r, m in zip(row, mask, strict=True)]
      i = texts[0][1]
      self.assertEqual(texts, [f"q{i} {i}-{j}" for j in range(3)])
      seen.add(i)
    self.assertLen(seen, 4)
    again = joined(recipe(written(*[4] * 9)))[0][3]
    np.testing.assert_array_equal(again["meta_tokens"], batch["meta_tokens"])

  def test_responses_that_stay_in_their_file_are_the_same(self):
    config = recipe(written(*[4] * 9))
    batch, streamed = (
      joined(config, data__streaming=streaming)[0][3]
      for streaming in (False, True)
    )
    for name, array in batch.items():
      np.testing.assert_array_equal(streamed[name], array, name)

  @parameterized.parameters(" so it is", "")
  def test_a_prompt_whose_answers_are_equal_stays(self, answer):
    path = written(*[3] * 3)
    collapsed = {"prompt": "q9", "responses": [answer] * 3}
    with epath.Path(path).open("a") as file:
      file.write("\n" + json.dumps(collapsed))
    batch = joined(recipe(path))[0][0]
    texts = [
      TOKENIZER.decode(ids[mask])
      for row, where in zip(
        batch["meta_tokens"], batch["meta_mask"], strict=True
      )
      for ids, mask in zip(row, where, strict=True)
    ]
    self.assertEqual(texts.count(f"q9{answer}"), 3)

  def test_hosts_share_the_work(self):
    processes = sharded_tokens.Processes(0, 1, np.asarray)
    with (
      mock.patch.object(multihost, "sharing", return_value=processes),
      mock.patch.object(
        sharded_tokens, "encode_some", wraps=sharded_tokens.encode_some
      ) as run,
    ):
      joined(recipe(written(*[4] * 9)))
    # The pairs, and the responses beside them.
    self.assertEqual([call.args[3] for call in run.call_args_list],
                     [processes, processes])  # fmt: skip

  def test_shapes_are_those_of_a_batch_in_the_largest_bucket(self):
    config = recipe("synthetic:two_groups:test_candidates", num_responses=5)
    batch = joined(config, data__buckets=(128,))[0][0]
    for name, spec in fresh_responses.shapes(config, 128).items():
      self.assertEqual(
        (batch[name].shape, batch[name].dtype), (spec.shape, spec.dtype)
      )

  @parameterized.parameters(
    ((3, 3, 2, 3), "jsonl:3: 2 responses, recipe.num_responses is 3"),
    ((3, 3, 3), "recipe.files holds 3 records, recipe.num_prompts is 4"),
  )
  def test_too_few_are_refused(self, numbers, message):
    with self.assertRaisesRegex(ValueError, message):
      joined(recipe(written(*numbers)))

  def test_prompts_that_do_not_fit_the_devices_are_refused_before_reading(self):
    config = smoke_config(
      recipe=dict(name="metarm", files=("none.jsonl",), num_prompts=3),
      train__accumulation=2,
    )
    with self.assertRaisesRegex(
      ValueError, "rows of meta_tokens: batch_size must be divisible.*got 3"
    ):
      train_reward.run(config, epath.Path(tempfile.mkdtemp()), profile=False)


if __name__ == "__main__":
  absltest.main()
