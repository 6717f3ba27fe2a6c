"""Normal rewards through the two-phase update, against NumPy and scipy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from absl.testing import absltest, parameterized

from jaxalign.algorithms import mean_variance, update

B, T, V = 8, 4, 7
WHERE = np.array([True, True, False, True, True, True, True, False])


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """Two outputs, each a mean over attended tokens of its own table."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  mean = values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
  return Output(mean, mean)


class MeanVarianceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {"table": jnp.array(rng.normal(size=(V, 2)))}
    lengths = rng.integers(1, T + 1, size=(B, 2))
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array(WHERE),
      "row": jnp.arange(B, dtype=jnp.int32),
    }
    self.config = mean_variance.MeanVarianceConfig("mean_variance", 0.05)
    self.objective = mean_variance.mean_variance(
      apply, self.config, dropout=False
    )

  def gradient(self, batch=None, **options):
    compute = update.make_gradient(self.objective, **options)
    return jax.jit(compute)(self.params, batch or self.batch, ())

  def test_loss_and_metrics(self):
    values = np.where(
      np.array(self.batch["mask"])[..., None],
      np.array(self.params["table"])[np.array(self.batch["tokens"])],
      0.0,
    )
    out = values.sum(2) / np.array(self.batch["mask"]).sum(-1)[..., None]
    (mean_c, log_c), (mean_r, log_r) = np.moveaxis(out[WHERE], 0, -1)
    spread = np.sqrt(np.exp(2 * log_c) + np.exp(2 * log_r))
    losses = -scipy.stats.norm.logcdf((mean_c - mean_r) / spread)
    expected = np.mean(losses + 0.05 * (log_c**2 + log_r**2))
    got = self.gradient()
    np.testing.assert_allclose(got.loss, expected, rtol=1e-12)
    total, count = got.metrics["train/log_std"]
    np.testing.assert_allclose(total / count, np.mean((log_c + log_r) / 2))
    total, count = got.metrics["train/accuracy"]
    np.testing.assert_allclose(total / count, np.mean(mean_c > mean_r))

  def test_accumulation_changes_nothing(self):
    np.testing.assert_allclose(
      self.gradient(accumulation=4).gradient["table"],
      self.gradient().gradient["table"],
      rtol=1e-10,
    )

  def test_rows_that_do_not_count_change_nothing(self):
    garbage = jnp.where(WHERE[:, None, None], self.batch["tokens"], V - 1)
    np.testing.assert_allclose(
      self.gradient({**self.batch, "tokens": garbage}).gradient["table"],
      self.gradient().gradient["table"],
      rtol=1e-12,
    )

  def test_refuses_no_anchor(self):
    with self.assertRaisesRegex(ValueError, "anchor must be > 0, got 0"):
      mean_variance.MeanVarianceConfig("mean_variance", 0)


if __name__ == "__main__":
  absltest.main()
