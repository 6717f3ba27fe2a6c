"""Votes on labels become the shares that a model is taught."""

import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, dprm
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import label_targets, recipes
from tests.experiments.datasets.preferences_test import data

PAIR = {"prompt": "Q", "chosen": "a", "rejected": "b"}
THREE = dprm.LabelsConfig(
  ("bad", "fair", "good"), utilities=(-1.0, 0.0, 1.0), penalties=None
)


def recipe(**changes) -> dprm.DprmConfig:
  settings = {"labels": THREE, "smoothing": 0.0, "prior_strength": 3.0}
  return dprm.DprmConfig("dprm", **settings | changes)


def file(*rows: dict) -> str:
  path = epath.Path(tempfile.mkdtemp()) / "mine.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return str(path)


def targets(settings, *rows, streaming=False) -> preferences.Pairs:
  config = data(streaming=streaming)
  pairs = preferences.load_pairs(
    config,
    (file(*rows),),
    tokenizer_files.byte_tokenizer(),
    change=recipes.make(settings, bradley_terry.PLAIN, None).change,
  )
  return label_targets.with_targets(settings, config, pairs)[0]


class LabelTargetsTest(parameterized.TestCase):
  def test_votes_are_added_to_the_prior(self):
    row = PAIR | {"label_votes": [[2, 0, 1], [0, 4, 0]]}
    got = targets(recipe(), row).dataset
    expected = [np.array([3, 1, 2]) / 6, np.array([1, 5, 1]) / 7]
    np.testing.assert_allclose(got.labels[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(got.labelled, [[True, True]])
    got = targets(recipe(prior=(1.0, 0.0, 0.0)), row).dataset
    np.testing.assert_allclose(got.labels[0, 0], [5 / 6, 0, 1 / 6], rtol=1e-6)
    own = row | {"label_prior": [[0, 0, 1], [0, 1, 0]]}
    got = targets(recipe(prior=(1.0, 0.0, 0.0)), own).dataset
    np.testing.assert_allclose(got.labels[0, 0], [2 / 6, 0, 4 / 6], rtol=1e-6)

  @parameterized.parameters(False, True)
  def test_a_response_without_a_partner_is_labelled_once(self, streaming):
    alone = {"prompt": "Q2", "responses": ["c"], "label_votes": [1, 1, 4]}
    later = {"prompt": "Q2", "responses": ["c"], "label_votes": [3, 0, 0]}
    pair = PAIR | {"label_votes": [[2, 0, 1], [0, 4, 0]]}
    settings = recipe(prior_strength=0.0, new_votes=(file(later),))
    got = targets(settings, alone, pair, streaming=streaming)
    np.testing.assert_array_equal(
      got.dataset.labelled, [[True, True], [True, True]]
    )
    settings = recipe(prior_strength=0.0)
    got = targets(settings, alone, pair, streaming=streaming)
    np.testing.assert_array_equal(
      got.dataset.labelled, [[True, False], [True, True]]
    )
    np.testing.assert_allclose(got.dataset.labels[0, 0], [1 / 6, 1 / 6, 2 / 3])
    np.testing.assert_array_equal(got.dataset.chosen_prob, [0.5, 1.0])
    self.assertEqual(got.report["unlabelled_responses"], 1)

  def test_labels_without_votes_stand(self):
    row = PAIR | {"labels": [[0.5, 0.5, 0.0], [0.0, 0.1, 0.9]]}
    for strength in (0.0, 3.0):
      got = targets(recipe(prior_strength=strength), row).dataset
      np.testing.assert_allclose(got.labels[0], row["labels"], rtol=1e-6)
    personas = row | {"label_prior": [[1, 0, 0], [1, 0, 0]]}
    got = targets(recipe(), personas).dataset
    np.testing.assert_allclose(got.labels[0], row["labels"], rtol=1e-6)

  @parameterized.parameters(1.0, 0.5)
  def test_new_votes_without_asking_again(self, decay):
    row = PAIR | {"label_votes": [[2, 0, 1], [0, 4, 0]]}
    other = {"prompt": "Q2", "chosen": "a", "rejected": "b"}
    other |= {"labels": [[1, 0, 0], [0, 0, 1]]}
    # In another order and pair; the second row repeats what the first says.
    later = [
      {"prompt": "Q", "chosen": "b", "rejected": "c"}
      | {"label_votes": [[0, 0, 6], [1, 0, 0]]},
      {"prompt": "Q", "chosen": "b", "rejected": "d"}
      | {"label_votes": [[0, 0, 6], [1, 0, 0]]},
      {"prompt": "Q2", "responses": ["b"], "label_votes": [3, 0, 0]},
    ]
    last = {"prompt": "Q", "responses": ["b"], "label_votes": [1, 0, 0]}
    settings = recipe(new_votes=(file(*later), file(last)), decay=decay)
    got = targets(settings, row, other).dataset.labels
    counts = np.array([[[3, 1, 2], [1, 5, 1]], [[3, 0, 0], [0, 0, 3]]], float)
    counts = decay * counts + [[[0] * 3, [0, 0, 6]], [[0] * 3, [3, 0, 0]]]
    counts = decay * counts + [[[0] * 3, [1, 0, 0]], [[0] * 3, [0] * 3]]
    expected = counts / counts.sum(-1, keepdims=True)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    # What the library says of the same counts, voted in one go.
    if decay == 1:
      np.testing.assert_allclose(
        got[0, 1],
        losses.label_posterior(
          np.full(3, 1 / 3, np.float32),
          np.array([1, 4, 6], np.float32),
          prior_strength=3.0,
        ),
        rtol=1e-6,
      )

  def test_certainty_is_capped_for_the_runner_up(self):
    row = PAIR | {"label_votes": [[97, 1, 0], [5, 4, 1]]}
    settings = recipe(prior=(0.0, 1 / 3, 2 / 3), smoothing=0.1)
    got = targets(settings, row).dataset.labels[0]
    # Two share the second place at 2 of 101; the prior prefers the last.
    expected = [0.9, 2 / 101, 0.1 - 2 / 101]
    np.testing.assert_allclose(got[0], expected, rtol=1e-5)
    np.testing.assert_allclose(got[1], np.array([5, 5, 3]) / 13, rtol=1e-6)

  def test_the_control_mixes_all_shares_with_equal_ones(self):
    row = PAIR | {"label_votes": [[97, 1, 0], [5, 4, 1]]}
    settings = recipe(smoothing=0.3, smoothing_kind="uniform")
    plain = targets(recipe(), row).dataset.labels
    got = targets(settings, row).dataset.labels
    np.testing.assert_allclose(got, 0.7 * plain + 0.1, rtol=1e-6)
    with self.assertRaisesRegex(ValueError, "smoothing_kind must be one of"):
      recipe(smoothing_kind="some")

  @parameterized.parameters(
    # Of 20 people who agree all but ε is what they said, and ε the runner-up.
    ({}, 0.9 * 1.0 + 0.1 * 0.5),
    # A prior of equal shares that is worth 5 votes is sure of 5 / 6 only.
    ({"prior_strength": 5.0}, (20 + 5 / 6 - 6 * 5 / 6) / 25),
  )
  def test_the_utility_of_a_unanimous_crowd(self, changes, expected):
    six = losses.helpful_harmless_label_set()
    row = PAIR | {"label_votes": [[20, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 20]]}
    shares = targets(dprm.DprmConfig("dprm", **changes), row).dataset.labels
    utility = losses.expected_utility(shares[0, 0], six.utilities)
    np.testing.assert_allclose(utility, expected, rtol=1e-5)

  def test_a_prior_that_weighs_nothing_is_told(self):
    row = PAIR | {"label_votes": [[2, 0, 1], [0, 4, 0]]}
    own = row | {"label_prior": [[0, 0, 1], [0, 1, 0]]}
    with self.assertNoLogs("jaxalign", "WARNING"):
      targets(recipe(), own)
      targets(recipe(prior_strength=0.0), row)
    with self.assertLogs("jaxalign", "WARNING") as logged:
      targets(recipe(prior_strength=0.0), own)
    self.assertRegex(logged.output[0], "of 1 record.*strength is 0")

  @parameterized.parameters(False, True)
  def test_what_has_no_labels_is_masked_and_counted(self, streaming):
    ranking = {"prompt": "Q", "responses": ["a", "b", "c"]}
    got = targets(
      recipe(),
      ranking | {"label_votes": [[1, 0, 0], [0, 2, 0], [0, 0, 3]]},
      PAIR,
      PAIR | {"label_votes": [1, 1, 1]},
      streaming=streaming,
    )
    np.testing.assert_array_equal(
      got.dataset.labelled,
      [[True, True]] * 3 + [[False, False], [True, False]],
    )
    np.testing.assert_array_equal(
      got.dataset.labels[:3].argmax(-1), [[0, 1], [0, 2], [1, 2]]
    )
    self.assertEqual(got.report["unlabelled_responses"], 3)
    batch = got.dataset.collate(np.array([4, 0]), 32, 0)
    np.testing.assert_array_equal(batch["labels"], got.dataset.labels[[4, 0]])
    np.testing.assert_array_equal(
      batch["labelled"], [[True, False], [True, True]]
    )

  def test_votes_on_pairs_are_no_labels(self):
    row = PAIR | {"votes_chosen": 3, "votes_rejected": 1}
    with self.assertRaisesRegex(
      ValueError, "'dprm' learns from label distributions.*3 labels, got 1 pair"
    ):
      targets(recipe(), row)

  def test_other_labels_are_named(self):
    row = PAIR | {"label_votes": [[1, 0], [0, 1]], "id": "x"}
    with self.assertRaisesRegex(
      ValueError, "mine.jsonl:1: label_votes must be over the 3 labels .* got 2"
    ):
      targets(recipe(), row)
    settings = recipe(new_votes=(file(PAIR),))
    good = PAIR | {"label_votes": [[1, 0, 0], [0, 1, 0]]}
    with self.assertRaisesRegex(ValueError, "new_votes: .* has no label_votes"):
      targets(settings, good)

  def test_a_dataset_without_labels_has_none(self):
    config = data()
    pairs = preferences.load_pairs(
      config, (file(PAIR),), tokenizer_files.byte_tokenizer()
    )
    batch = pairs.dataset.collate(np.array([0]), 32, 0)
    self.assertNotIn("labels", batch)
    self.assertIsNone(dataclasses.asdict(pairs.dataset)["labelled"])


if __name__ == "__main__":
  absltest.main()
