"""Head gradients against autodiff and NumPy, over devices and under masks."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign.losses import (
  bradley_terry_loss,
  gradient_ema,
  head_gradients,
  label_cross_entropy,
  reward_head_gradients,
)
from tests import parallel_modes, references, transforms

SOURCE = np.array([0, 2, 0, 2, 2, 0, 2, 0])  # source 1 has no pairs


class HeadGradientsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.chosen, self.rejected = rng.normal(size=(2, 8, 5))
    self.head = rng.normal(size=5)
    self.gaps = (self.chosen - self.rejected) @ self.head
    self.fn = jax.jit(
      lambda c, r, g, w=None: reward_head_gradients(
        c, r, g, source=SOURCE, num_sources=3, where=w
      )
    )

  def test_matches_reference_and_autodiff_of_the_head(self):
    got = self.fn(self.chosen, self.rejected, self.gaps)
    np.testing.assert_allclose(
      got,
      references.reward_head_gradients(
        self.chosen, self.rejected, self.gaps, SOURCE, 3
      ),
      rtol=1e-12,
    )

    def loss(head, k):
      losses = bradley_terry_loss(self.chosen @ head, self.rejected @ head)
      return jnp.mean(losses[k == SOURCE])

    for k in (0, 2):
      np.testing.assert_allclose(
        got[k], jax.grad(loss)(self.head, k), rtol=1e-9
      )
    np.testing.assert_array_equal(got[1], 0.0)

  def test_any_loss_by_its_slopes_at_the_gap_after_the_margin(self):
    loss = lambda c, r: bradley_terry_loss(c, r, margin=0.3, flip_rate=0.1)
    slope = jax.vmap(jax.grad(loss))(
      self.chosen @ self.head, self.rejected @ self.head
    )
    got = reward_head_gradients(
      self.chosen,
      self.rejected,
      self.gaps,
      source=SOURCE,
      num_sources=3,
      slopes=slope,
    )
    expected = jax.grad(
      lambda h: jnp.mean(
        loss(self.chosen @ h, self.rejected @ h)[np.flatnonzero(SOURCE == 0)]
      )
    )(self.head)
    np.testing.assert_allclose(got[0], expected, rtol=1e-9)
    margin = reward_head_gradients(
      self.chosen, self.rejected, self.gaps - 0.3, source=SOURCE, num_sources=3
    )
    expected = jax.grad(
      lambda h: jnp.mean(
        bradley_terry_loss(self.chosen @ h, self.rejected @ h, margin=0.3)[
          np.flatnonzero(SOURCE == 2)
        ]
      )
    )(self.head)
    np.testing.assert_allclose(margin[2], expected, rtol=1e-9)

  def test_heads_with_several_outputs(self):
    rng = np.random.default_rng(1)
    head = rng.normal(size=(4, 5))
    target = rng.dirichlet(np.ones(4), size=8)
    logits = self.chosen @ head.T
    slopes = jax.nn.softmax(logits) - target
    got = head_gradients(self.chosen, slopes, source=SOURCE, num_sources=3)
    rows = np.flatnonzero(SOURCE == 2)
    loss = lambda h: jnp.mean(
      label_cross_entropy(self.chosen[rows] @ h.T, target[rows])
    )
    np.testing.assert_allclose(
      jnp.reshape(got[2], (4, 5)), jax.grad(loss)(head), rtol=1e-9
    )

  def test_masked_pairs_change_neither_value_nor_gradient(self):
    where = np.array([1, 1, 0, 1, 0, 1, 1, 1], bool)
    both = jax.jit(
      lambda *x: (
        self.fn(*x, where),
        jax.grad(lambda x: jnp.sum(self.fn(*x, where) ** 3))(x),
      )
    )
    clean = both(self.chosen, self.rejected, self.gaps)
    for garbage in (np.nan, np.inf):
      rows = lambda x, garbage=garbage: np.where(
        where.reshape((8,) + (1,) * (x.ndim - 1)), x, garbage
      )
      dirty = both(*map(rows, (self.chosen, self.rejected, self.gaps)))
      jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    nothing = self.fn(self.chosen, self.rejected, self.gaps, np.zeros(8, bool))
    np.testing.assert_array_equal(nothing, 0.0)

    def given(features, slopes):
      g = head_gradients(
        features, slopes, source=SOURCE, num_sources=3, where=where
      )
      return jnp.sum(g**3)

    both = jax.jit(jax.value_and_grad(given, (0, 1)))
    slopes = np.random.default_rng(5).normal(size=(8, 2))
    clean = both(self.chosen, slopes)
    dirty = both(
      np.where(where[:, None], self.chosen, np.inf),
      np.where(where[:, None], slopes, np.nan),
    )
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)

  def test_permuting_pairs_and_swapping_responses(self):
    order = np.random.default_rng(2).permutation(8)
    mixed = reward_head_gradients(
      self.chosen[order],
      self.rejected[order],
      self.gaps[order],
      source=SOURCE[order],
      num_sources=3,
    )
    got = self.fn(self.chosen, self.rejected, self.gaps)
    np.testing.assert_allclose(mixed, got, rtol=1e-12)
    swapped = self.fn(self.rejected, self.chosen, -self.gaps)
    difference = (self.chosen - self.rejected)[SOURCE == 0].mean(axis=0)
    np.testing.assert_allclose((got - swapped)[0] * -1, difference, rtol=1e-9)

  def test_second_derivatives_and_extremes(self):
    check_grads(
      self.fn, (self.chosen, self.rejected, self.gaps), order=2, rtol=1e-5
    )
    far = self.gaps + 1e4 * np.sign(self.gaps)
    hessian = jax.jit(
      jax.hessian(lambda g: jnp.sum(self.fn(self.chosen, self.rejected, g)))
    )
    self.assertTrue(np.all(np.isfinite(hessian(far))))

  def test_jit_and_vmap(self):
    transforms.assert_jit_and_vmap(
      self.fn, self.chosen, self.rejected, self.gaps
    )
    slopes = np.random.default_rng(4).normal(size=(8, 3))
    several = lambda z, s: head_gradients(z, s, source=SOURCE, num_sources=3)
    transforms.assert_jit_and_vmap(several, self.chosen, slopes)
    transforms.assert_second_order(several, self.chosen, slopes)

  def test_same_in_all_modes(self):
    rng = np.random.default_rng(3)
    batch = dict(
      chosen=rng.normal(size=(16, 4)),
      rejected=rng.normal(size=(16, 4)),
      source=np.arange(16) // 4 % 3,  # most devices see one source only
      where=rng.random(16) < 0.7,
    )

    def scalar(params, batch, axis_name):
      chosen = jnp.tanh(batch["chosen"] * params["scale"][None])
      rejected = jnp.tanh(batch["rejected"] * params["scale"][None])
      gradients = reward_head_gradients(
        chosen,
        rejected,
        jnp.sum((chosen - rejected) * params["head"][None], -1),
        source=batch["source"],
        num_sources=3,
        where=batch["where"],
        axis_name=axis_name,
      )
      return jnp.sum(gradients**3)

    params = dict(scale=rng.normal(size=4), head=rng.normal(size=4))
    parallel_modes.assert_same_in_all_modes(scalar, params, batch)

  def test_bfloat16_is_raised(self):
    c, r, g = (
      jnp.asarray(x, jnp.bfloat16)
      for x in (self.chosen, self.rejected, self.gaps)
    )
    self.assertEqual(self.fn(c, r, g).dtype, jnp.float32)

  def test_errors(self):
    call = lambda c=self.chosen, g=self.gaps, **k: reward_head_gradients(
      c, self.rejected, g, **{"source": SOURCE, "num_sources": 3, **k}
    )
    with self.assertRaisesRegex(ValueError, r"chosen_features \(7, 5\)"):
      call(c=self.chosen[1:])
    with self.assertRaisesRegex(ValueError, "gaps must have 1 axes"):
      call(g=self.gaps[:, None])
    with self.assertRaisesRegex(ValueError, r"slopes \(7,\)"):
      call(slopes=self.gaps[1:])
    with self.assertRaisesRegex(TypeError, "source must be integer"):
      call(source=SOURCE.astype(float))
    with self.assertRaisesRegex(ValueError, r"and source \(7,\)"):
      call(source=SOURCE[1:])
    with self.assertRaisesRegex(ValueError, r"where \(7,\)"):
      call(where=np.ones(7, bool))
    with self.assertRaisesRegex(ValueError, "num_segments must be at least 1"):
      call(num_sources=0)
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      call(where=np.ones(8))
    with self.assertRaisesRegex(ValueError, "equal rows"):
      head_gradients(
        self.chosen, self.gaps[1:, None], source=SOURCE, num_sources=3
      )


class GradientEmaTest(parameterized.TestCase):
  def test_by_hand_and_absent_sources_stay(self):
    state = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    new = np.array([[5.0, 6.0], [0.0, 0.0]], np.float32)
    got = gradient_ema(state, new, decay=0.25)
    np.testing.assert_allclose(got, [[4.0, 5.0], [0.75, 1.0]], rtol=1e-6)
    present = np.array([True, False])
    kept = jnp.where(present[:, None], got, state)
    np.testing.assert_allclose(kept, [[4.0, 5.0], [3.0, 4.0]], rtol=1e-6)
    np.testing.assert_array_equal(gradient_ema(state, new, decay=0.0), new)

  def test_forgets_geometrically(self):
    state = np.zeros((1, 3), np.float32)
    for row in np.eye(3, dtype=np.float32):
      state = gradient_ema(state, row[None], decay=0.5)
    np.testing.assert_allclose(state, [[0.125, 0.25, 0.5]])

  def test_transforms_and_narrow_inputs(self):
    g, m = np.random.default_rng(0).normal(size=(2, 2, 3))
    fn = lambda m, g: gradient_ema(m, g, decay=0.3)
    transforms.assert_jit_and_vmap(fn, m, g)
    transforms.assert_second_order(lambda m, g: fn(m, g) ** 2, m, g)
    narrow = jnp.asarray(m, jnp.bfloat16)
    self.assertEqual(fn(narrow, narrow).dtype, jnp.float32)

  def test_errors(self):
    state = np.ones((2, 3), np.float32)
    for decay in (1.0, -0.1):
      with self.assertRaisesRegex(ValueError, r"decay must be in \[0, 1\)"):
        gradient_ema(state, state, decay=decay)
    with self.assertRaisesRegex(ValueError, r"gradients \(2, 2\)"):
      gradient_ema(state, state[:, 1:], decay=0.1)
    with self.assertRaisesRegex(ValueError, "gradients must have 2 axes"):
      gradient_ema(state[0], state[0], decay=0.1)
    with self.assertRaisesRegex(TypeError, "state must be floating"):
      gradient_ema(np.ones((2, 3), np.int32), state, decay=0.1)


if __name__ == "__main__":
  absltest.main()
