"""MetaRM's spread and lookahead gradient, first and second order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, PartitionSpec

from jaxalign.losses import (
  adam_precondition,
  bradley_terry_loss,
  lookahead_gradient,
  reward_spread,
  unit_precondition,
)
from tests import parallel_modes, references, transforms


class RewardSpreadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.rewards = np.random.default_rng(0).normal(size=(3, 5))

  def test_matches_reference(self):
    np.testing.assert_allclose(
      jax.jit(reward_spread)(self.rewards),
      [references.reward_spread(r) for r in self.rewards],
      rtol=1e-12,
    )

  def test_range_for_five_responses(self):
    np.testing.assert_allclose(reward_spread(np.ones(5)), 0.4)
    np.testing.assert_allclose(
      reward_spread(np.array([1, 2, 3, 4, 5]) * 1e4), 0.8
    )
    self.assertEqual(reward_spread(np.ones((2, 1))).tolist(), [0, 0])

  def test_shift_order_and_sign_change_nothing(self):
    for same in (self.rewards + 3, self.rewards[:, ::-1], -self.rewards):
      np.testing.assert_allclose(
        reward_spread(same), reward_spread(self.rewards), rtol=1e-12
      )

  def test_ties_have_no_gradient(self):
    grad = jax.grad(reward_spread)(jnp.array([1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(grad, 0.0)

  def test_derivatives_and_transforms(self):
    transforms.assert_second_order(reward_spread, self.rewards)
    transforms.assert_jit_and_vmap(reward_spread, self.rewards)
    transforms.assert_finite(reward_spread, np.array([1e4, -1e4, 1e4, 0.0]))

  def test_dtypes_and_errors(self):
    half = reward_spread(jnp.ones(3, jnp.bfloat16))
    self.assertEqual(half.dtype, jnp.float32)
    with self.assertRaisesRegex(TypeError, "rewards must be floating"):
      reward_spread(np.arange(3))
    with self.assertRaisesRegex(ValueError, r"\[..., k\] with a response"):
      reward_spread(np.zeros((2, 0)))


def problem(seed=0, rows=8):
  rng = np.random.default_rng(seed)
  params = dict(w=rng.normal(size=(4, 3)) * 0.5, v=rng.normal(size=3))
  batch = dict(
    chosen=rng.normal(size=(rows, 4)),
    rejected=rng.normal(size=(rows, 4)),
    responses=rng.normal(size=(rows, 5, 4)),
  )
  return params, batch


def reward(params, x):
  return jnp.tanh(x @ params["w"]) @ params["v"]


def pair_loss(batch, params):
  return jnp.mean(
    bradley_terry_loss(
      reward(params, batch["chosen"]), reward(params, batch["rejected"])
    )
  )


def spread(batch, params):
  return jnp.mean(reward_spread(reward(params, batch["responses"])))


class LookaheadGradientTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.params, self.batch = problem()
    self.loss = functools.partial(pair_loss, self.batch)
    self.ascent = functools.partial(spread, self.batch)

  def lookahead(self, params=None, **knobs):
    params = self.params if params is None else params
    return lookahead_gradient(self.loss, self.ascent, params, **knobs)

  @parameterized.product(step_size=(0, 0.0), second_order=(False, True))
  def test_no_step_is_plain_bit_for_bit(self, step_size, second_order):
    got = jax.jit(
      lambda p: self.lookahead(
        p, step_size=step_size, second_order=second_order
      )
    )(self.params)
    plain = jax.jit(jax.value_and_grad(self.loss))(self.params)
    jax.tree.map(np.testing.assert_array_equal, got, plain)

  def test_a_traced_zero_is_plain_too(self):
    got = self.lookahead(step_size=jnp.asarray(0.0))
    plain = jax.value_and_grad(self.loss)(self.params)
    jax.tree.map(np.testing.assert_array_equal, got, plain)

  def test_first_order_is_the_gradient_at_the_point_ahead(self):
    direction = jax.grad(self.ascent)(self.params)
    point = jax.tree.map(lambda x, d: x + 0.3 * d, self.params, direction)
    got = self.lookahead(step_size=0.3)
    self.assertAlmostEqual(float(got[0]), float(self.loss(point)), places=12)
    for name, leaf in point.items():
      for index in np.ndindex(leaf.shape):
        nudged = lambda s, name=name, leaf=leaf, index=index: self.loss(
          point | {name: leaf.at[index].add(s)}
        )
        slope = (nudged(1e-5) - nudged(-1e-5)) / 2e-5
        self.assertAlmostEqual(float(got[1][name][index]), float(slope), 7)

  @parameterized.parameters(None, "unit")
  def test_second_order_is_the_gradient_through_the_step(self, precondition):
    precondition = unit_precondition if precondition == "unit" else None

    @jax.jit
    def value(params):
      return self.lookahead(
        params,
        step_size=0.5,
        second_order=True,
        precondition=precondition,
      )[0]

    got = self.lookahead(
      step_size=0.5, second_order=True, precondition=precondition
    )[1]
    first = self.lookahead(step_size=0.5, precondition=precondition)[1]
    far = 0.0
    for name in self.params:
      for index in np.ndindex(self.params[name].shape):
        shift = np.zeros(self.params[name].shape)
        shift[index] = 1e-5
        slope = (
          value(self.params | {name: self.params[name] + shift})
          - value(self.params | {name: self.params[name] - shift})
        ) / 2e-5
        self.assertAlmostEqual(float(got[name][index]), float(slope), 7)
        far = max(far, abs(float(first[name][index]) - float(slope)))
    self.assertGreater(far, 1e-3)  # first order is something else

  def test_first_order_has_no_gradient_through_the_step(self):
    # Differentiating the returned loss in the step's size shows the path.
    value = lambda eta: self.lookahead(step_size=eta)[0]
    self.assertEqual(jax.grad(value)(0.3), 0.0)
    through = lambda eta: self.lookahead(step_size=eta, second_order=True)[0]
    self.assertNotEqual(jax.grad(through)(0.3), 0.0)

  def test_it_ascends(self):
    # With the objective itself as the loss, the loss is its value ahead.
    ahead, _ = lookahead_gradient(
      self.ascent, self.ascent, self.params, step_size=0.3
    )
    self.assertGreater(ahead, self.ascent(self.params))

  def test_parameters_keep_their_dtype(self):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), self.params)
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), self.batch)
    _, grad = lookahead_gradient(
      functools.partial(pair_loss, batch),
      functools.partial(spread, batch),
      params,
      step_size=jnp.float32(0.1),
      precondition=unit_precondition,
    )
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(grad)}, {jnp.dtype(jnp.float32)}
    )

  def test_jit_is_eager(self):
    for second_order in (False, True):
      run = lambda p, second_order=second_order: self.lookahead(
        p, step_size=0.3, second_order=second_order
      )
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11),
        jax.jit(run)(self.params),
        run(self.params),
      )

  def test_same_in_all_modes(self):
    # The result is a gradient already, so it is compared as it comes.
    def both(params, batch, axis_name):
      run = lambda second_order: lookahead_gradient(
        functools.partial(pair_loss, batch),
        functools.partial(spread, batch),
        params,
        step_size=0.5,
        second_order=second_order,
        precondition=unit_precondition,
        axis_name=axis_name,
      )
      return run(False), run(True)

    want = jax.jit(lambda p, b: both(p, b, None))(self.params, self.batch)
    parallel_modes.need_devices(8)
    rows = PartitionSpec("data")
    mapped = jax.shard_map(
      lambda p, b: both(p, b, ("data",)),
      mesh=jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)),
      in_specs=(PartitionSpec(), rows),
      out_specs=PartitionSpec(),
    )
    split = jax.tree.map(lambda x: x[:, None], self.batch)
    on_devices = jax.pmap(
      lambda p, b: jax.lax.pmean(both(p, b, "data"), "data"),
      "data",
      in_axes=(None, 0),
    )(self.params, split)
    close = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, jax.jit(mapped)(self.params, self.batch), want)
    for device in (0, 7):
      jax.tree.map(
        lambda g, w, device=device: close(g[device], w), on_devices, want
      )

  def test_a_loss_reduced_by_its_caller_is_left_as_it_is(self):
    parallel_modes.need_devices(8)
    rows = PartitionSpec("data")
    mean = lambda fn: lambda p: jax.lax.pmean(fn(p), "data")
    mapped = jax.shard_map(
      lambda p, b: lookahead_gradient(
        mean(functools.partial(pair_loss, b)),
        mean(functools.partial(spread, b)),
        p,
        step_size=0.5,
        axis_name="data",
      ),
      mesh=jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)),
      in_specs=(PartitionSpec(), rows),
      out_specs=PartitionSpec(),
    )
    jax.tree.map(
      lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-12),
      jax.jit(mapped)(self.params, self.batch),
      self.lookahead(step_size=0.5),
    )


class PreconditionTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.tree = dict(a=rng.normal(size=(2, 3)), b=rng.normal(size=4))

  def test_unit_has_norm_one_at_any_scale(self):
    for scale in (1e-200, 1.0, 1e200):
      out = unit_precondition(jax.tree.map(lambda x, s=scale: x * s, self.tree))
      self.assertAlmostEqual(float(optax.tree.norm(out)), 1.0, places=12)
      np.testing.assert_allclose(
        out["b"] / out["a"][0, 0], self.tree["b"] / self.tree["a"][0, 0]
      )
    zero = unit_precondition(jax.tree.map(np.zeros_like, self.tree))
    np.testing.assert_array_equal(zero["a"], 0.0)

  def test_unit_derivatives(self):
    fn = lambda a, b: unit_precondition(dict(a=a, b=b))
    transforms.assert_second_order(fn, self.tree["a"], self.tree["b"])
    transforms.assert_jit_and_vmap(fn, self.tree["a"], self.tree["b"])
    transforms.assert_finite(
      lambda a: unit_precondition(dict(a=a))["a"], np.zeros(3)
    )

  def test_adam_is_optax_without_momentum(self):
    optimizer = optax.scale_by_adam(b1=0.0, b2=0.99, eps=1e-8)
    state = optimizer.init(self.tree)
    rng = np.random.default_rng(1)
    for _ in range(3):
      grad = jax.tree.map(lambda x: rng.normal(size=x.shape), self.tree)
      got = adam_precondition(
        grad, second_moment=state.nu, count=state.count, decay=0.99
      )
      with jax.numpy_dtype_promotion("standard"):
        want, state = optimizer.update(grad, state)
      jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-10), got, want
      )

  def test_adam_edges(self):
    fresh = functools.partial(
      adam_precondition, second_moment=dict(a=jnp.zeros(3)), count=0
    )
    out = fresh(dict(a=jnp.array([0.0, -1e4, 1e-3])))["a"]
    np.testing.assert_allclose(out, [0, -1, 1], atol=1e-4)
    transforms.assert_finite(
      lambda a: fresh(dict(a=a))["a"], np.array([0.0, -1e4, 1e-3])
    )
    transforms.assert_second_order(
      lambda a: adam_precondition(
        a, second_moment=jnp.ones(3), count=2, decay=0.0
      ),
      np.array([0.3, -1.0, 2.0]),
    )
    for knob in (dict(decay=1.0), dict(epsilon=0.0)):
      with self.assertRaisesRegex(ValueError, "|".join(knob)):
        fresh(dict(a=jnp.ones(3)), **knob)

  def test_integer_gradient_raises(self):
    with self.assertRaisesRegex(TypeError, "gradient leaf 0 must be floating"):
      unit_precondition([np.arange(3)])

  def test_dtypes(self):
    out = unit_precondition([jnp.ones(4, jnp.bfloat16)])[0]
    self.assertEqual(out.dtype, jnp.bfloat16)  # a direction for its parameters
    np.testing.assert_allclose(np.asarray(out, np.float32), 0.5)


if __name__ == "__main__":
  absltest.main()
