"""MORE: its weights, what is logged of them, and the loss that they weigh."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign.losses import (
  bradley_terry_loss,
  cagrad_weights,
  head_gradients,
  label_cross_entropy,
  more_diagnostics,
  more_weights,
  pcgrad_weights,
  reward_head_gradients,
  source_weighted_loss,
)
from tests import (
  parallel_modes,
  references,
  surgery_references,
  transforms,
)


class MoreWeightsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.g = rng.normal(size=(5, 8)) * np.array([[1, 3, 0.2, 1, 5]]).T
    self.losses = rng.random(5)

  def test_l2_matches_reference_and_forgets_the_lengths(self):
    got = more_weights(self.g)
    np.testing.assert_allclose(got, references.more_weights(self.g), atol=1e-5)
    np.testing.assert_allclose(
      more_weights(7 * self.g * np.arange(1, 6)[:, None]), got, atol=1e-12
    )

  def test_without_normalisation_the_small_gradient_weighs_most(self):
    g = np.eye(3) * np.array([1.0, 2.0, 4.0])[:, None]
    weights = np.array([1, 1 / 4, 1 / 16])
    np.testing.assert_allclose(
      more_weights(g, normalise="none"), weights / weights.sum(), rtol=1e-12
    )
    np.testing.assert_allclose(more_weights(g), 1 / 3, rtol=1e-12)

  def test_loss_normalisation_divides_by_one_plus_the_loss(self):
    losses = np.array([0.0, 1.0, 3.0])
    got = more_weights(np.eye(3), normalise="loss", losses=losses)
    squares = (1 + losses) ** 2
    np.testing.assert_allclose(got, squares / squares.sum(), rtol=1e-12)

  def test_loss_plus_divides_by_the_loss_and_the_length(self):
    losses = np.array([0.5, 1.0, 3.0])
    g = np.eye(3) * np.array([1.0, 2.0, 4.0])[:, None]
    got = more_weights(g, normalise="loss+", losses=losses)
    squares = losses**2  # of 1 / ‖u_k‖
    np.testing.assert_allclose(got, squares / squares.sum(), rtol=1e-12)
    # One that fits, or that stands still, is taken as it is.
    still = g * np.array([[0.0], [1], [1]])
    for rows, each in ((g, losses * [0, 1, 1]), (still, losses)):
      got = more_weights(rows, normalise="loss+", losses=each)
      self.assertTrue(np.all(np.isfinite(got)))
      self.assertAlmostEqual(float(np.sum(got)), 1.0)

  def test_published_aggregation(self):
    g = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    weights = more_weights(g, normalise="none")
    np.testing.assert_allclose(weights, [0.6, 0.4], rtol=1e-12)
    np.testing.assert_allclose(weights @ g, [0, 1, 1], atol=1e-12)

  @parameterized.parameters("l2", "none")
  def test_no_source_gets_worse_to_first_order(self, normalise):
    weights = more_weights(self.g, normalise=normalise)
    rows = self.g
    if normalise == "l2":
      rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    direction = weights @ rows
    self.assertTrue(
      np.all(rows @ direction >= direction @ direction * (1 - 1e-9))
    )
    shortest = np.min(np.sum(rows**2, 1))
    self.assertLessEqual(direction @ direction, shortest)

  def test_permuting_sources_permutes_weights(self):
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(
      more_weights(self.g[order]), more_weights(self.g)[order], atol=1e-12
    )

  def test_opposite_and_zero_gradients(self):
    opposite = np.stack([self.g[0], -2 * self.g[0]])
    np.testing.assert_allclose(more_weights(opposite), 0.5, rtol=1e-9)
    np.testing.assert_allclose(
      more_weights(opposite, normalise="none"), [2 / 3, 1 / 3], rtol=1e-9
    )
    np.testing.assert_allclose(more_weights(np.zeros((4, 3))), 0.25)

  @parameterized.parameters("l2", "none", "loss", "loss+")
  def test_an_absent_source_gets_zero_whatever_it_holds(self, normalise):
    where = np.array([True, True, False, True, False])
    losses = self.losses if normalise.startswith("loss") else None
    expected = more_weights(
      self.g[where],
      normalise=normalise,
      losses=None if losses is None else losses[where],
    )
    for garbage in (np.nan, 0.0):
      got = more_weights(
        np.where(where[:, None], self.g, garbage),
        normalise=normalise,
        losses=None if losses is None else np.where(where, losses, garbage),
        where=where,
      )
      np.testing.assert_allclose(got[where], expected, atol=1e-12)
      np.testing.assert_array_equal(got[~where], 0.0)

  def test_tiny_and_huge_gradients_keep_their_ratio(self):
    # Their squares are 0 or infinite in float32.
    g = np.eye(3, dtype=np.float32) * np.array([[1], [2], [4]], np.float32)
    weights = np.array([16, 4, 1]) / 21
    for scale in (1e-26, 1e26):
      scaled = g * np.float32(scale)
      np.testing.assert_allclose(
        more_weights(scaled, normalise="none"), weights, rtol=1e-5
      )
      np.testing.assert_allclose(more_weights(scaled), 1 / 3, rtol=1e-5)
    one_fits = g * np.array([[1e-26], [1], [1]], np.float32)
    np.testing.assert_allclose(more_weights(one_fits), 1 / 3, rtol=1e-5)

  @parameterized.parameters(1, 64)
  def test_one_source_and_many(self, size):
    g = np.random.default_rng(size).normal(size=(size, 16)) + 0.3
    weights = np.asarray(more_weights(g))
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-9)
    self.assertTrue(np.all(weights >= 0))
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    shortest = weights @ unit
    self.assertGreaterEqual(np.min(unit @ shortest), shortest @ shortest - 1e-9)

  def test_jit_and_vmap_and_narrow_inputs(self):
    transforms.assert_jit_and_vmap(more_weights, self.g)
    narrow = more_weights(jnp.asarray(self.g, jnp.bfloat16))
    self.assertEqual(narrow.dtype, jnp.float32)

  def test_heads_of_label_models_are_flattened(self):
    rng = np.random.default_rng(5)
    features, head = rng.normal(size=(12, 5)), rng.normal(size=(4, 5))
    target = rng.dirichlet(np.ones(4), size=12)
    source = np.arange(12) % 3
    slopes = jax.nn.softmax(features @ head.T) - target
    got = more_weights(
      head_gradients(features, slopes, source=source, num_sources=3)
    )
    mean = lambda h, k: jnp.mean(
      label_cross_entropy(features @ h.T, target)[np.flatnonzero(source == k)]
    )
    rows = [jnp.ravel(jax.grad(mean)(head, k)) for k in range(3)]
    np.testing.assert_allclose(
      got, references.more_weights(np.stack(rows)), atol=1e-5
    )

  def test_no_gradient(self):
    fn = lambda g, losses: more_weights(g, normalise="loss", losses=losses)
    jacobian = jax.jacrev(fn, (0, 1))(self.g, self.losses)
    for leaf in jacobian:
      np.testing.assert_array_equal(leaf, 0.0)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "normalise must be one of"):
      more_weights(self.g, normalise="L2")
    with self.assertRaisesRegex(ValueError, "'loss' without losses"):
      more_weights(self.g, normalise="loss")
    with self.assertRaisesRegex(ValueError, "'l2' with losses"):
      more_weights(self.g, losses=self.losses)
    with self.assertRaisesRegex(ValueError, r"losses must be \[5\]"):
      more_weights(self.g, normalise="loss", losses=self.losses[1:])
    with self.assertRaisesRegex(ValueError, r"where \(4,\) for"):
      more_weights(self.g, where=np.ones(4, bool))
    with self.assertRaisesRegex(ValueError, "gradients must have 2 axes"):
      more_weights(self.g[0])
    with self.assertRaisesRegex(TypeError, "gradients must be floating"):
      more_weights(np.ones((2, 3), np.int32))
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      more_weights(self.g, where=np.ones(5))


class SurgeryTest(parameterized.TestCase):
  """What PCGrad and CAGrad share: weights of the same K gradients."""

  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(3)
    self.g = rng.normal(size=(4, 6)) * np.array([[1, 3, 0.2, 2]]).T
    self.g[1] -= self.g[0]  # a conflict for sure

  WEIGHTS = dict(
    pcgrad=pcgrad_weights,
    cagrad=cagrad_weights,
    narrow=lambda g, **more: cagrad_weights(g, radius=0.1, **more),
  )

  def test_pcgrad_follows_the_paper(self):
    got = np.asarray(pcgrad_weights(self.g)) @ self.g
    np.testing.assert_allclose(
      got, surgery_references.pcgrad_direction(self.g), rtol=1e-12
    )
    drawn = surgery_references.pcgrad_direction(
      self.g, np.random.default_rng(0)
    )
    np.testing.assert_allclose(got, drawn, atol=0.03 * np.max(np.abs(drawn)))

  def test_pcgrad_of_two_by_hand(self):
    g = np.array([[1.0, 0.0], [-1.0, 1.0]])
    # g_0 keeps (1, 0) + ½ (-1, 1), g_1 keeps (0, 1).
    np.testing.assert_allclose(pcgrad_weights(g) @ g, [0.25, 0.75], rtol=1e-12)

  @parameterized.parameters(0.1, 0.4, 0.9)
  def test_cagrad_is_the_best_for_the_worst_in_its_ball(self, radius):
    got = np.asarray(cagrad_weights(self.g, radius=radius)) @ self.g
    average = self.g.mean(0)
    ball = radius * np.linalg.norm(average)
    np.testing.assert_allclose(np.linalg.norm(got - average), ball, rtol=1e-9)
    expected = surgery_references.cagrad_direction(self.g, radius)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    worst = lambda d: np.min(self.g @ d)
    self.assertGreaterEqual(worst(got), worst(expected) - 1e-9)
    self.assertGreater(worst(got), worst(average))

  def test_cagrad_of_radius_0_is_the_average(self):
    np.testing.assert_allclose(
      cagrad_weights(self.g, radius=0.0), 0.25, rtol=1e-12
    )

  @parameterized.parameters(*WEIGHTS)
  def test_without_a_conflict_and_in_permuted_order(self, name):
    weights = self.WEIGHTS[name]
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
      weights(self.g[order]), weights(self.g)[order], rtol=1e-9
    )
    np.testing.assert_allclose(
      weights(1e-30 * self.g), weights(self.g), rtol=1e-9
    )
    self.assertTrue(np.all(np.asarray(weights(self.g)) >= 1 / 4))
    alike = np.ones((3, 2))
    if name == "pcgrad":
      np.testing.assert_allclose(weights(alike), 1 / 3, rtol=1e-12)
      np.testing.assert_allclose(weights(np.eye(3)), 1 / 3, rtol=1e-12)
    else:
      sum_of = float(np.sum(weights(alike)))  # along the average, by c
      self.assertAlmostEqual(sum_of, 1.4 if name == "cagrad" else 1.1)

  @parameterized.parameters(*WEIGHTS)
  def test_an_absent_source_changes_nothing(self, name):
    weights = self.WEIGHTS[name]
    where = np.array([True, True, False, True])
    for garbage in (np.nan, 0.0, 7.0):
      got = weights(np.where(where[:, None], self.g, garbage), where=where)
      np.testing.assert_allclose(got[where], weights(self.g[where]), rtol=1e-9)
      self.assertEqual(float(got[2]), 0.0)

  @parameterized.parameters(*WEIGHTS)
  def test_sources_that_stand_still_or_pull_apart(self, name):
    weights = self.WEIGHTS[name]
    np.testing.assert_allclose(weights(np.zeros((3, 4))), 1 / 3, rtol=1e-12)
    np.testing.assert_allclose(weights(self.g[:1]).shape, (1,))
    nobody = weights(self.g, where=np.zeros(4, bool))
    np.testing.assert_array_equal(nobody, 0.0)
    opposite = np.asarray(weights(np.stack([self.g[0], -self.g[0]])))
    self.assertTrue(np.all(np.isfinite(opposite)))
    np.testing.assert_allclose(opposite[0], opposite[1], rtol=1e-12)
    # 0 is inside the hull of these three, but not their mean.
    triangle = np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -3.0]])
    self.assertTrue(np.all(np.isfinite(weights(triangle))))

  @parameterized.parameters(*WEIGHTS)
  def test_transforms_types_and_no_gradient(self, name):
    weights = self.WEIGHTS[name]
    transforms.assert_jit_and_vmap(weights, self.g)
    self.assertEqual(weights(jnp.asarray(self.g, jnp.float32)).dtype, "float32")
    slope = jax.grad(lambda g: jnp.sum(weights(g) ** 2))(jnp.asarray(self.g))
    np.testing.assert_array_equal(slope, 0.0)

  def test_errors(self):
    with self.assertRaisesRegex(
      ValueError, r"radius must be in \[0, 1\), got 1"
    ):
      cagrad_weights(self.g, radius=1.0)
    with self.assertRaisesRegex(ValueError, "6 sources at most, got 7"):
      pcgrad_weights(np.ones((7, 2)))
    for weights in (pcgrad_weights, cagrad_weights):
      with self.assertRaisesRegex(ValueError, "where must be"):
        weights(self.g, where=np.ones(3, bool))
      with self.assertRaises(TypeError):
        weights(np.ones((2, 3), np.int32))


class MoreDiagnosticsTest(parameterized.TestCase):
  def test_by_hand(self):
    g = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0], [-1.0, 0.0]], np.float32)
    weights = np.array([0.5, 0.5, 0.0, 0.0], np.float32)
    got = more_diagnostics(g, weights)
    np.testing.assert_allclose(got.entropy, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(got.norms, [3, 4, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(
      got.cosines,
      [[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 0, 0], [-1, 0, 0, 1]],
      atol=1e-6,
    )
    np.testing.assert_allclose(got.combined_norm, 2.5, rtol=1e-6)

  def test_masked_garbage_and_zeros_are_finite_with_finite_gradients(self):
    g = np.array([[3.0, 0.0], [np.nan, np.inf], [0.0, 0.0]], np.float32)
    weights = np.array([1.0, 0.0, 0.0], np.float32)
    where = np.array([True, False, True])
    for leaf in more_diagnostics(g, weights, where=where):
      self.assertTrue(np.all(np.isfinite(leaf)))
    grads = jax.grad(
      lambda g, w: more_diagnostics(g, w, where=where).norms.sum(), (0, 1)
    )(g, weights)
    self.assertTrue(all(np.all(np.isfinite(x)) for x in grads))

  def test_errors(self):
    with self.assertRaisesRegex(TypeError, "weights must be floating"):
      more_diagnostics(np.ones((2, 3), np.float32), np.ones(2, np.int32))
    with self.assertRaisesRegex(ValueError, r"weights must be \[2\]"):
      more_diagnostics(np.ones((2, 3), np.float32), np.ones(3, np.float32))


class SourceWeightedLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.losses = rng.random(12)
    self.source = np.repeat([0, 1, 3], 4)  # source 2 is absent
    self.weights = np.array([0.1, 0.2, 0.3, 0.4])

  def test_by_numpy_and_nothing_is_renormalised(self):
    means = [self.losses[self.source == k].mean() for k in (0, 1, 3)]
    np.testing.assert_allclose(
      source_weighted_loss(
        self.losses, source=self.source, weights=self.weights
      ),
      np.dot(means, [0.1, 0.2, 0.4]),
      rtol=1e-12,
    )

  def test_uniform_weights_on_a_stratified_batch_are_the_mean(self):
    np.testing.assert_allclose(
      source_weighted_loss(
        self.losses, source=np.arange(12) % 4, weights=np.full(4, 0.25)
      ),
      self.losses.mean(),
      rtol=1e-12,
    )

  def test_identical_sources_leave_the_plain_gradient(self):
    features = np.random.default_rng(1).normal(size=(6, 3))
    twice = np.concatenate([features, features])
    source = np.repeat([0, 1], 6)
    loss = lambda w: bradley_terry_loss(twice @ w, 0 * (twice @ w))

    def more(w):
      g = reward_head_gradients(
        twice, 0 * twice, twice @ w, source=source, num_sources=2
      )
      return source_weighted_loss(
        loss(w), source=source, weights=more_weights(g)
      )

    w = np.random.default_rng(2).normal(size=3)
    np.testing.assert_allclose(
      jax.grad(more)(w), jax.grad(lambda w: jnp.mean(loss(w)))(w), rtol=1e-9
    )

  def test_masked_losses_change_neither_value_nor_gradient(self):
    where = np.arange(12) % 3 != 0
    both = jax.value_and_grad(
      lambda x: source_weighted_loss(
        x, source=self.source, weights=self.weights, where=where
      )
    )
    clean = both(self.losses)
    dirty = both(np.where(where, self.losses, np.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    none = source_weighted_loss(
      self.losses,
      source=self.source,
      weights=self.weights,
      where=np.zeros(12, bool),
    )
    self.assertEqual(none, 0.0)

  def test_second_derivatives(self):
    fn = jax.jit(
      lambda x, w: source_weighted_loss(x**2, source=self.source, weights=w)
    )
    check_grads(fn, (self.losses, self.weights), order=2)
    transforms.assert_jit_and_vmap(fn, self.losses, self.weights)
    narrow = source_weighted_loss(
      jnp.asarray(self.losses, jnp.bfloat16),
      source=self.source,
      weights=jnp.asarray(self.weights, jnp.bfloat16),
    )
    self.assertEqual(narrow.dtype, jnp.float32)

  def test_without_axis_name_each_device_weighs_its_own_pairs(self):
    rng = np.random.default_rng(4)
    z, y = rng.normal(size=(2, 4, 6, 3))  # four devices, six pairs each
    source = np.arange(6) % 3

    def scalar(chosen, rejected):
      gaps = jnp.sum(chosen - rejected, axis=-1)
      g = reward_head_gradients(
        chosen, rejected, gaps, source=source, num_sources=3
      )
      losses = bradley_terry_loss(gaps, 0 * gaps)
      weights = more_weights(g)
      loss = source_weighted_loss(losses, source=source, weights=weights)
      return loss, weights

    parallel_modes.need_devices(4)
    loss, weights = jax.pmap(scalar, "data", devices=jax.devices()[:4])(z, y)
    for n in range(4):
      alone = scalar(z[n], y[n])
      np.testing.assert_allclose(loss[n], alone[0], rtol=1e-9)
      np.testing.assert_allclose(weights[n], alone[1], atol=1e-9)
    self.assertGreater(np.max(np.std(weights, axis=0)), 0.01)

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
      over = dict(
        source=batch["source"], where=batch["where"], axis_name=axis_name
      )
      reward = lambda z: jnp.sum(z * params["head"][None], -1)
      gaps = reward(chosen) - reward(rejected)
      g = reward_head_gradients(chosen, rejected, gaps, num_sources=3, **over)
      losses = bradley_terry_loss(reward(chosen), reward(rejected))
      return source_weighted_loss(losses, weights=more_weights(g), **over)

    params = dict(scale=rng.normal(size=4), head=rng.normal(size=4))
    parallel_modes.assert_same_in_all_modes(scalar, params, batch, rtol=1e-8)

  def test_errors(self):
    call = lambda x=self.losses, **k: source_weighted_loss(
      x, **{"source": self.source, "weights": self.weights, **k}
    )
    with self.assertRaisesRegex(ValueError, "losses must have 1 axes"):
      call(self.losses[:, None])
    with self.assertRaisesRegex(ValueError, "weights must have 1 axes"):
      call(weights=self.weights[None])
    with self.assertRaisesRegex(TypeError, "weights must be floating"):
      call(weights=np.arange(4))
    with self.assertRaisesRegex(TypeError, "source must be integer"):
      call(source=np.ones(12))
    with self.assertRaisesRegex(ValueError, r"source \(3,\)"):
      call(source=self.source[:3])
    with self.assertRaisesRegex(ValueError, r"where \(3,\)"):
      call(where=np.ones(3, bool))
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      call(where=np.ones(12))


if __name__ == "__main__":
  absltest.main()
