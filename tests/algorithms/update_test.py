"""The two-phase update: one gradient however the batch is laid out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.algorithms import train_state
from jaxalign.algorithms import update as contract
from jaxalign.runtime.distributed import mesh as meshes
from tests import parallel_modes

B, D = 16, 5


def couple(params, batch):
  """A loss whose denominator couples the rows, with dropout from row keys."""
  keep = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (D,)))(batch["key"])
  features = jnp.where(keep, batch["x"], 0.0)
  return jnp.where(batch["where"], features @ params["w"] + params["b"], 0.0)


def weighted_variance() -> contract.Objective:
  """Variance of the predictions: the mean is a statistic of the whole batch."""

  def statistics(predictions, batch):
    return jnp.sum(predictions), jnp.sum(batch["where"], dtype=jnp.float64)

  def loss(predictions, batch, sums):
    total, count = sums
    residual = predictions - total / count
    error = jnp.where(batch["where"], residual**2 + 0.1 * residual, 0.0)
    report = {"train/error": (jnp.sum(error), jnp.sum(batch["where"]))}
    return jnp.sum(error) / count, report

  return contract.Objective(couple, statistics, loss)


def whole_batch_loss(params, batch):
  """The same loss in one line on the whole batch, mean held constant."""
  predictions = couple(params, batch)
  where = batch["where"]
  mean = jax.lax.stop_gradient(jnp.mean(predictions, where=where))
  residual = predictions - mean
  return jnp.mean(residual**2 + 0.1 * residual, where=where)


class UpdateTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {"w": jnp.array(rng.normal(size=D)), "b": jnp.float64(0.3)}
    self.key = jax.random.key(1)
    self.batch = {
      "x": jnp.array(rng.normal(size=(B, D))),
      # Uneven: the devices and micro-batches hold different counts.
      "where": jnp.array([True] * 7 + [False, True] * 4 + [True]),
      "row": jnp.arange(B, dtype=jnp.int32),
    }
    self.expected = jax.grad(whole_batch_loss)(self.params, self.keyed())
    self.optimizer = optax.sgd(0.1)

  def keyed(self):
    key = jax.random.fold_in(self.key, 0)
    return self.batch | {"key": contract.row_keys(key, self.batch["row"])}

  def step(self, **layout):
    return contract.make_update(weighted_variance(), self.optimizer, **layout)

  def state(self):
    params = jax.tree.map(jnp.copy, self.params)
    return train_state.init_state(params, self.optimizer)

  def assert_moved_along_gradient(self, state):
    moved = jax.tree.map(
      lambda new, old: (old - new) / 0.1, state.params, self.params
    )
    for name, expected in self.expected.items():
      np.testing.assert_allclose(moved[name], expected, rtol=1e-10, atol=1e-13)

  @parameterized.parameters(1, 2, 4, 16)
  def test_accumulation_changes_nothing(self, accumulation):
    update = jax.jit(self.step(accumulation=accumulation))
    state, scalars = update(self.state(), self.batch, self.key)
    self.assert_moved_along_gradient(state)
    np.testing.assert_allclose(
      scalars["train/gradient_norm"],
      np.sqrt(sum(np.sum(g**2) for g in self.expected.values())),
      rtol=1e-12,
    )
    np.testing.assert_allclose(
      scalars["train/error"], scalars["train/loss"], rtol=1e-12
    )

  @parameterized.parameters(1, 2)
  def test_pmap_gives_the_same_gradient(self, accumulation):
    parallel_modes.need_devices(8)
    mesh = meshes.make_mesh(meshes.MeshConfig(8, 1, 1))
    update = meshes.data_parallel(
      self.step(accumulation=accumulation, axis_name="data"), mesh
    )
    state, _ = update(self.state(), self.batch, self.key)
    self.assert_moved_along_gradient(state)

  @parameterized.parameters((8, 1), (2, 4))
  def test_sharded_jit_gives_the_same_gradient(self, data, fsdp):
    parallel_modes.need_devices(8)
    mesh = meshes.make_mesh(meshes.MeshConfig(data, fsdp, 1))
    rows = meshes.batch_sharding(mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    update = jax.jit(
      self.step(accumulation=2),
      in_shardings=(everywhere, rows, everywhere),
      out_shardings=everywhere,
    )
    state, _ = update(self.state(), self.batch, self.key)
    self.assert_moved_along_gradient(state)

  def test_parity_check_sees_a_gradient_eight_times_too_large(self):
    plain = weighted_variance()
    doubled = plain._replace(
      loss=lambda *args: jax.tree.map(lambda x: 8 * x, plain.loss(*args))
    )
    update = contract.make_update(doubled, self.optimizer)
    state, _ = update(self.state(), self.batch, self.key)
    with self.assertRaises(AssertionError):
      self.assert_moved_along_gradient(state)

  def test_rows_that_do_not_count_may_hold_anything(self):
    garbage = jnp.where(self.batch["where"][:, None], self.batch["x"], 1e6)
    state, _ = self.step()(self.state(), self.batch | {"x": garbage}, self.key)
    self.assert_moved_along_gradient(state)

  def test_non_finite_step_is_counted_and_not_applied(self):
    update = jax.jit(contract.make_update(weighted_variance(), optax.adam(0.1)))
    state = train_state.init_state(self.params, optax.adam(0.1))
    bad = self.batch | {"x": self.batch["x"].at[0, 0].set(jnp.nan)}
    # Row 0 keeps its first feature with probability one half per step.
    skipped = 0
    for _ in range(6):
      before = state
      state, scalars = update(state, bad, self.key)
      if not np.isfinite(scalars["train/loss"]):
        skipped += 1
        self.assertEqual(int(state.bad_steps), int(before.bad_steps) + 1)
        for new, old in zip(
          jax.tree.leaves((state.params, state.opt_state)),
          jax.tree.leaves((before.params, before.opt_state)),
          strict=True,
        ):
          np.testing.assert_array_equal(new, old)
      else:
        self.assertEqual(int(state.bad_steps), 0)
    self.assertBetween(skipped, 1, 5)
    self.assertEqual(int(state.step), 6)

  def test_a_good_step_resets_the_count(self):
    update = self.step()
    state = self.state()._replace(bad_steps=jnp.int32(3))
    state, scalars = update(state, self.batch, self.key)
    self.assertEqual(int(state.bad_steps), 0)
    self.assertEqual(int(scalars["train/bad_steps"]), 0)

  def test_indivisible_accumulation_names_the_numbers(self):
    with self.assertRaisesRegex(ValueError, "16 rows and accumulation 3"):
      self.step(accumulation=3)(self.state(), self.batch, self.key)

  def test_statistics_carry_no_gradient(self):
    leak = contract.Objective(
      lambda params, batch: params,
      lambda params, batch: jnp.sum(params["w"]),
      lambda params, batch, total: (total * jnp.sum(params["b"]), {}),
    )
    for accumulation, times in ((1, 1), (4, 16)):
      gradient = contract.make_gradient(leak, accumulation=accumulation)
      grads = gradient(self.params, self.keyed(), ()).gradient
      np.testing.assert_array_equal(grads["w"], np.zeros(D))
      np.testing.assert_allclose(grads["b"], times * self.params["w"].sum())

  def test_one_micro_batch_runs_one_forward_pass(self):
    calls = []
    plain = weighted_variance()

    def forward(params, batch):
      calls.append(batch["where"].shape[0])
      return plain.forward(params, batch)

    counted = plain._replace(forward=forward)
    contract.make_gradient(counted)(self.params, self.keyed(), ())
    self.assertEqual(calls, [B])

  @parameterized.parameters(1, 4)
  def test_a_carry_goes_from_step_to_step(self, accumulation):
    plain = weighted_variance()

    def context(sums, seen):
      return sums, seen + sums[1], {"train/seen": seen}

    update = jax.jit(
      contract.make_update(
        plain._replace(context=context, carry=jnp.float64(2.0)),
        self.optimizer,
        accumulation=accumulation,
      )
    )
    state = train_state.init_state(
      self.params, self.optimizer, jnp.float64(2.0)
    )
    counted = float(self.batch["where"].sum())
    for step in range(3):
      state, scalars = update(state, self.batch, self.key)
      self.assertEqual(float(scalars["train/seen"]), 2.0 + step * counted)
    bad = self.batch | {"x": self.batch["x"] * jnp.nan}
    after, _ = update(state, bad, self.key)
    self.assertEqual(int(after.bad_steps), 1)
    self.assertEqual(float(after.carry), float(state.carry))


if __name__ == "__main__":
  absltest.main()
