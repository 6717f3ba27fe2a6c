"""An ensemble's reward is its mean less k deviations, of models of a kind."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.runtime.reward_sources import ensemble
from jaxalign.runtime.reward_sources.base import FunctionSource

PROMPTS, RESPONSES = ["a", "b"], ["x", "yyy"]


def scaled(factor, names=("long", "short"), **options):
  """A model whose rewards are lengths and their negatives, times a factor."""
  return FunctionSource(
    lambda prompts, responses: [
      [factor * len(r), -factor * len(r)] for r in responses
    ],
    names=names,
    **options,
  )


class LowerBoundTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 1.0, 2.5)
  def test_equals_the_formula(self, pessimism):
    rewards = np.random.default_rng(0).normal(size=(5, 4, 3))
    got = ensemble.lower_bound(rewards, pessimism)
    for b in range(4):
      for k in range(3):
        each = [float(rewards[m, b, k]) for m in range(5)]
        mean = sum(each) / 5
        deviation = (sum((r - mean) ** 2 for r in each) / 4) ** 0.5
        self.assertAlmostEqual(got[b, k], mean - pessimism * deviation)

  def test_the_order_of_models_does_not_matter_and_a_shift_passes_through(self):
    rewards = np.random.default_rng(1).normal(size=(4, 6))
    got = ensemble.lower_bound(rewards, 2.0)
    np.testing.assert_allclose(ensemble.lower_bound(rewards[::-1], 2.0), got)
    np.testing.assert_allclose(ensemble.lower_bound(rewards + 3, 2.0), got + 3)
    np.testing.assert_allclose(ensemble.lower_bound(rewards * 3, 2.0), got * 3)

  def test_models_that_agree_lose_nothing(self):
    rewards = np.tile(np.arange(3.0), (4, 1))
    got = ensemble.lower_bound(rewards, 9.0)
    np.testing.assert_array_equal(got, np.arange(3.0))


class EnsembleSourceTest(parameterized.TestCase):
  def test_each_output_by_itself(self):
    source = ensemble.EnsembleSource([scaled(1.0), scaled(3.0)], 0.5)
    self.assertEqual(source.names, ("long", "short"))
    self.assertIsNone(source.mixture_weights)
    self.assertIsNone(source.units)
    rewards = source(PROMPTS, RESPONSES)
    self.assertEqual(rewards.dtype, np.float32)
    # Of lengths 1 and 3: means 2 and 6, deviations sqrt 2 and 3 sqrt 2.
    root = np.sqrt(2) / 2
    np.testing.assert_allclose(
      rewards,
      [[2 - root, -2 - root], [6 - 3 * root, -6 - 3 * root]],
      rtol=1e-6,
    )
    self.assertEqual(source([], []).shape, (0, 2))

  def test_other_names(self):
    models = [scaled(1.0), scaled(2.0)]
    source = ensemble.EnsembleSource(models, 0.0, names=("a", "b"))
    self.assertEqual(source.names, ("a", "b"))

  @parameterized.parameters(
    ([scaled(1.0)], 1.0, {}, "spread of 2 or more models, got 1"),
    ([scaled(1.0)] * 2, -1.0, {}, "pessimism must be >= 0, got -1"),
    (
      [scaled(1.0), scaled(1.0, ("long", "brief"))],
      1.0,
      {},
      "same outputs, got long, short and long, brief",
    ),
    (
      [scaled(1.0, mixture_weights=(0.5, 0.5))] * 2,
      1.0,
      {},
      "must not have latent groups",
    ),
    ([scaled(1.0)] * 2, 1.0, {"names": ("a",)}, "name the 2 outputs .* got 1"),
  )
  def test_errors(self, sources, pessimism, options, message):
    with self.assertRaisesRegex(ValueError, message):
      ensemble.EnsembleSource(sources, pessimism, **options)


if __name__ == "__main__":
  absltest.main()
