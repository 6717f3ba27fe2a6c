"""Scores by part, annotator and model against NumPy, and their page."""

import json

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import pair_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.reports import reward_model
from jaxalign.experiments.reward_model import group_metrics as breakdown
from jaxalign.runtime.plots import html_report

N = 60


def dataset(groups_are_sources: bool) -> pair_dataset.PairDataset:
  """Two sources, three groups or the sources again, ten annotators and one."""
  records = [
    Record(
      prompt="Q:",
      responses=(" a", " b"),
      source="even" if i % 2 == 0 else "odd",
      group=f"g{i % 2}" if groups_are_sources else f"g{i % 3}",
      annotator=f"p{i % 10}" if i < N - 1 else "once",
    )
    for i in range(N)
  ]
  return pair_dataset.encode_pairs(
    records, tokenizer_files.byte_tokenizer(), max_length=16
  )


class BreakdownTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.rewards = rng.normal(size=(N, 2, 1)).astype(np.float32)
    self.gaps = self.rewards[:, 0, 0] - self.rewards[:, 1, 0]

  def test_parts(self):
    parts = breakdown.parts_of(dataset(groups_are_sources=False))
    self.assertEqual({*parts}, {"source", "group", "annotator"})
    np.testing.assert_array_equal(parts["group"]["g1"], np.arange(1, N, 3))
    self.assertLen(parts["annotator"], 10)  # not the one with a single pair

  def test_groups_that_are_the_sources_are_not_told_twice(self):
    parts = breakdown.parts_of(dataset(groups_are_sources=True))
    self.assertEqual({*parts}, {"source", "annotator"})

  def test_a_model(self):
    data = dataset(groups_are_sources=False)
    found = breakdown.of_models({"m": self.rewards}, data)
    self.assertIsNone(found["agreement"])
    scores = found["models"]["m"]
    right = self.gaps > 0
    for k in range(3):
      self.assertAlmostEqual(
        scores["accuracy"]["group"][f"g{k}"], right[k::3].mean(), places=6
      )
    worst = min(range(3), key=lambda k: right[k::3].mean())
    self.assertEqual(scores["worst"]["group"]["name"], f"g{worst}")
    people = [right[: N - 1][k::10].mean() for k in range(10)]
    self.assertEqual(scores["annotators"]["number"], 10)
    self.assertAlmostEqual(
      scores["annotators"]["quantiles"]["0.05"],
      np.quantile(people, 0.05),
      places=6,
    )
    self.assertEqual({*scores["calibration"]}, {"5", "10", "20"})
    for errors in scores["calibration"].values():
      self.assertLessEqual(errors["ece"], errors["mce"] + 1e-6)
    self.assertEqual(scores["gaps"]["right"]["count"], right.sum())
    self.assertEqual(scores["gaps"]["wrong"]["count"], (self.gaps < 0).sum())

  def test_outliers_lie_beyond_the_whisker(self):
    gaps = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 50.0, 70.0])
    found = breakdown.outliers(gaps)
    self.assertEqual((found["outlier_count"], found["outlier_mean"]), (1, 70.0))
    self.assertEqual(breakdown.outliers(gaps[:0])["mean"], None)

  def test_models_of_one_mind_and_of_two(self):
    same, other = self.rewards, -self.rewards
    found = breakdown.agreement(
      {"a": same[..., 0], "b": same[..., 0] + 3, "c": other[..., 0]}
    )
    np.testing.assert_allclose(found["diversity"][0][1], 0.0, atol=1e-6)
    expected = np.abs(np.tanh(self.gaps / 2)).mean()
    np.testing.assert_allclose(found["diversity"][0][2], expected, rtol=1e-5)
    self.assertEqual(found["same_side"][0], [1.0, 1.0, 0.0])
    self.assertAlmostEqual(found["drift"][0], found["drift"][1], places=5)
    self.assertGreater(found["drift"][2], found["drift"][0])

  @parameterized.parameters(("one",), ("one", "two"))
  def test_the_page_shows_it(self, *names):
    data = dataset(groups_are_sources=False)
    found = breakdown.of_models({name: self.rewards for name in names}, data)
    found = json.loads(json.dumps(found))  # as eval.json gives it back
    sections = reward_model.by_group(found)
    titles = [s.title for s in sections if isinstance(s, html_report.Table)]
    self.assertContainsSubset(
      [
        "Accuracy by group",
        "Accuracy by annotator",
        "Calibration errors of three kinds and bin counts",
        "Reward gaps and their outliers",
      ],
      titles,
    )
    self.assertEqual("Agreement and drift" in titles, len(names) > 1)


if __name__ == "__main__":
  absltest.main()
