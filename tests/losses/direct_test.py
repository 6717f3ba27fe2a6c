"""DPO, robust DPO, IPO and KTO against NumPy and what is known of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  bradley_terry_loss,
  dpo_loss,
  exponentiated_weights,
  group_robust_dpo_loss,
  implicit_rewards,
  ipo_loss,
  kto_loss,
  robust_preference_loss,
)
from tests import parallel_modes, references, transforms

CHOSEN = np.array([26.919204, 8.445057, 9.528484, 8.301252])
REJECTED = np.array([3.739464, -8.8855, 3.369818, 17.67624])
REF_CHOSEN = np.array([-15.300727, 8.715205, -11.120328, -7.115157])
REF_REJECTED = np.array([-11.676011, -6.456438, -3.140371, -17.857212])
NAMES = (
  "chosen_log_probs",
  "rejected_log_probs",
  "ref_chosen_log_probs",
  "ref_rejected_log_probs",
)


class DpoLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.arrays = np.random.default_rng(0).normal(size=(4, 3, 2)) * 3

  @parameterized.parameters(0.0, 0.3)
  def test_matches_reference(self, flip_rate):
    loss = jax.jit(functools.partial(dpo_loss, beta=0.4, flip_rate=flip_rate))
    np.testing.assert_allclose(
      loss(*self.arrays),
      references.dpo_loss(*self.arrays, 0.4, flip_rate),
      rtol=1e-12,
    )

  @parameterized.parameters((0.0, 0.753059), (0.3, 0.925447))
  def test_published_numbers(self, flip_rate, expected):
    loss = dpo_loss(
      CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, beta=0.1, flip_rate=flip_rate
    )
    self.assertAlmostEqual(float(jnp.mean(loss)), expected, delta=1e-6)

  def test_the_reference_itself_has_log_two(self):
    loss = dpo_loss(CHOSEN, REJECTED, CHOSEN, REJECTED, beta=0.1)
    np.testing.assert_allclose(loss, 0.6931472, atol=1e-7)

  def test_a_shift_shared_with_the_reference_changes_nothing(self):
    c, r, rc, rr = self.arrays
    np.testing.assert_allclose(
      dpo_loss(c + 2, r - 1, rc + 2, rr - 1, beta=0.4),
      dpo_loss(c, r, rc, rr, beta=0.4),
      rtol=1e-12,
    )

  def test_derivatives_and_transforms(self):
    loss = functools.partial(dpo_loss, beta=0.4, flip_rate=0.1)
    transforms.assert_second_order(loss, *self.arrays)
    transforms.assert_jit_and_vmap(loss, *self.arrays)

  def test_finite_at_extremes(self):
    far = np.array([1e4, -1e4, 0.0])
    transforms.assert_finite(
      functools.partial(dpo_loss, beta=1.0, flip_rate=0.1), far, -far, far, far
    )

  def test_dtypes(self):
    half = [jnp.asarray(x, jnp.bfloat16) for x in self.arrays]
    self.assertEqual(dpo_loss(*half, beta=0.1).dtype, jnp.float32)
    for i, name in enumerate(NAMES):
      arrays = list(self.arrays)
      arrays[i] = arrays[i].astype(int)
      with self.assertRaisesRegex(TypeError, f"{name} must be floating"):
        dpo_loss(*arrays, beta=0.1)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"rejected_log_probs \(2,\)"):
      dpo_loss(CHOSEN, REJECTED[:2], REF_CHOSEN, REF_REJECTED, beta=0.1)
    with self.assertRaisesRegex(ValueError, "beta must be positive, got 0"):
      dpo_loss(CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, beta=0.0)
    with self.assertRaisesRegex(ValueError, "flip_rate.*0.5"):
      dpo_loss(
        CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, beta=0.1, flip_rate=0.5
      )


class GroupRobustDpoTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.arrays = list(np.random.default_rng(0).normal(size=(4, 16)) * 3)
    self.group = np.arange(16) % 3 * (np.arange(16) < 12)
    self.where = np.arange(16) != 5
    self.weights = np.array([0.5, 0.2, 0.3])
    self.loss = functools.partial(group_robust_dpo_loss, beta=0.3)

  def test_matches_reference(self):
    loss, group_losses = jax.jit(functools.partial(self.loss, flip_rate=0.1))(
      *self.arrays, group=self.group, weights=self.weights, where=self.where
    )
    per_pair = references.dpo_loss(*self.arrays, 0.3, 0.1)
    want = references.segment_mean(per_pair, self.group, 3, self.where)
    np.testing.assert_allclose(group_losses, want, rtol=1e-12)
    np.testing.assert_allclose(loss, self.weights @ want, rtol=1e-12)

  def test_one_group_is_plain_dpo(self):
    loss, _ = self.loss(
      *self.arrays, group=np.zeros(16, int), weights=np.ones(1)
    )
    np.testing.assert_allclose(
      loss, np.mean(dpo_loss(*self.arrays, beta=0.3)), rtol=1e-12
    )

  def test_renaming_the_groups_changes_nothing(self):
    order = np.array([2, 0, 1])
    loss, group_losses = self.loss(
      *self.arrays, group=self.group, weights=self.weights
    )
    renamed, renamed_losses = self.loss(
      *self.arrays,
      group=np.argsort(order)[self.group],
      weights=self.weights[order],
    )
    np.testing.assert_allclose(renamed, loss, rtol=1e-12)
    np.testing.assert_allclose(renamed_losses, group_losses[order], rtol=1e-12)

  def test_a_group_without_pairs_adds_nothing_and_is_not_renormalised(self):
    where = self.group != 2
    loss, group_losses = self.loss(
      *self.arrays, group=self.group, weights=self.weights, where=where
    )
    self.assertEqual(group_losses[2], 0.0)
    np.testing.assert_allclose(loss, self.weights[:2] @ group_losses[:2])
    nothing, _ = self.loss(
      *self.arrays, group=self.group, weights=self.weights, where=where & False
    )
    self.assertEqual(nothing, 0.0)

  def test_padding_changes_nothing(self):
    garbage = [np.append(x, [np.nan, np.inf]) for x in self.arrays]

    def loss(*args):
      *arrays, padding = args
      return self.loss(
        *arrays,
        group=np.append(self.group, np.full(padding, 1)),
        weights=self.weights,
        where=np.arange(16 + padding) < 16,
      )[0]

    transforms.assert_padding_changes_nothing(loss, self.arrays, garbage)

  def test_mirror_ascent_equalises_what_can_be_equalised(self):
    # One parameter, two groups with opposite wishes, nine pairs to one: the
    # average follows the nine, the saddle point gives both log 2.
    group = np.array([0] * 9 + [1])
    sign = jnp.where(group == 0, 1.0, -1.0)
    zeros = jnp.zeros(10)

    @jax.jit
    def step(carry, _):
      theta, weights = carry
      objective = lambda t: group_robust_dpo_loss(
        t * sign, zeros, zeros, zeros, beta=1.0, group=group, weights=weights
      )
      grad, losses = jax.grad(objective, has_aux=True)(theta)
      weights = exponentiated_weights(weights, -losses, step_size=0.05)
      return (theta - 0.1 * grad, weights), losses

    start = (jnp.asarray(1.0), jnp.array([0.9, 0.1]))
    _, losses = jax.lax.scan(step, start, length=4000)
    np.testing.assert_allclose(losses[-1000:].mean(0), np.log(2), atol=1e-2)

  def test_derivatives_and_transforms(self):
    loss = lambda *xs: self.loss(
      *xs, group=self.group, weights=self.weights, where=self.where
    )
    transforms.assert_second_order(loss, *self.arrays)
    transforms.assert_jit_and_vmap(loss, *self.arrays)

  def test_same_in_all_modes(self):
    def loss(params, batch, axis_name):
      chosen, rejected = batch["x"].T @ params["w"], batch["x"].T[:, 0]
      value, group_losses = group_robust_dpo_loss(
        chosen,
        rejected,
        jnp.zeros_like(chosen),
        jnp.zeros_like(chosen),
        beta=0.3,
        group=batch["group"],
        weights=params["weights"],
        where=batch["where"],
        axis_name=axis_name,
      )
      return value + jnp.sum(jnp.square(group_losses))

    x = np.stack(self.arrays).T
    parallel_modes.assert_same_in_all_modes(
      lambda p, b, axis_name: loss(p, dict(b, x=b["x"].T), axis_name),
      dict(w=np.array([0.2, -0.4, 0.1, 0.7]), weights=self.weights),
      dict(x=x, group=self.group, where=self.where),
    )

  def test_errors(self):
    with self.assertRaisesRegex(TypeError, "group must be integer"):
      self.loss(*self.arrays, group=np.ones(16), weights=self.weights)
    with self.assertRaisesRegex(ValueError, r"\(16,\), group \(3,\)"):
      self.loss(*self.arrays, group=self.group[:3], weights=self.weights)
    with self.assertRaisesRegex(ValueError, "weights must have 1 axes"):
      self.loss(*self.arrays, group=self.group, weights=np.ones((3, 1)))
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      self.loss(
        *self.arrays,
        group=self.group,
        weights=self.weights,
        where=np.ones(16),
      )


class ImplicitRewardsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_dpo_is_bradley_terry_of_implicit_rewards(self):
    arrays = np.random.default_rng(0).normal(size=(4, 5)) * 3
    chosen, rejected, ref_chosen, ref_rejected = arrays
    np.testing.assert_allclose(
      bradley_terry_loss(
        implicit_rewards(chosen, beta=0.4, ref_log_probs=ref_chosen),
        implicit_rewards(rejected, beta=0.4, ref_log_probs=ref_rejected),
        flip_rate=0.1,
      ),
      dpo_loss(*arrays, beta=0.4, flip_rate=0.1),
      rtol=1e-12,
    )

  def test_per_token_and_without_a_reference(self):
    log_probs, lengths = np.array([-6.0, -1.0, 0.0]), np.array([3, 2, 0])
    np.testing.assert_allclose(
      implicit_rewards(log_probs, beta=2.0, lengths=lengths), [-4.0, -1.0, 0.0]
    )
    np.testing.assert_allclose(
      implicit_rewards(
        log_probs, beta=2.0, ref_log_probs=log_probs - 3, lengths=lengths
      ),
      [2.0, 3.0, 6.0],
    )

  def test_derivatives(self):
    xs = np.random.default_rng(0).normal(size=(2, 3))
    lengths = np.array([3, 2, 1])
    loss = lambda x, ref: implicit_rewards(
      x, beta=0.3, ref_log_probs=ref, lengths=lengths
    )
    transforms.assert_second_order(loss, *xs)

  def test_errors(self):
    ones = np.ones(3)
    with self.assertRaisesRegex(ValueError, "beta must be positive, got 0"):
      implicit_rewards(ones, beta=0)
    with self.assertRaisesRegex(ValueError, r"ref_log_probs \(2,\)"):
      implicit_rewards(ones, beta=0.1, ref_log_probs=ones[:2])
    with self.assertRaisesRegex(ValueError, r"lengths \(2,\)"):
      implicit_rewards(ones, beta=0.1, lengths=np.ones(2, int))
    with self.assertRaisesRegex(TypeError, "lengths must be integer"):
      implicit_rewards(ones, beta=0.1, lengths=ones)


class RobustPreferenceLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.pair = np.random.default_rng(0).normal(size=(2, 4, 3)) * 3

  @parameterized.product(flip_rate=(0.0, 0.3), margin=(0.0, 0.7))
  def test_matches_reference(self, flip_rate, margin):
    loss = jax.jit(
      functools.partial(
        robust_preference_loss, flip_rate=flip_rate, margin=margin
      )
    )
    np.testing.assert_allclose(
      loss(*self.pair),
      references.robust_preference_loss(*self.pair, flip_rate, margin),
      rtol=1e-11,
      atol=1e-12,
    )

  def test_its_mean_over_flips_is_the_loss_of_the_true_label(self):
    chosen, rejected = self.pair
    kept = robust_preference_loss(chosen, rejected, flip_rate=0.2)
    swapped = robust_preference_loss(rejected, chosen, flip_rate=0.2)
    np.testing.assert_allclose(
      0.8 * kept + 0.2 * swapped,
      bradley_terry_loss(chosen, rejected),
      rtol=1e-11,
    )

  def test_derivatives_transforms_and_extremes(self):
    loss = functools.partial(robust_preference_loss, flip_rate=0.2)
    transforms.assert_second_order(loss, *self.pair)
    transforms.assert_jit_and_vmap(loss, *self.pair)
    far = np.array([1e4, -1e4, 0.0])
    transforms.assert_finite(loss, far, -far)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "flip_rate.*got 0.5"):
      robust_preference_loss(*self.pair, flip_rate=0.5)
    with self.assertRaisesRegex(ValueError, r"rejected \(3,\)"):
      robust_preference_loss(self.pair[0], self.pair[1, 0], flip_rate=0.1)
    with self.assertRaisesRegex(TypeError, "chosen must be floating"):
      robust_preference_loss(*self.pair.astype(int), flip_rate=0.1)


class IpoLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.pair, self.prob = rng.normal(size=(2, 4, 3)), rng.uniform(size=(4, 3))

  @parameterized.parameters(0.1, 0.7)
  def test_matches_reference(self, beta):
    loss = jax.jit(functools.partial(ipo_loss, beta=beta, margin=0.3))
    np.testing.assert_allclose(
      loss(*self.pair, chosen_prob=self.prob),
      references.ipo_loss(*self.pair, beta, self.prob, 0.3),
      rtol=1e-12,
    )
    np.testing.assert_allclose(
      loss(*self.pair),
      references.ipo_loss(*self.pair, beta, 1.0, 0.3),
      rtol=1e-12,
    )

  def test_the_least_is_where_the_label_asks(self):
    beta, prob = 0.25, 0.9
    wanted = (2 * prob - 1) / 2  # in reward units, β times the log-ratio
    slope = jax.grad(
      lambda d: ipo_loss(d, 0.0 * d, beta=beta, chosen_prob=prob)
    )
    self.assertAlmostEqual(float(slope(wanted)), 0.0, places=12)
    self.assertLess(float(slope(wanted - 0.1)), 0)

  def test_swapping_the_responses_and_the_label_changes_nothing(self):
    chosen, rejected = self.pair
    np.testing.assert_allclose(
      ipo_loss(chosen, rejected, beta=0.2, chosen_prob=self.prob),
      ipo_loss(rejected, chosen, beta=0.2, chosen_prob=1 - self.prob),
      rtol=1e-11,
    )

  def test_derivatives_transforms_and_extremes(self):
    loss = lambda c, r, p: ipo_loss(c, r, beta=0.3, chosen_prob=p)
    transforms.assert_second_order(loss, *self.pair, self.prob)
    transforms.assert_jit_and_vmap(loss, *self.pair, self.prob)
    far = np.array([1e4, -1e4, 0.0])
    transforms.assert_finite(loss, far, -far, np.full(3, 0.3))

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "beta must be positive, got -1"):
      ipo_loss(*self.pair, beta=-1.0)
    with self.assertRaisesRegex(ValueError, "chosen_prob.*1.5"):
      ipo_loss(*self.pair, beta=0.1, chosen_prob=1.5)
    with self.assertRaisesRegex(ValueError, r"chosen_prob \(3,\)"):
      ipo_loss(*self.pair, beta=0.1, chosen_prob=self.prob[0])


class KtoLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.rewards, self.share = rng.normal(size=9) * 2, rng.uniform(size=9)

  @parameterized.parameters(0.0, 0.8)
  def test_matches_reference(self, point):
    loss = jax.jit(
      functools.partial(
        kto_loss,
        reference_point=point,
        desirable_weight=1.3,
        undesirable_weight=0.6,
      )
    )
    for desirable in (self.share, self.share > 0.5):
      np.testing.assert_allclose(
        loss(self.rewards, desirable=desirable),
        references.kto_loss(self.rewards, point, desirable, 1.3, 0.6),
        rtol=1e-12,
      )

  def test_a_shift_of_rewards_and_reference_point_changes_nothing(self):
    at = lambda shift: kto_loss(
      self.rewards + shift, reference_point=shift, desirable=self.share
    )
    np.testing.assert_allclose(at(3.0), at(0.0), rtol=1e-11)

  def test_derivatives_transforms_and_extremes(self):
    loss = lambda r, p: kto_loss(r, reference_point=0.3, desirable=p)
    transforms.assert_second_order(loss, self.rewards, self.share)
    transforms.assert_jit_and_vmap(loss, self.rewards, self.share)
    far = np.array([1e4, -1e4, 0.0])
    transforms.assert_finite(loss, far, np.array([1.0, 0.0, 0.5]))

  def test_errors(self):
    given = dict(reference_point=0.0, desirable=self.share)
    with self.assertRaisesRegex(ValueError, "undesirable_weight.*got -1"):
      kto_loss(self.rewards, **given, undesirable_weight=-1.0)
    with self.assertRaisesRegex(ValueError, r"desirable \(9,\)"):
      kto_loss(self.rewards[:3], **given)
    with self.assertRaisesRegex(ValueError, r"reference_point \(2,\)"):
      kto_loss(self.rewards, reference_point=np.zeros(2), desirable=self.share)
    with self.assertRaisesRegex(TypeError, "rewards must be floating"):
      kto_loss(np.ones(9, int), **given)


if __name__ == "__main__":
  absltest.main()
