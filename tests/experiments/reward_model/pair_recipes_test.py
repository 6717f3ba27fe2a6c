"""Strengths of records become labels and margins of the training pairs."""

import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, denoised
from jaxalign.data.records import reader
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reports import denoise_numbers
from jaxalign.experiments.reward_model import pair_recipes
from tests.experiments.train_reward_test import smoke_config
from tests.losses import denoise_test


def denoising(policy, labels="hard", **changes):
  """The `loss` section with a policy."""
  return bradley_terry.PairLossConfig(
    labels, 0.0, None, 0.0, denoised.DenoiseConfig(policy, **changes)
  )


def strong_crowd(
  number: int = 200, *, drop: tuple[int, ...] = (), prob: float | None = None
) -> str:
  """A file of the crowd's records with a strength each.

  Args:
    number: records.
    drop: records left without one.
    prob: soft label of every other pair, None to leave them hard.

  Returns:
    Its path.
  """
  records, _ = reader.read_records(["synthetic:two_groups:train"])
  path = pathlib.Path(tempfile.mkdtemp()) / "strong.jsonl"
  lines = []
  for i, record in enumerate(records[:number]):
    row = record.to_row()
    if i not in drop:
      row["strength"] = (len(row["responses"][0]) % 11 - 3) / 4
    if prob is not None and i % 2:
      row = {k: v for k, v in row.items() if "votes" not in k}
      row["chosen_prob"] = prob
    lines.append(json.dumps(row))
  path.write_text("\n".join(lines))
  return str(path)


class StrengthsTest(parameterized.TestCase):
  def pairs(self, **options):
    config = smoke_config(
      data__train_files=(strong_crowd(**options),), data__eval_files=()
    ).data
    self.tokenizer = preferences.open_tokenizer(config, None)
    return config, preferences.load_splits(config, self.tokenizer)[0]

  def test_flips_the_weakest_of_the_whole_set(self):
    data, pairs = self.pairs()
    config = denoising("flip_margin", fraction=0.2)
    made, rows = pair_recipes.with_targets(config, data, pairs)
    self.assertIsNone(rows)
    flipped = np.flatnonzero(made.dataset.chosen_prob == 0)
    self.assertLen(flipped, 40)
    rest = np.delete(pairs.dataset.strength, flipped)
    self.assertLessEqual(pairs.dataset.strength[flipped].max(), rest.min())
    np.testing.assert_array_equal(made.dataset.margin, pairs.dataset.strength)
    self.assertTrue(made.dataset.has_margin.all())
    self.assertTrue((pairs.dataset.chosen_prob == 1).all())

  def test_labels_begin_as_votes_where_the_loss_says_so(self):
    data, pairs = self.pairs()
    pairs.dataset.chosen_prob[:] = 0.75
    config = denoising("smooth")
    weak = pairs.dataset.strength < 0
    self.assertTrue(weak.any())
    made, _ = pair_recipes.with_targets(
      denoising("smooth", "votes"), data, pairs
    )
    np.testing.assert_allclose(
      made.dataset.chosen_prob, np.where(weak, 0.65, 0.75), rtol=1e-6
    )
    made, _ = pair_recipes.with_targets(config, data, pairs)
    np.testing.assert_allclose(
      made.dataset.chosen_prob, np.where(weak, 0.8, 1.0), rtol=1e-6
    )

  def test_dropped_pairs_are_in_no_batch(self):
    config, pairs = self.pairs()
    policy = denoising("drop", fraction=0.5)
    made, rows = pair_recipes.with_targets(policy, config, pairs)
    self.assertLen(rows, 100)
    made.dataset.margin[:] = np.arange(200)  # to tell them apart
    found = preferences.make_batches(
      config, made, self.tokenizer, 10, seed=0, shuffle=True, rows=rows
    )
    seen = np.concatenate([batch["margin"] for batch in found])
    np.testing.assert_array_equal(np.sort(seen), rows)

  def test_a_pair_without_strength_is_named(self):
    data, pairs = self.pairs(drop=(17, 30))
    name = list(pairs.records)[17].id
    with self.assertRaisesRegex(
      ValueError,
      f"2 of 200 have none, the first is pair 17, id '{name}', of source "
      "'.*': the denoise stage writes",
    ):
      pair_recipes.with_targets(denoising("flip"), data, pairs)

  @parameterized.parameters((0.0, 1), (-0.5, 0))
  def test_strengths_that_are_no_gaps_are_doubted(self, lowest, warnings):
    data, pairs = self.pairs()
    pairs.dataset.strength[:] = np.linspace(lowest, 2, 200)
    config = denoising("margin")
    with self.assertLogs("jaxalign", "INFO") as logged:
      pair_recipes.with_targets(config, data, pairs)
    doubts = [line for line in logged.output if "below 0" in line]
    self.assertLen(doubts, warnings)


class ReleasedDataTest(parameterized.TestCase):
  """A file in the shape of the report's own data, with its published means.

  Twenty groups of pairs have the mean strengths of the report's figure 2, of
  which a quarter lies below 0; scores of ten models come with each pair.
  """

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.scores = rng.normal(0, 0.3, (20, 10))
    self.scores += denoise_test.GROUPS[:, None] - self.scores.mean(1)[:, None]
    path = pathlib.Path(tempfile.mkdtemp()) / "valid.jsonl"
    rows = [
      {
        "chosen": [f"Human: Question {i}", f"Assistant: good {i}"],
        "rejected": [f"Human: Question {i}", f"Assistant: bad {i}"],
        "GPT4 label": 1 if i % 3 else -1,
        "mean preference difference": float(margins.mean()),
        "std preference difference": float(margins.std()),
        "chosen score list": (margins + 2).tolist(),
        "rejected score list": [2.0] * 10,
      }
      for i, margins in enumerate(self.scores)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    config = smoke_config(
      data__train_files=(f"fnlp/hh-rlhf-strength-cleaned:{path}",),
      data__eval_files=(),
    ).data
    tokenizer = preferences.open_tokenizer(config, None)
    self.pairs = preferences.load_splits(config, tokenizer)[0]

  def test_columns_are_what_the_scores_say(self):
    rewards = np.stack([self.scores + 2, np.full((20, 10), 2.0)], axis=1)
    records = list(self.pairs.records)
    found = denoise_numbers.split_of(
      rewards.astype(np.float32), [r.judge_prob for r in records]
    )
    np.testing.assert_allclose(
      found.strength, [r.strength for r in records], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
      found.std, [r.strength_std for r in records], rtol=1e-4
    )
    result = denoise_numbers.summarise(found, 0.1)
    self.assertEqual(result["below_0"], 0.25)
    self.assertEqual(result["judge"]["judged"], 13)

  @parameterized.parameters(
    # policy, mean loss and share of pairs that clear their margin at gap 0
    ("drop", np.log(2), None),
    ("margin", 1.206, 0.25),
    ("flip_margin", 1.296, None),
  )
  def test_first_losses_of_the_report(self, policy, expected, cleared):
    config = denoising(policy)
    made, _ = pair_recipes.with_targets(config, None, self.pairs)
    data = made.dataset
    each = losses.soft_preference_loss(
      np.zeros(20, np.float32),
      np.zeros(20, np.float32),
      chosen_prob=data.chosen_prob,
      margin=data.margin,
    )
    self.assertAlmostEqual(float(each.mean()), expected, 3)
    if cleared is not None:
      self.assertEqual((data.margin < 0).mean(), cleared)


if __name__ == "__main__":
  absltest.main()
