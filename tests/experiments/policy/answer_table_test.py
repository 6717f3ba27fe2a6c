"""The learner on a table of answers, against the optimum of the dual."""

import dataclasses

import numpy as np
import scipy.optimize
from absl.testing import absltest

from jaxalign.algorithms.group_weights import WelfareConfig
from jaxalign.experiments.policy import answer_table

CONFIG = answer_table.TableConfig()


class AnswerTableTest(absltest.TestCase):
  def test_the_optimum_is_that_of_a_search_over_policies(self):
    loss = lambda logits: -answer_table.value(CONFIG, logits)
    rng = np.random.default_rng(0)
    found = min(
      scipy.optimize.minimize(
        loss,
        rng.normal(size=6),
        method="Nelder-Mead",
        options=dict(maxiter=9000),
      ).fun
      for _ in range(3)
    )
    self.assertAlmostEqual(-found, answer_table.optimum(CONFIG), delta=2e-3)
    self.assertLess(-found, answer_table.optimum(CONFIG) + 1e-6)

  def test_value_of_the_uniform_policy(self):
    rewards = answer_table.rewards_of(CONFIG)
    np.testing.assert_allclose(
      answer_table.value(CONFIG, np.full(6, 3.0)), rewards.mean(axis=1).min()
    )

  def test_damped_weights_end_at_the_saddle_point_at_a_large_step(self):
    def last(temperature):
      welfare = WelfareConfig(
        kind="exponentiated", step_size=0.3, temperature=temperature
      )
      logits = answer_table.learned(CONFIG, welfare)[-1]
      return answer_table.value(CONFIG, logits.astype(np.float64))

    best = answer_table.optimum(CONFIG)
    self.assertGreater(last(CONFIG.temperature), 0.98 * best)
    self.assertLess(last(None), 0.8 * best)

  def test_at_a_low_temperature_any_step_size_ends_there(self):
    best = answer_table.optimum(CONFIG)
    for step_size in (0.02, 0.3):
      welfare = WelfareConfig(
        kind="exponentiated", step_size=step_size, temperature=0.03
      )
      logits = answer_table.learned(CONFIG, welfare)[-1]
      value = answer_table.value(CONFIG, logits.astype(np.float64))
      self.assertGreater(value, 0.985 * best, step_size)

  def test_errors(self):
    for name, number in (("num_answers", 1), ("num_responses", 1)):
      with self.assertRaisesRegex(ValueError, f"{name} must be >= 2, got 1"):
        dataclasses.replace(CONFIG, **{name: number})
    with self.assertRaisesRegex(ValueError, "temperature must be > 0, got 0"):
      dataclasses.replace(CONFIG, temperature=0.0)


if __name__ == "__main__":
  absltest.main()
