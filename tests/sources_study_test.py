"""The script of the study of sources: steps, scores and tables."""

import runpy
import sys
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign import losses, metrics
from jaxalign.data.records.record import Record
from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_sources.py"))
TABLES = SCRIPT["source_tables"]


def pairs(number=240, width=12, sources=3, seed=0):
  """Pairs of texts whose features say what each source wants, and these."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(400, width)).astype(np.float32)
  wants = rng.normal(size=(sources, width))
  sides = rng.integers(0, 400, (number, 2))
  source = rng.integers(0, sources, number)
  apart = features[sides[:, 0]] - features[sides[:, 1]]
  flip = np.sum(apart * wants[source], axis=1) < 0
  sides[flip] = sides[flip, ::-1]
  texts = [(f"p{i % 40}", f" word{i} and {i % 7}") for i in range(400)]
  records = [Record(texts[a][0], (texts[a][1], texts[b][1])) for a, b in sides]
  prompt = np.array([int(one.prompt[1:]) for one in records])
  names = tuple(f"s{k}" for k in range(sources))
  return SCRIPT["Pairs"](records, sides, source, prompt, names, texts), features


class StepTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(1)
    self.apart = jnp.asarray(rng.normal(size=(4, 8, 5)), jnp.float32)
    self.head = jnp.asarray(rng.normal(size=5), jnp.float32)

  @parameterized.parameters(
    "uniform", "min_norm l2", "min_norm loss", "min_norm loss+",
    "min_norm none", "pcgrad", "cagrad",
  )  # fmt: skip
  def test_gradient_is_that_of_the_weighted_losses(self, method):
    gradients, means = SCRIPT["head_gradients"](self.head, self.apart)
    weights = SCRIPT["source_weights"](method, gradients, means)
    flat = self.apart.reshape(32, 5)

    def total(head):
      return losses.source_weighted_loss(
        jax.nn.softplus(-flat @ head),
        source=jnp.repeat(jnp.arange(4), 8),
        weights=weights,
      )

    np.testing.assert_allclose(
      weights @ gradients, jax.grad(total)(self.head), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(weights @ means, total(self.head), rtol=1e-5)
    if method == "uniform":
      np.testing.assert_allclose(weights, 0.25)
    else:
      self.assertGreater(float(jnp.std(weights)), 1e-4)

  def test_a_source_fills_its_rows_alone(self):
    apart = np.arange(12.0).reshape(6, 2)
    data, counts = SCRIPT["stacked"](apart, np.array([0, 2, 0, 1, 2, 2]), 3)
    np.testing.assert_array_equal(counts, [2, 1, 3])
    np.testing.assert_array_equal(data[0, :3], [[0, 1], [4, 5], [0, 0]])
    np.testing.assert_array_equal(data[2, 2], [10, 11])

  def test_length_and_words_are_weighed_by_their_likelihood(self):
    apart = np.random.default_rng(0).normal(size=(50, 2)) + 0.3
    cost = lambda w: np.logaddexp(0, -apart @ w).sum() + w @ w / 2
    np.testing.assert_allclose(
      SCRIPT["words_and_length"].logistic(apart),
      scipy.optimize.minimize(cost, np.zeros(2), tol=1e-12).x,
      atol=1e-5,
    )


class SeedTest(absltest.TestCase):
  def test_one_prompt_tells_the_steps_where_no_hash_names_any(self):
    share = np.array([0.1, 0.5, 0.5, 0.3, 0.9, 0.3])
    held = np.array([True, False, False, False, False, False])
    np.testing.assert_array_equal(
      SCRIPT["chosen_by"](share, held), [0, 0, 0, 1, 0, 1]
    )
    np.testing.assert_array_equal(
      SCRIPT["chosen_by"](share, ~held), [1, 0, 0, 0, 0, 0]
    )

  def test_heads_learn_and_prompts_are_held_out(self):
    study = SCRIPT["Study"](*pairs())
    run = study.seed(0, ("s0", "s1", "s2"), ("uniform",), control=False)
    found = TABLES.Scores([run])
    single = TABLES.NAMES.index("single")
    self.assertGreater(found.accuracy[single].mean(), 0.6)
    self.assertTrue(np.isnan(run["gaps"][TABLES.NAMES.index("pcgrad")]).all())
    held = {
      one.prompt
      for one in study.pairs.records
      if SCRIPT["_share"](one.prompt, 0) < 0.25
    }
    self.assertEqual(
      {f"p{number}" for number in run["prompt"]},
      held,
    )
    self.assertEqual(run["cosines"].shape, (3, 3))


class ScoresTest(absltest.TestCase):
  def run_of(self, seed):
    rng = np.random.default_rng(seed)
    gaps = rng.normal(0.4, 1.0, (len(TABLES.NAMES), 90))
    gaps[3] = gaps[0]
    gaps[4] = np.abs(gaps[0])
    gaps[5] = np.nan
    return {
      "gaps": gaps, "source": np.arange(90) % 3,
      "prompt": rng.integers(0, 30, 90),
      "weights": np.full((7, 3), 1 / 3), "cosines": np.eye(3),
    }  # fmt: skip

  def test_values_are_those_of_the_metrics(self):
    runs = [self.run_of(seed) for seed in range(2)]
    found = TABLES.Scores(runs)
    for m, k in ((0, 0), (7, 2)):
      each = [run["gaps"][m, run["source"] == k] for run in runs]
      self.assertAlmostEqual(
        found.accuracy[m, k], np.mean(np.concatenate(each) > 0)
      )
      error = [metrics.expected_calibration_error(gap) for gap in each]
      self.assertAlmostEqual(found.errors[m, k], np.mean(error), places=5)
      floor = [
        metrics.calibration_noise_floor(gap, key=jax.random.key(0)).mean
        for gap in each
      ]
      self.assertAlmostEqual(found.floors[m, k], np.mean(floor), delta=0.02)

  def test_equal_methods_differ_by_nothing_and_a_better_one_shows(self):
    found = TABLES.Scores([self.run_of(seed) for seed in range(3)])
    for which in (0, 1):
      np.testing.assert_allclose(found.against(which, 3, 0), 0.0)
    value, low, high, least = found.against(0, 4, 0)
    self.assertGreater(low, 0.1)
    self.assertBetween(value, low, high)
    self.assertGreater(value, least)
    table = TABLES.lines(found)
    self.assertFalse(any(TABLES.NAMES[5] in line for line in table))
    self.assertIn("+0.000 [+0.000, +0.000], least 0.000", "".join(table))

  def test_a_source_in_conflict_has_the_lower_cosine(self):
    run = self.run_of(0)
    run["cosines"] = np.array(
      [[1, 0.4, -0.5], [0.4, 1, -0.5], [-0.5] * 2 + [1]]
    )
    table = TABLES.conflicts([run], ("a", "b", "c"))
    self.assertStartsWith(table[2], "| a | -0.050 | 0.333 |")
    self.assertStartsWith(table[4], "| c | -0.500 | 0.333 |")


if __name__ == "__main__":
  absltest.main()
