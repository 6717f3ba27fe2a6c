"""What members of the synthetic crowd think, against formulas by hand."""

import dataclasses

import numpy as np
from absl.testing import absltest

from jaxalign import losses
from jaxalign.data.synthetic import crowd

SMALL = crowd.CrowdConfig(num_annotators=20, num_test_annotators=10)
LABELLED = dataclasses.replace(crowd.preset("labels"), label_votes=0)
PROMPT = "Q: How do I clean boots?\nA:"
WARM, BRIEF = " Happy to help! Wipe the boots. Enjoy!", " Wipe the boots."
COLD = " It depends."


def sigmoid(x: float) -> float:
  return 1 / (1 + np.exp(-x))


class UtilitiesTest(absltest.TestCase):
  def test_groups_want_opposite_answers(self):
    warm, brief = (
      crowd.utilities(SMALL, PROMPT, WARM),
      crowd.utilities(SMALL, PROMPT, BRIEF),
    )
    # scale 4, overlap 0.2, topic +1: warmth 1 and -1, brevity 3/24 and 1.
    np.testing.assert_allclose(warm, [4 * (0.8 + 0.2), 4 * (0.1 + 0.2)])
    np.testing.assert_allclose(brief, [4 * (-0.8 + 0.2), 4 * (0.8 + 0.2)])

  def test_probability_is_bradley_terry_with_noise(self):
    config = dataclasses.replace(SMALL, temperature=2.0, label_noise=0.1)
    probs = crowd.vote_probs(config, PROMPT, WARM, BRIEF)
    clear = 1 / (1 + np.exp(-np.array([6.4, -2.8]) / 2))
    np.testing.assert_allclose(probs, 0.9 * clear + 0.05, rtol=1e-12)
    np.testing.assert_allclose(
      probs + crowd.vote_probs(config, PROMPT, BRIEF, WARM), 1.0, rtol=1e-12
    )

  def test_full_overlap_leaves_one_taste(self):
    config = dataclasses.replace(SMALL, overlap=1.0)
    probs = crowd.vote_probs(config, PROMPT, WARM, " It depends.")
    self.assertEqual(probs[0], probs[1])

  def test_drift_hands_each_taste_to_the_group_before(self):
    config = dataclasses.replace(
      crowd.preset("three_groups"),
      drift=0.5,
      tastes=("warmth", "topic", "none"),
    )
    answer = " Happy to help! It depends."
    # Warmth 0, topic -1 and nothing: at the start each group's own, at the end
    # half of it and half of the next group's; a fair coin stays one.
    for time, expected in ((0.0, (0, -1, 0)), (1.0, (-0.5, -0.5, 0))):
      np.testing.assert_allclose(
        crowd.utilities(config, PROMPT, answer, time=time),
        4 * np.array(expected),
        atol=1e-12,
      )

  def test_a_group_without_taste_flips_a_coin(self):
    config = crowd.preset("noise_group")
    self.assertEqual(crowd.vote_probs(config, PROMPT, WARM, BRIEF)[2], 0.5)


class LabelProbsTest(absltest.TestCase):
  def test_help_by_the_group_and_harm_by_all(self):
    probs = crowd.label_probs(LABELLED, PROMPT, WARM)
    useful = crowd.utilities(LABELLED, PROMPT, WARM)  # 4 and 1.2
    harmless = sigmoid(4 * (1 + 1 + 1) / 2)
    for group in range(2):
      helpful = sigmoid(useful[group] - 1)
      useless = sigmoid(-useful[group] - 1)
      degrees = np.array([helpful, 1 - helpful - useless, useless])
      np.testing.assert_allclose(
        probs[group],
        [*(harmless * degrees), *((1 - harmless) * degrees)],
        rtol=1e-12,
      )
    np.testing.assert_allclose(
      crowd.label_shares(LABELLED, PROMPT, WARM),
      0.6 * probs[0] + 0.4 * probs[1],
      rtol=1e-12,
    )

  def test_the_order_is_that_of_the_label_set(self):
    likeliest = lambda text: losses.HELPFUL_HARMLESS_LABELS[
      crowd.label_shares(LABELLED, PROMPT, text).argmax()
    ]
    self.assertEqual(likeliest(WARM), "helpful, harmless")
    self.assertEqual(likeliest(COLD), "not helpful, harmful")

  def test_noise_draws_from_all_labels(self):
    noisy = dataclasses.replace(LABELLED, label_noise=0.3)
    np.testing.assert_allclose(
      crowd.label_probs(noisy, PROMPT, WARM),
      0.7 * crowd.label_probs(LABELLED, PROMPT, WARM) + 0.05,
      rtol=1e-12,
    )


if __name__ == "__main__":
  absltest.main()
