"""Contrastive losses against NumPy; a device sees the candidates of all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  FeatureQueue,
  difference_rows,
  pair_rows,
  simcse_loss,
  swav_loss,
)
from tests import parallel_modes, references, transforms

EMBEDDINGS = np.array(
  [[-1.954, 1.078], [0.238, -0.5703], [1.8745, -0.0195], [-0.6719, -1.921]]
)
WHERE = np.arange(8) != 3


def mean_over(losses, where, axis_name):
  """Σ losses / number counted, over all devices."""
  total, count = jnp.sum(losses), jnp.sum(where).astype(losses.dtype)
  if axis_name is not None:
    total = jax.lax.psum(total, axis_name)
    count = jax.lax.psum(count, axis_name)
  return total / count


class RowsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.chosen, self.rejected = np.random.default_rng(0).normal(size=(2, 3, 4))

  def test_rows_of_pairs_and_of_differences(self):
    rows = pair_rows(self.chosen, self.rejected)
    np.testing.assert_array_equal(rows[:3], self.chosen)
    np.testing.assert_array_equal(rows[3:], self.rejected)
    rows = difference_rows(self.chosen, self.rejected)
    self.assertEqual(rows.shape, (6, 4))
    np.testing.assert_array_equal(rows[3:], -rows[:3])
    np.testing.assert_allclose(rows[:3], self.chosen - self.rejected)

  @parameterized.parameters(pair_rows, difference_rows)
  def test_transforms_and_errors(self, fn):
    transforms.assert_second_order(fn, self.chosen, self.rejected)
    transforms.assert_jit_and_vmap(fn, self.chosen, self.rejected)
    half = jnp.ones((2, 3), jnp.bfloat16)
    self.assertEqual(fn(half, half).dtype, jnp.float32)
    with self.assertRaisesRegex(ValueError, r"chosen \(3, 4\), rejected \(2"):
      fn(self.chosen, self.rejected[:2])
    with self.assertRaisesRegex(TypeError, "rejected must be floating"):
      fn(self.chosen, self.rejected.astype(int))


class SimcseTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.a, self.b = np.random.default_rng(0).normal(size=(2, 8, 3))

  def test_matches_reference(self):
    np.testing.assert_allclose(
      jax.jit(functools.partial(simcse_loss, temperature=0.3))(
        self.a, self.b, where=WHERE
      ),
      references.simcse_loss(self.a, self.b, 0.3, WHERE),
      rtol=1e-11,
    )

  def test_published_numbers(self):
    a = np.array([[1.0, 0], [0, 1], [1, 1]])
    b = np.array([[1, 0.1], [0.2, 1], [0.5, 1]])
    loss = simcse_loss(a, b, temperature=1.0)
    np.testing.assert_allclose(
      loss, [0.7070604, 0.8466362, 1.0041546], atol=1e-7
    )
    self.assertAlmostEqual(float(jnp.mean(loss)), 0.8526171, places=7)
    self.assertAlmostEqual(
      float(jnp.mean(simcse_loss(a, b, temperature=0.05))), 0.0947298, places=7
    )

  def test_length_and_order_of_rows_do_not_matter(self):
    order = np.random.default_rng(1).permutation(8)
    scale = np.linspace(0.1, 9, 8)[:, None]
    plain = simcse_loss(self.a, self.b)
    np.testing.assert_allclose(simcse_loss(self.a * scale, self.b / 7), plain)
    np.testing.assert_allclose(
      simcse_loss(self.a[order], self.b[order]), plain[order], rtol=1e-10
    )

  def test_edges(self):
    np.testing.assert_array_equal(
      simcse_loss(self.a, self.b, where=WHERE & False), 0.0
    )
    np.testing.assert_allclose(
      simcse_loss(self.a[:1], self.b[:1]), 0.0, atol=1e-12
    )
    zeros = self.a * (np.arange(8) != 2)[:, None]
    for a, b in ((zeros, zeros), (self.a * 1e4, self.b * -1e4)):
      transforms.assert_finite(simcse_loss, a, b)

  def test_negated_differences_are_each_others_hardest_negatives(self):
    rows = difference_rows(self.a[:2], self.b[:2])
    # Without dropout the views agree: the positive is at 1, its mirror at −1.
    loss = simcse_loss(rows, rows, temperature=1.0)
    cosine = references.unit(rows) @ references.unit(rows).T
    np.testing.assert_allclose(np.diag(cosine[:2, 2:]), -1.0)
    np.testing.assert_allclose(loss[:2], loss[2:], rtol=1e-12)

  def test_derivatives_and_transforms(self):
    fn = functools.partial(simcse_loss, temperature=0.3, where=WHERE)
    transforms.assert_second_order(fn, self.a, self.b)
    transforms.assert_jit_and_vmap(fn, self.a, self.b)

  def test_padding_changes_nothing(self):
    garbage = np.full((2, 3), np.nan)

    def loss(a, b, padding):
      where = np.append(WHERE, np.full(padding, False))
      return jnp.sum(simcse_loss(a, b, temperature=0.3, where=where))

    transforms.assert_padding_changes_nothing(
      loss,
      [self.a, self.b],
      [np.append(self.a, garbage, 0), np.append(self.b, garbage * 0, 0)],
    )

  def test_same_in_all_modes(self):
    def loss(params, batch, axis_name):
      losses = simcse_loss(
        batch["a"] @ params,
        batch["b"] @ params,
        temperature=0.3,
        where=batch["where"],
        axis_name=axis_name,
      )
      return mean_over(losses, batch["where"], axis_name)

    parallel_modes.assert_same_in_all_modes(
      loss,
      np.random.default_rng(1).normal(size=(3, 3)),
      dict(a=self.a, b=self.b, where=WHERE),
    )

  def test_dtypes(self):
    half = jnp.ones((2, 3), jnp.bfloat16)
    self.assertEqual(simcse_loss(half, half).dtype, jnp.float32)

  @parameterized.parameters(
    (TypeError, "view_b must be floating", dict(view_b=np.ones((8, 3), int))),
    (ValueError, r"view_a \(8, 3\), view_b", dict(view_b=np.ones((7, 3)))),
    (ValueError, "view_a must have 2 axes", dict(view_a=np.ones(3))),
    (ValueError, "temperature must be positive", dict(temperature=0.0)),
    (TypeError, "where must be bool", dict(where=np.ones(8))),
    (ValueError, r"where must be \(8,\)", dict(where=WHERE[:2])),
  )
  def test_errors(self, error, message, change):
    arguments = dict(view_a=self.a, view_b=self.b) | change
    a, b = arguments.pop("view_a"), arguments.pop("view_b")
    with self.assertRaisesRegex(error, message):
      simcse_loss(a, b, **arguments)


class SwavTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.a, self.b = rng.normal(size=(2, 8, 3))
    self.prototypes = rng.normal(size=(4, 3))

  def test_matches_reference(self):
    fn = jax.jit(functools.partial(swav_loss, epsilon=0.2, num_iters=4))
    np.testing.assert_allclose(
      fn(self.a, self.b, self.prototypes),
      references.swav_loss(self.a, self.b, self.prototypes, 0.1, 0.2, 4),
      rtol=1e-9,
    )

  def test_views_are_exchangeable_and_prototypes_nameless(self):
    plain = swav_loss(self.a, self.b, self.prototypes)
    np.testing.assert_allclose(
      swav_loss(self.b, self.a, self.prototypes[[2, 0, 3, 1]]), plain
    )
    np.testing.assert_allclose(
      swav_loss(self.a * 5, self.b, self.prototypes * 0.1), plain, rtol=1e-10
    )

  def test_a_queue_takes_part_in_the_assignments_only(self):
    rng = np.random.default_rng(1)
    old_a, old_b = rng.normal(size=(2, 5, 3))
    queue = FeatureQueue(old_a, old_b, np.array([1, 1, 1, 0, 0], bool))
    got = swav_loss(self.a, self.b, self.prototypes, queue=queue)
    both = lambda new, old: np.concatenate([new, old[:3]])
    want = references.swav_loss(
      both(self.a, old_a), both(self.b, old_b), self.prototypes, 0.1, 0.05, 3
    )[:8]
    np.testing.assert_allclose(got, want, rtol=1e-8)
    empty = queue._replace(where=np.zeros(5, bool))
    np.testing.assert_allclose(
      swav_loss(self.a, self.b, self.prototypes, queue=empty),
      swav_loss(self.a, self.b, self.prototypes),
    )

  def test_assignments_carry_no_gradient(self):
    # Then the gradient in a is that of the prediction alone.
    q_b = references.balanced_assignments(
      references.unit(self.b) @ references.unit(self.prototypes).T / 0.05, 3
    )

    def prediction(a):
      unit = a / jnp.linalg.norm(a, axis=1, keepdims=True)
      logits = unit @ references.unit(self.prototypes).T / 0.1
      return -jnp.sum(q_b * jax.nn.log_softmax(logits))

    got = jax.grad(lambda a: jnp.sum(swav_loss(a, self.b, self.prototypes)))(
      jnp.asarray(self.a)
    )
    np.testing.assert_allclose(
      got, jax.grad(prediction)(jnp.asarray(self.a)), rtol=1e-6
    )

  def test_second_derivatives(self):
    # Of the predictions: at a large ε the assignments are equal shares, which
    # finite differences cannot move either.
    fixed = functools.partial(
      swav_loss, temperature=0.5, epsilon=1e12, where=WHERE
    )
    transforms.assert_second_order(fixed, self.a, self.b, self.prototypes)

  def test_transforms(self):
    fn = functools.partial(swav_loss, where=WHERE)
    transforms.assert_jit_and_vmap(fn, self.a, self.b, self.prototypes)

  def test_edges(self):
    np.testing.assert_array_equal(
      swav_loss(self.a, self.b, self.prototypes, where=WHERE & False), 0.0
    )
    np.testing.assert_allclose(
      swav_loss(self.a, self.b, self.prototypes[:1]), 0.0, atol=1e-12
    )
    zeros = self.a * (np.arange(8) != 2)[:, None]
    for a in (zeros, self.a * 1e4):
      transforms.assert_finite(swav_loss, a, -a, self.prototypes * 1e4)

  def test_padding_changes_nothing(self):
    garbage = np.full((2, 3), np.nan)

    def loss(a, b, c, padding):
      where = np.append(WHERE, np.full(padding, False))
      return jnp.sum(swav_loss(a, b, c, where=where))

    transforms.assert_padding_changes_nothing(
      loss,
      [self.a, self.b, self.prototypes],
      [
        np.append(self.a, garbage, 0),
        np.append(self.b, garbage, 0),
        self.prototypes,
      ],
    )

  def test_same_in_all_modes(self):
    queue = FeatureQueue(self.b[:3] + 1, self.a[:3], np.array([1, 1, 0], bool))

    def loss(params, batch, axis_name):
      losses = swav_loss(
        batch["a"] @ params["w"],
        batch["b"] @ params["w"],
        params["prototypes"],
        where=batch["where"],
        queue=queue,
        axis_name=axis_name,
      )
      return mean_over(losses, batch["where"], axis_name)

    parallel_modes.assert_same_in_all_modes(
      loss,
      dict(
        w=np.random.default_rng(1).normal(size=(3, 3)),
        prototypes=self.prototypes,
      ),
      dict(a=self.a, b=self.b, where=WHERE),
    )

  def test_dtypes(self):
    half = jnp.asarray(self.a, jnp.bfloat16)
    out = swav_loss(half, half, jnp.asarray(self.prototypes, jnp.float32))
    self.assertEqual(out.dtype, jnp.float32)

  @parameterized.parameters(
    (ValueError, "epsilon must be positive", dict(epsilon=0.0)),
    (ValueError, "num_iters must be at least 1", dict(num_iters=0)),
    (
      ValueError,
      r"prototypes must be \[K, 3\]",
      dict(prototypes=np.ones((4, 2))),
    ),
    (ValueError, "prototypes must have 2 axes", dict(prototypes=np.ones(3))),
    (
      TypeError,
      "prototypes must be floating",
      dict(prototypes=np.ones((4, 3), int)),
    ),
    (ValueError, "temperature must be positive", dict(temperature=-1.0)),
  )
  def test_errors(self, error, message, change):
    arguments = dict(prototypes=self.prototypes) | change
    prototypes = arguments.pop("prototypes")
    with self.assertRaisesRegex(error, message):
      swav_loss(self.a, self.b, prototypes, **arguments)


if __name__ == "__main__":
  absltest.main()
