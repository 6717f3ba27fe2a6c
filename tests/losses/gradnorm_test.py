"""GradNorm: its loss, the step on its weights, a whole step in all modes."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign.losses import (
  bradley_terry_loss,
  gradnorm_loss,
  gradnorm_weights,
  reward_head_gradients,
  source_weighted_loss,
)
from jaxalign.ops import segment_mean
from tests import parallel_modes, surgery_references, transforms


class GradnormTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.weights = rng.dirichlet(np.ones(4))
    self.given = dict(
      norms=rng.uniform(0.2, 3.0, 4),
      losses=rng.uniform(0.1, 0.7, 4),
      first_losses=rng.uniform(0.6, 0.8, 4),
    )

  def loss(self, weights, asymmetry=0.5, **changes):
    return gradnorm_loss(weights, asymmetry=asymmetry, **self.given | changes)

  def moved(self, weights, asymmetry=0.5, step_size=0.1, **changes):
    return gradnorm_weights(
      weights,
      asymmetry=asymmetry,
      step_size=step_size,
      **self.given | changes,
    )

  @parameterized.parameters(0.0, 0.5, 1.5)
  def test_loss_and_gradient_follow_the_paper(self, asymmetry):
    expected, gradient = surgery_references.gradnorm_loss(
      self.weights, asymmetry=asymmetry, **self.given
    )
    got = jax.value_and_grad(self.loss)(jnp.asarray(self.weights), asymmetry)
    np.testing.assert_allclose(got[0], expected, rtol=1e-12)
    np.testing.assert_allclose(got[1], gradient, rtol=1e-12)

  @parameterized.parameters((0.0, 0.05), (1.5, 0.05), (0.5, 0.9))
  def test_the_step_follows_the_paper(self, asymmetry, step_size):
    got = self.moved(self.weights, asymmetry, step_size)
    expected = surgery_references.gradnorm_weights(
      self.weights, asymmetry=asymmetry, step_size=step_size, **self.given
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(np.sum(got), 1.0, rtol=1e-12)

  def test_by_hand(self):
    # Pulled 1.5 and 0.5, mean 1; the second is twice as far behind: ρ = 2/3,
    # 4/3 and targets 2/3, 4/3.
    given = dict(
      norms=np.array([3.0, 1.0]),
      losses=np.array([0.25, 0.5]),
      first_losses=np.array([1.0, 1.0]),
    )
    half = np.array([0.5, 0.5])
    np.testing.assert_allclose(
      self.loss(half, 1.0, **given), 5 / 6 + 5 / 6, rtol=1e-12
    )
    # Gradient (3, -1) over the mean norm 2.
    got = self.moved(half, 1.0, 0.1, **given)
    np.testing.assert_allclose(got, np.array([0.35, 0.55]) / 0.9, rtol=1e-12)

  def test_steps_even_out_the_norms(self):
    weights = self.weights
    for _ in range(2000):
      weights = self.moved(weights, 0.0, 1e-3)
    pulled = weights * self.given["norms"]
    np.testing.assert_allclose(pulled, pulled.mean(), rtol=0.02)

  def test_units_and_order_do_not_matter(self):
    got = self.moved(self.weights)
    larger = self.moved(self.weights, norms=1e6 * self.given["norms"])
    np.testing.assert_allclose(larger, got, rtol=1e-9)
    order = np.array([2, 0, 3, 1])
    swapped = {name: value[order] for name, value in self.given.items()}
    np.testing.assert_allclose(
      self.moved(self.weights[order], **swapped), got[order], rtol=1e-12
    )

  def test_an_absent_source_changes_nothing_and_keeps_its_weight(self):
    where = np.array([True, True, False, True])
    present = {name: value[where] for name, value in self.given.items()}
    others = self.weights[where]
    for garbage in (np.nan, 0.0, 7.0):
      dirty = {
        name: np.where(where, value, garbage)
        for name, value in self.given.items()
      }
      both = jax.value_and_grad(self.loss)
      value, slope = both(self.weights, where=where, **dirty)
      expected = both(others, **present)
      np.testing.assert_allclose(value, expected[0], rtol=1e-12)
      np.testing.assert_allclose(slope[where], expected[1], rtol=1e-12)
      self.assertEqual(float(slope[2]), 0.0)
      got = self.moved(self.weights, where=where, **dirty)
      self.assertEqual(float(got[2]), self.weights[2])
      np.testing.assert_allclose(
        got[where] / others.sum(),
        self.moved(others / others.sum(), step_size=0.1 / others.sum(),
                   **present),
        rtol=1e-12,
      )  # fmt: skip

  def test_edges_are_finite_and_weights_never_negative(self):
    none = np.zeros(4, bool)
    self.assertEqual(float(self.loss(self.weights, where=none)), 0.0)
    np.testing.assert_array_equal(
      self.moved(self.weights, where=none), self.weights
    )
    zeros = np.zeros(4)
    np.testing.assert_allclose(
      self.moved(self.weights, norms=zeros), self.weights, rtol=1e-12
    )
    for name in ("losses", "first_losses"):
      got = self.moved(self.weights, **{name: zeros})
      self.assertTrue(np.all(np.isfinite(got)))
    far = np.asarray(self.moved(self.weights, step_size=1e4))
    self.assertTrue(np.all(far >= 0))
    np.testing.assert_allclose(far.sum(), 1.0, rtol=1e-12)
    alone = {name: np.ones(1) for name in self.given}
    np.testing.assert_allclose(self.moved(np.ones(1), **alone), 1.0)

  def test_derivatives_and_transforms(self):
    # With the targets as they are at these weights, which no derivative sees.
    pulled = self.weights * self.given["norms"]
    rates = self.given["losses"] / self.given["first_losses"]
    target = pulled.mean() * (rates / rates.mean()) ** 0.5
    held = lambda w: jnp.sum(jnp.abs(w * self.given["norms"] - target))
    check_grads(held, (self.weights,), order=2)
    for ways in (jax.grad, jax.hessian, lambda f: jax.jacrev(jax.jacfwd(f))):
      np.testing.assert_allclose(
        ways(self.loss)(self.weights), ways(held)(self.weights), atol=1e-12
      )
    every = lambda w, n, l, f: gradnorm_loss(
      w, norms=n, losses=l, first_losses=f, asymmetry=0.5
    )
    given = (self.weights, *self.given.values())
    transforms.assert_jit_and_vmap(every, *given)
    transforms.assert_finite(every, *given)
    slopes = jax.grad(every, (1, 2, 3))(*map(jnp.asarray, given))
    for leaf in slopes:
      np.testing.assert_array_equal(leaf, 0.0)
    step = lambda w: jnp.sum(self.moved(w) ** 2)
    np.testing.assert_array_equal(jax.grad(step)(self.weights), 0.0)
    narrow = self.moved(
      jnp.asarray(self.weights, jnp.bfloat16),
      **{k: jnp.asarray(v, jnp.bfloat16) for k, v in self.given.items()},
    )
    self.assertEqual(narrow.dtype, jnp.float32)

  def test_whole_step_is_the_same_in_all_modes(self):
    rng = np.random.default_rng(3)
    batch = dict(
      x=rng.normal(size=(16, 4)),
      y=rng.normal(size=(16, 4)),
      source=np.arange(16) // 3 % 3,
      where=rng.random(16) < 0.7,
    )

    def scalar(params, batch, axis_name):
      chosen = jnp.tanh(batch["x"] * params["scale"][None])
      rejected = jnp.tanh(batch["y"] * params["scale"][None])
      over = dict(where=batch["where"], axis_name=axis_name)
      reward = lambda z: jnp.sum(z * params["head"][None], -1)
      gaps = reward(chosen) - reward(rejected)
      pulls = reward_head_gradients(
        chosen, rejected, gaps, source=batch["source"], num_sources=3, **over
      )
      losses = bradley_terry_loss(reward(chosen), reward(rejected))
      means = segment_mean(
        losses, segment=batch["source"], num_segments=3, **over
      )
      given = dict(
        norms=jnp.sqrt(jnp.sum(pulls**2, axis=-1)),
        losses=means,
        first_losses=jnp.full(3, 0.7),
        asymmetry=1.0,
      )
      weights = gradnorm_weights(jnp.full(3, 1 / 3), step_size=0.1, **given)
      total = source_weighted_loss(
        losses, source=batch["source"], weights=weights, **over
      )
      return total + gradnorm_loss(params["weights"], **given)

    params = dict(
      scale=rng.normal(size=4),
      head=rng.normal(size=4),
      weights=rng.dirichlet(np.ones(3)),
    )
    parallel_modes.assert_same_in_all_modes(scalar, params, batch, rtol=1e-8)

  def test_errors(self):
    for call in (self.loss, self.moved):
      with self.assertRaisesRegex(ValueError, "asymmetry must be >= 0, got -1"):
        call(self.weights, -1)
      with self.assertRaisesRegex(ValueError, r"norms \(3,\)"):
        call(self.weights, norms=self.given["norms"][1:])
      with self.assertRaisesRegex(ValueError, "weights must have 1 axes"):
        call(self.weights[None])
      with self.assertRaisesRegex(TypeError, "losses must be floating"):
        call(self.weights, losses=np.ones(4, int))
      with self.assertRaisesRegex(TypeError, "where must be bool"):
        call(self.weights, where=np.ones(4))
    with self.assertRaisesRegex(ValueError, "step_size must be > 0, got 0"):
      self.moved(self.weights, step_size=0)


if __name__ == "__main__":
  absltest.main()
