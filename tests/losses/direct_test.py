"""DPO against NumPy and published numbers, its robust form on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  dpo_loss,
  exponentiated_weights,
  group_robust_dpo_loss,
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


if __name__ == "__main__":
  absltest.main()
