"""The optax chain: AdamW by hand, schedules at their corners, the mask."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import optimizer as optimizers

BASE = {
  "learning_rate": 0.1,
  "schedule": "constant",
  "warmup_steps": 0,
  "b1": 0.9,
  "b2": 0.99,
  "eps": 1e-8,
  "weight_decay": 0.0,
  "clip_norm": None,
}
AXES = {"kernel": ("layers", "embed", "mlp"), "scale": ("layers", "norm")}


def config(**changes) -> optimizers.OptimizerConfig:
  return optimizers.OptimizerConfig(**BASE | changes)


def adamw(param, grads, *, decay, clip):
  """AdamW from its definition, float64 NumPy; returns the last parameter."""
  m = v = 0.0
  for t, g in enumerate(grads, start=1):
    norm = np.sqrt(np.sum(g**2))
    if clip is not None and norm > clip:
      g = g * clip / norm
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
    step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    param = param - 0.1 * (step + decay * param)
  return param


class OptimizerTest(parameterized.TestCase):
  @parameterized.product(decay=(0.0, 0.2), clip=(None, 0.5))
  def test_matches_adamw_written_out(self, decay, clip):
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    kernel, grads = rng.normal(size=(2, 3, 4)), rng.normal(size=(3, 2, 3, 4))
    chain = optimizers.make_optimizer(
      config(weight_decay=decay, clip_norm=clip),
      num_steps=10,
      axes={"kernel": AXES["kernel"]},
    )
    params = {"kernel": jnp.array(kernel)}
    state = chain.init(params)
    for g in grads:
      updates, state = chain.update({"kernel": jnp.array(g)}, state, params)
      params = jax.tree.map(jnp.add, params, updates)
    np.testing.assert_allclose(
      params["kernel"],
      adamw(kernel, grads, decay=decay, clip=clip),
      rtol=1e-10,
    )

  def test_decay_spares_norms_and_biases_though_they_are_stacked(self):
    params = {"kernel": jnp.ones((2, 3, 4)), "scale": jnp.ones((2, 3))}
    chain = optimizers.make_optimizer(
      config(weight_decay=0.5), num_steps=10, axes=AXES
    )
    updates, _ = chain.update(
      jax.tree.map(jnp.zeros_like, params), chain.init(params), params
    )
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["scale"], 0.0)

  @parameterized.parameters(
    ("constant", 0.1), ("linear", 0.05), ("cosine", 0.05)
  )
  def test_schedule_rises_peaks_and_is_halfway_down(self, schedule, halfway):
    rate = optimizers.learning_rate_schedule(
      config(schedule=schedule, warmup_steps=4), 24
    )
    np.testing.assert_allclose(
      [rate(0), rate(2), rate(4), rate(14)], [0, 0.05, 0.1, halfway], rtol=1e-6
    )
    if schedule != "constant":
      np.testing.assert_allclose(rate(24), 0.0, atol=1e-9)

  @parameterized.parameters(
    ({"schedule": "step"}, "schedule must be one of"),
    ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
    ({"b2": 1.0}, "b2 must be in"),
    ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
    ({"clip_norm": 0.0}, "clip_norm must be > 0 or None"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)

  def test_warmup_must_end(self):
    with self.assertRaisesRegex(ValueError, "got 10 and 10"):
      optimizers.learning_rate_schedule(config(warmup_steps=10), 10)


if __name__ == "__main__":
  absltest.main()
