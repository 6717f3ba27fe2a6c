"""Pair and ranking losses against NumPy, then what holds at any score."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign.losses import (
  bradley_terry_loss,
  plackett_luce_loss,
  reward_centering_penalty,
  soft_preference_loss,
)
from tests import references

CHOSEN = np.array([1.2, 0.3, -0.5, 2.0])
REJECTED = np.array([0.2, 0.9, -1.5, 2.0])


class PairLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.chosen, self.rejected = rng.normal(size=(2, 4, 3))
    self.margin, self.prob = rng.random(size=(2, 4, 3))

  @parameterized.product(margin=(0.0, 0.7, "array"), flip_rate=(0.0, 0.1))
  def test_bradley_terry_matches_reference(self, margin, flip_rate):
    margin = self.margin if margin == "array" else margin
    loss = jax.jit(
      lambda c, r: bradley_terry_loss(c, r, margin=margin, flip_rate=flip_rate)
    )
    np.testing.assert_allclose(
      loss(self.chosen, self.rejected),
      references.bradley_terry_loss(
        self.chosen, self.rejected, margin, flip_rate
      ),
      rtol=1e-12,
    )

  @parameterized.parameters(0.0, 0.3)
  def test_soft_preference_matches_reference(self, margin):
    np.testing.assert_allclose(
      jax.jit(soft_preference_loss)(
        self.chosen, self.rejected, chosen_prob=self.prob, margin=margin
      ),
      references.soft_preference_loss(
        self.chosen, self.rejected, self.prob, margin
      ),
      rtol=1e-12,
    )

  def test_published_bradley_terry(self):
    loss = bradley_terry_loss(CHOSEN, REJECTED)
    np.testing.assert_allclose(
      loss, [0.3132617, 1.0374880, 0.3132617, 0.6931472], atol=5e-8
    )
    np.testing.assert_allclose(np.mean(loss), 0.5892897, atol=5e-8)

  def test_published_margin(self):
    loss = bradley_terry_loss(
      CHOSEN, REJECTED, margin=np.array([0.5, 0.0, 1.0, 0.25])
    )
    np.testing.assert_allclose(
      loss, [0.4740770, 1.0374880, 0.6931472, 0.8259394], atol=5e-8
    )
    np.testing.assert_allclose(np.mean(loss), 0.7576629, atol=5e-8)

  def test_published_centering(self):
    penalty = reward_centering_penalty(CHOSEN, REJECTED)
    np.testing.assert_allclose(np.mean(penalty), 5.85, rtol=1e-12)
    total = bradley_terry_loss(CHOSEN, REJECTED) + 0.01 * penalty
    np.testing.assert_allclose(np.mean(total), 0.6477897, atol=5e-8)

  def test_published_smoothing_and_soft_labels(self):
    smooth = bradley_terry_loss(CHOSEN, REJECTED, flip_rate=0.1)
    np.testing.assert_allclose(np.mean(smooth), 0.6242896, atol=5e-8)
    prob = np.array([0.8, 0.5, 0.65, 0.5])
    soft = soft_preference_loss(CHOSEN, REJECTED, chosen_prob=prob)
    np.testing.assert_allclose(np.mean(soft), 0.6517896, atol=5e-8)

  def test_soft_preference_identities(self):
    loss = lambda c, r, p: soft_preference_loss(c, r, chosen_prob=p)
    np.testing.assert_array_equal(
      loss(self.chosen, self.rejected, 1.0),
      bradley_terry_loss(self.chosen, self.rejected),
    )
    np.testing.assert_allclose(
      loss(self.chosen, self.rejected, self.prob),
      loss(self.rejected, self.chosen, 1 - self.prob),
      rtol=1e-12,
    )
    np.testing.assert_allclose(
      loss(self.chosen, self.rejected, 0.9),
      bradley_terry_loss(self.chosen, self.rejected, flip_rate=0.1),
      rtol=1e-12,
    )

  @parameterized.parameters(0.2, 0.5, 0.9)
  def test_soft_preference_is_least_at_the_vote_share(self, prob):
    gap = np.log(prob / (1 - prob))
    slope = jax.grad(lambda g: soft_preference_loss(g, 0.0, chosen_prob=prob))
    np.testing.assert_allclose(slope(gap), 0.0, atol=1e-12)

  def test_common_shift_changes_nothing(self):
    np.testing.assert_allclose(
      bradley_terry_loss(self.chosen + 3.0, self.rejected + 3.0),
      bradley_terry_loss(self.chosen, self.rejected),
      rtol=1e-12,
    )

  @parameterized.product(
    gap=(-1e4, 0.0, 1e4),
    loss=(
      lambda c, r: bradley_terry_loss(c, r, flip_rate=0.1),
      lambda c, r: soft_preference_loss(c, r, chosen_prob=0.3),
      reward_centering_penalty,
    ),
  )
  def test_finite_to_second_order(self, gap, loss):
    gap = jnp.asarray(gap, jnp.float32)
    f = lambda c: loss(c, 0.0 * c)
    for g in (f, jax.grad(f), jax.grad(jax.grad(f)), jax.hessian(f)):
      self.assertTrue(np.isfinite(jax.jit(g)(gap)))

  def test_second_derivatives_match_finite_differences(self):
    pair = (self.chosen, self.rejected)
    check_grads(jax.jit(bradley_terry_loss), pair, order=2)
    check_grads(jax.jit(reward_centering_penalty), pair, order=2)
    check_grads(
      jax.jit(
        lambda c, r, p, m: soft_preference_loss(c, r, chosen_prob=p, margin=m)
      ),
      (*pair, self.prob, self.margin),
      order=2,
    )

  def test_vmap_equals_whole(self):
    for loss in (bradley_terry_loss, reward_centering_penalty):
      np.testing.assert_array_equal(
        jax.vmap(loss)(self.chosen, self.rejected),
        loss(self.chosen, self.rejected),
      )

  def test_bfloat16_is_raised(self):
    c, r = (jnp.asarray(x, jnp.bfloat16) for x in (CHOSEN, REJECTED))
    for loss in (
      bradley_terry_loss(c, r),
      soft_preference_loss(c, r, chosen_prob=0.5),
      reward_centering_penalty(c, r),
    ):
      self.assertEqual(loss.dtype, jnp.float32)

  def test_column_against_vector_raises(self):
    message = r"chosen.*\(4, 3\).*rejected.*\(4, 1\)"
    for loss in (
      bradley_terry_loss,
      reward_centering_penalty,
      lambda c, r: soft_preference_loss(c, r, chosen_prob=0.5),
    ):
      with self.assertRaisesRegex(ValueError, message):
        loss(self.chosen, self.rejected[:, :1])
    with self.assertRaisesRegex(ValueError, r"margin \(3,\)"):
      bradley_terry_loss(self.chosen, self.rejected, margin=self.margin[0])
    with self.assertRaisesRegex(ValueError, r"chosen_prob \(3,\)"):
      soft_preference_loss(self.chosen, self.rejected, chosen_prob=self.prob[0])

  def test_other_errors(self):
    with self.assertRaisesRegex(TypeError, "chosen must be floating"):
      bradley_terry_loss(np.ones(2, np.int32), np.ones(2))
    with self.assertRaisesRegex(TypeError, "margin must be floating"):
      bradley_terry_loss(CHOSEN, REJECTED, margin=np.ones(4, np.int32))
    for flip_rate in (-0.1, 0.5):
      with self.assertRaisesRegex(ValueError, "flip_rate"):
        bradley_terry_loss(CHOSEN, REJECTED, flip_rate=flip_rate)
    with self.assertRaisesRegex(ValueError, r"chosen_prob must be in \[0, 1\]"):
      soft_preference_loss(CHOSEN, REJECTED, chosen_prob=1.5)


class ListLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.scores = rng.normal(size=(3, 5))
    self.where = np.arange(5)[None] < np.array([5, 3, 2])[:, None]

  def test_matches_reference(self):
    for i in range(3):
      n = self.where[i].sum()
      np.testing.assert_allclose(
        plackett_luce_loss(self.scores, where=self.where)[i],
        references.plackett_luce_loss(self.scores[i, :n]),
        rtol=1e-12,
      )

  def test_a_gap_in_the_list_is_closed(self):
    where = np.array([True, False, True, True, False])
    np.testing.assert_allclose(
      plackett_luce_loss(self.scores[0], where=where),
      plackett_luce_loss(self.scores[0][where]),
      rtol=1e-12,
    )

  def test_two_responses_are_bradley_terry(self):
    pair = bradley_terry_loss(CHOSEN, REJECTED)
    scores = np.stack([CHOSEN, REJECTED], axis=-1)
    np.testing.assert_allclose(plackett_luce_loss(scores), pair, rtol=1e-12)

  def test_probabilities_of_all_rankings_sum_to_one(self):
    orders = np.array(list(itertools.permutations(range(4))))
    total = np.sum(np.exp(-plackett_luce_loss(self.scores[0][orders])))
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)

  def test_common_shift_changes_nothing(self):
    np.testing.assert_allclose(
      plackett_luce_loss(self.scores + 7.0),
      plackett_luce_loss(self.scores),
      rtol=1e-12,
    )

  def test_masked_scores_change_neither_value_nor_gradient(self):
    both = jax.value_and_grad(
      lambda s: jnp.sum(plackett_luce_loss(s, where=self.where))
    )
    clean = both(self.scores)
    for garbage in (np.nan, np.inf, 1e300):
      dirty = both(np.where(self.where, self.scores, garbage))
      jax.tree.map(np.testing.assert_array_equal, clean, dirty)

  def test_all_masked_is_zero_to_second_order(self):
    none = np.zeros((3, 5), bool)
    total = lambda s: jnp.sum(plackett_luce_loss(s, where=none))
    for f in (total, jax.grad(total), jax.hessian(total)):
      np.testing.assert_array_equal(jax.jit(f)(self.scores), 0.0)

  def test_finite_to_second_order_at_extremes(self):
    scores = jnp.asarray([[1e4, -1e4, 0.0, 1e4, -1e4]], jnp.float32)
    total = lambda s: jnp.sum(plackett_luce_loss(s))
    for f in (total, jax.grad(total), jax.hessian(total)):
      self.assertTrue(np.all(np.isfinite(jax.jit(f)(scores))))

  def test_second_derivatives_match_finite_differences(self):
    check_grads(
      jax.jit(lambda s: plackett_luce_loss(s, where=self.where)),
      (self.scores,),
      order=2,
    )

  def test_jit_equals_eager_and_vmap_equals_whole(self):
    whole = plackett_luce_loss(self.scores, where=self.where)
    row = lambda s, w: plackett_luce_loss(s, where=w)
    np.testing.assert_allclose(
      jax.jit(jax.vmap(row))(self.scores, self.where), whole, rtol=1e-12
    )

  def test_errors(self):
    with self.assertRaisesRegex(TypeError, "scores must be floating"):
      plackett_luce_loss(np.ones((2, 3), np.int32))
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      plackett_luce_loss(self.scores, where=np.ones((3, 5)))
    with self.assertRaisesRegex(ValueError, r"where \(5,\)"):
      plackett_luce_loss(self.scores, where=self.where[0])
    with self.assertRaisesRegex(ValueError, "last axis"):
      plackett_luce_loss(np.float64(1.0))


if __name__ == "__main__":
  absltest.main()
