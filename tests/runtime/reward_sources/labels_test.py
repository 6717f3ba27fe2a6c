"""Sources that predict labels beside sources that do not."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.runtime.reward_sources import labels as label_shares
from jaxalign.runtime.reward_sources.base import (
  FunctionSource,
  JoinedSource,
  MeasuredSource,
)
from jaxalign.runtime.reward_sources.labels import Labels, Scored

LABELS = Labels(("good", "bad"), (1.0, -1.0))
PROMPTS, RESPONSES = ["p"] * 3, ["x", "yy", "zzzz"]


def share(prompts, responses):
  """The longer a response, the better it is called."""
  good = np.array([len(r) / 4 for r in responses])
  return np.stack([good, 1 - good], axis=1)


def worth(prompts, responses):
  return share(prompts, responses) @ [1.0, -1.0]


def plain():
  return FunctionSource(worth)


def labelled(**options):
  return FunctionSource(
    worth, labels=LABELS, label_function=share, origin="my:f", **options
  )


SHARES = [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]
REWARDS = [[-0.5], [0.0], [1.0]]


class ScoreTest(parameterized.TestCase):
  def check(self, found: Scored, rewards=REWARDS):
    np.testing.assert_allclose(found.rewards, rewards, atol=1e-6)
    np.testing.assert_allclose(found.label_probs, SHARES, atol=1e-6)
    self.assertEqual(found.label_probs.dtype, np.float32)

  def test_a_source_without_labels_stays_as_it_is(self):
    self.assertIsNone(label_shares.labels_of(plain()))
    self.assertIsNone(label_shares.labels_of(lambda p, r, c: r))
    found = label_shares.score(plain(), PROMPTS, RESPONSES)
    self.assertIsNone(found.label_probs)
    np.testing.assert_allclose(found.rewards, REWARDS)
    bare = label_shares.score(
      lambda p, r, c: np.zeros((3, 1)), PROMPTS, RESPONSES
    )
    self.assertIsNone(bare.label_probs)
    with self.assertRaisesRegex(ValueError, "the reward function predicts no"):
      plain().label_probs(PROMPTS, RESPONSES)

  def test_rewards_and_shares(self):
    source = labelled()
    self.assertEqual(label_shares.labels_of(source), LABELS)
    self.check(label_shares.score(source, PROMPTS, RESPONSES))
    self.assertEqual(source.label_probs([], []).shape, (0, 2))

  def test_a_class_of_ones_own_needs_two_names(self):
    class Mine:
      names, mixture_weights, units, labels = ("r",), None, None, LABELS

      def __call__(self, prompts, responses, columns=None):
        return worth(prompts, responses)[:, None].astype(np.float32)

      def label_probs(self, prompts, responses, columns=None):
        return share(prompts, responses)

    self.check(label_shares.score(Mine(), PROMPTS, RESPONSES))

  def test_what_joins_and_measures_passes_labels_on(self):
    joined = JoinedSource([labelled()])
    self.assertEqual(joined.labels, LABELS)
    self.check(label_shares.score(joined, PROMPTS, RESPONSES))
    np.testing.assert_allclose(joined.label_probs(PROMPTS, RESPONSES), SHARES)
    two = JoinedSource([labelled(), labelled()], names=("a", "b"))
    self.assertIsNone(two.labels)
    self.assertIsNone(label_shares.score(two, PROMPTS, RESPONSES).label_probs)
    measured = MeasuredSource(joined, [0.5], [2.0])
    self.assertEqual(measured.labels, Labels(("good", "bad"), (0.25, -0.75)))
    found = label_shares.score(measured, PROMPTS, RESPONSES)
    self.check(found, [[-0.5], [-0.25], [0.25]])
    # A reward is still the mean of the labels' values.
    np.testing.assert_allclose(
      found.label_probs @ np.array(measured.labels.values),
      found.rewards[:, 0],
      atol=1e-6,
    )
    self.assertIsNone(MeasuredSource(plain(), [0.0], [1.0]).labels)

  @parameterized.parameters(
    ([[0.5, 0.5]], r"must be \[3, 2\] for 3 texts and the labels good; bad"),
    ([[0.5, 0.6]] * 3, "of text 0, and 3 such rows"),
    ([[0.5, 0.5], [1.5, -0.5], [1, 0]], "of text 1, and 1 such rows"),
    ([[0.5, 0.5], [1, 0], [np.nan, 0.5]], "of text 2, and 1 such rows"),
  )
  def test_what_is_no_distribution_is_an_error(self, given, message):
    source = FunctionSource(
      worth, labels=LABELS, label_function=lambda p, r: given
    )
    with self.assertRaisesRegex(ValueError, message):
      label_shares.score(source, PROMPTS, RESPONSES)

  def test_labels_go_with_a_function_for_them(self):
    with self.assertRaisesRegex(ValueError, "go together, got one"):
      FunctionSource(worth, labels=LABELS)


class SideBySideTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_apart_again(self, has_labels):
    both = label_shares.SideBySide(labelled() if has_labels else plain())
    rows = both(PROMPTS, RESPONSES)
    self.assertEqual(rows.shape, (3, 3 if has_labels else 1))
    rewards, shares, _ = both.apart(rows)
    np.testing.assert_allclose(rewards, REWARDS)
    if has_labels:
      np.testing.assert_allclose(shares, SHARES)
    else:
      self.assertIsNone(shares)


if __name__ == "__main__":
  absltest.main()
