"""The queue keeps the newest counted rows and is the same on all devices."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, PartitionSpec

from jaxalign.losses import FeatureQueue, init_feature_queue, push_features
from tests import parallel_modes

ROWS = np.arange(16, dtype=np.float32).reshape(8, 2) + 1


class FeatureQueueTest(parameterized.TestCase):
  def test_newest_first_and_the_oldest_dropped(self):
    queue = init_feature_queue(3, 2)
    self.assertFalse(np.any(queue.where))
    queue = push_features(queue, ROWS[:2], -ROWS[:2])
    np.testing.assert_array_equal(queue.where, [True, True, False])
    queue = jax.jit(push_features)(queue, ROWS[2:4], -ROWS[2:4])
    np.testing.assert_array_equal(queue.view_a, ROWS[[2, 3, 0]])
    np.testing.assert_array_equal(queue.view_b, -ROWS[[2, 3, 0]])
    self.assertTrue(np.all(queue.where))

  def test_masked_rows_do_not_enter(self):
    where = np.array([False, True, False, True])
    garbage = np.where(where[:, None], ROWS[:4], np.nan)
    queue = push_features(
      init_feature_queue(3, 2), garbage, garbage, where=where
    )
    np.testing.assert_array_equal(queue.view_a[:2], ROWS[[1, 3]])
    np.testing.assert_array_equal(queue.where, [True, True, False])
    self.assertTrue(np.all(np.isfinite(queue.view_a)))

  def test_no_gradient_and_dtype_of_the_queue(self):
    queue = init_feature_queue(3, 2)
    total = lambda x: jnp.sum(push_features(queue, x, x).view_a)
    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(ROWS)), 0.0)
    pushed = push_features(queue, *(jnp.asarray(ROWS, jnp.bfloat16),) * 2)
    self.assertEqual(pushed.view_a.dtype, jnp.float32)

  def test_all_devices_hold_the_rows_of_all(self):
    where = np.arange(8) % 3 != 1
    queue = push_features(init_feature_queue(2, 2), ROWS[:1], ROWS[:1])
    want = push_features(queue, ROWS, -ROWS, where=where)
    push = lambda axis: (
      lambda q, a, b, w: push_features(q, a, b, where=w, axis_name=axis)
    )
    parallel_modes.need_devices(8)
    for names, shape in ((("data",), (4,)), (("data", "fsdp"), (4, 2))):
      rows = PartitionSpec(names)
      mesh = jax.make_mesh(
        shape, names, axis_types=(AxisType.Auto,) * len(names)
      )
      mapped = jax.shard_map(
        push(names),
        mesh=mesh,
        in_specs=(PartitionSpec(), rows, rows, rows),
        out_specs=PartitionSpec(),  # replicated, and known to be
      )
      jax.tree.map(
        np.testing.assert_array_equal,
        jax.jit(mapped)(queue, ROWS, -ROWS, where),
        want,
      )
    split = lambda x: x.reshape(4, 2, *x.shape[1:])
    got = jax.pmap(push("data"), "data", in_axes=(None, 0, 0, 0))(
      queue, split(ROWS), split(-ROWS), split(where)
    )
    for device in range(4):
      jax.tree.map(
        lambda g, w, d=device: np.testing.assert_array_equal(g[d], w), got, want
      )

  def test_state_is_a_tree_of_arrays(self):
    self.assertLen(jax.tree.leaves(init_feature_queue(2, 2)), 3)
    self.assertIsInstance(init_feature_queue(2, 2), FeatureQueue)

  @parameterized.parameters(
    (ValueError, r"view_a must be \[N, 2\]", dict(view_a=np.ones((8, 3), "f"))),
    (ValueError, r"view_a \(8, 2\), view_b", dict(view_b=ROWS[:3])),
    (TypeError, "view_b must be floating", dict(view_b=ROWS.astype(int))),
    (TypeError, "where must be bool", dict(where=np.ones(8))),
    (ValueError, r"where must be \(8,\)", dict(where=np.ones(2, bool))),
  )
  def test_errors(self, error, message, change):
    arguments = dict(view_a=ROWS, view_b=ROWS) | change
    if "view_a" in change:
      arguments["view_b"] = change["view_a"]
    a, b = arguments.pop("view_a"), arguments.pop("view_b")
    with self.assertRaisesRegex(error, message):
      push_features(init_feature_queue(2, 2), a, b, **arguments)


if __name__ == "__main__":
  absltest.main()
