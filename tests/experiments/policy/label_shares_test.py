"""Shares of labels over prompts, with their intervals."""

import numpy as np
from absl.testing import absltest

from jaxalign.experiments.policy import label_shares
from jaxalign.experiments.reports import label_shares as report
from jaxalign.runtime.reward_sources.labels import Labels

LABELS = Labels(("good", "fair", "bad"), (1.0, 0.0, -2.0))


def shares(number=60, seed=0):
  return np.random.default_rng(seed).dirichlet(np.ones(3), size=number)


class LabelSharesTest(absltest.TestCase):
  def test_answers_to_a_prompt_are_one_row(self):
    probs = shares(6).astype(np.float32)
    got = label_shares.by_prompt(probs.reshape(3, 2, 3), 3)
    np.testing.assert_allclose(got, (probs[::2] + probs[1::2]) / 2, rtol=1e-6)

  def test_means_intervals_and_worth(self):
    rows = shares()
    found = label_shares.summarise(rows, LABELS)
    worth = rows @ np.array(LABELS.values)
    self.assertEqual(found["names"], ["good", "fair", "bad"])
    self.assertEqual(found["num_prompts"], 60)
    for k, row in enumerate([*found["shares"], found["worth"]]):
      column = worth if k == 3 else rows[:, k]
      self.assertAlmostEqual(row["value"], column.mean())
      self.assertAlmostEqual(row["std"], column.std())
      # A normal interval over prompts, up to the noise of resampling.
      half = 1.96 * column.std() / np.sqrt(60)
      self.assertAlmostEqual(row["low"], column.mean() - half, delta=0.2 * half)
      self.assertAlmostEqual(
        row["high"], column.mean() + half, delta=0.2 * half
      )
    self.assertEqual(found, label_shares.summarise(rows, LABELS))

  def test_intervals_over_people_are_wider_where_people_repeat(self):
    rows = np.repeat(shares(12), 5, axis=0)
    people = np.repeat(np.arange(12), 5)
    wide = label_shares.summarise(rows, LABELS, people=people)
    thin = label_shares.summarise(rows, LABELS)
    for a, b in zip(wide["shares"], thin["shares"], strict=True):
      self.assertAlmostEqual(a["value"], b["value"])
      self.assertGreater(a["high"] - a["low"], 1.6 * (b["high"] - b["low"]))

  def test_in_words(self):
    found = label_shares.summarise(np.tile([[0.5, 0.25, 0.25]], (4, 1)), LABELS)
    self.assertEqual(
      label_shares.in_words(found),
      "labels over 4 prompts: good 50.0 % [50.0, 50.0]; fair 25.0 % "
      "[25.0, 25.0]; bad 25.0 % [25.0, 25.0]",
    )


class SectionTest(absltest.TestCase):
  def test_a_row_per_label_and_nothing_without_labels(self):
    one = label_shares.summarise(shares(), LABELS)
    (table,) = report.section("T", {"start": one, "end": one}, "people")
    self.assertEqual(table.columns, ["label", "start", "end"])
    self.assertEqual(
      [row[0] for row in table.rows], ["good", "fair", "bad", "worth"]
    )
    share = one["shares"][0]
    self.assertStartsWith(table.rows[0][1], f"{100 * share['value']:.1f} % [")
    self.assertEndsWith(table.rows[0][1], f"± {100 * share['std']:.1f}")
    self.assertIn("intervals over people", table.note)
    self.assertEqual(report.section("T", {"start": None}, "prompts"), [])


if __name__ == "__main__":
  absltest.main()
