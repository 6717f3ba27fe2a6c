"""Two steps of an update in every layout, equal to those on one device."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.algorithms import train_state
from jaxalign.algorithms import update as contract
from jaxalign.runtime.distributed import mesh as meshes
from tests import parallel_modes

Make = Callable[..., Callable]


def assert_same_two_steps(
  test: absltest.TestCase,
  make: Make,
  start: Callable[[], Any],
  batch: Mapping[str, jax.Array],
) -> None:
  """Asserts equal parameters, carry and metrics after two steps.

  Args:
    test: the test, which gets a sub-test per layout.
    make: gives the update function of `accumulation` and `axis_name`.
    start: gives the state before the steps, which an update may consume.
    batch: arrays of a step, rows first, as many as eight devices can share.
  """
  parallel_modes.need_devices(8)
  mesh = meshes.make_mesh(meshes.MeshConfig(8, 1, 1))
  rows = meshes.batch_sharding(mesh)
  everywhere = NamedSharding(mesh, PartitionSpec())

  def steps(update):
    state = start()
    for _ in range(2):
      state, metrics = update(state, batch, jax.random.key(2))
    return state, metrics

  before = start().params
  expected, expected_metrics = steps(jax.jit(make()))
  layouts = {
    "accumulation 4": jax.jit(make(accumulation=4)),
    "sharded": jax.jit(
      make(accumulation=2),
      in_shardings=(everywhere, rows, everywhere),
      out_shardings=everywhere,
    ),
    "pmap": meshes.data_parallel(make(axis_name="data"), mesh),
  }
  for name, update in layouts.items():
    with test.subTest(name):
      state, metrics = steps(update)
      for leaf, value in expected.params.items():
        moved = np.linalg.norm(value - before[leaf])
        np.testing.assert_allclose(
          state.params[leaf], value, rtol=0, atol=1e-10 * moved
        )
      jax.tree.map(
        lambda got, want: np.testing.assert_allclose(
          got, want, rtol=1e-6, atol=1e-6
        ),
        state.carry,
        expected.carry,
      )
      test.assertEqual({*metrics}, {*expected_metrics})
      for metric, value in expected_metrics.items():
        np.testing.assert_allclose(
          metrics[metric], value, rtol=1e-9, atol=1e-12, err_msg=metric
        )


def assert_same_descent(
  test: absltest.TestCase,
  objective: contract.Objective,
  params: Mapping[str, jax.Array],
  batch: Mapping[str, jax.Array],
) -> None:
  """`assert_same_two_steps` of an objective under plain gradient descent."""
  optimizer = optax.sgd(0.5)

  def start():
    fresh = jax.tree.map(jnp.copy, params)
    return train_state.init_state(fresh, optimizer, objective.carry)

  def make(**options):
    return contract.make_update(objective, optimizer, **options)

  assert_same_two_steps(test, make, start, batch)
