"""Sums and means by group against a loop, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.ops import segment_count, segment_mean, segment_sum
from tests import parallel_modes, references, transforms

SEGMENT = np.array([2, 0, 2, 1, 0, 5, -1, 2])
WHERE = np.array([1, 1, 0, 1, 1, 1, 1, 1], bool)


class SegmentsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.x = np.random.default_rng(0).normal(size=(8, 2))

  def test_mean_matches_reference(self):
    got = segment_mean(self.x, segment=SEGMENT, num_segments=4, where=WHERE)
    np.testing.assert_allclose(
      got, references.segment_mean(self.x, SEGMENT, 4, WHERE), rtol=1e-12
    )

  def test_indices_outside_belong_to_no_segment(self):
    x = np.ones(8)
    np.testing.assert_array_equal(
      segment_sum(x, segment=SEGMENT, num_segments=4), [2, 1, 3, 0]
    )
    np.testing.assert_array_equal(
      segment_count(SEGMENT, num_segments=4, where=WHERE), [2, 1, 2, 0]
    )

  def test_an_empty_segment_gives_zero_with_zero_gradient(self):
    where = np.zeros(8, bool)
    mean = lambda x: jnp.sum(
      segment_mean(x, segment=SEGMENT, num_segments=4, where=where)
    )
    value, grad = jax.value_and_grad(mean)(jnp.full(8, jnp.nan))
    self.assertEqual(value, 0.0)
    np.testing.assert_array_equal(grad, 0.0)

  def test_order_of_rows_does_not_matter(self):
    order = np.random.default_rng(1).permutation(8)
    np.testing.assert_allclose(
      segment_mean(self.x[order], segment=SEGMENT[order], num_segments=3),
      segment_mean(self.x, segment=SEGMENT, num_segments=3),
      rtol=1e-12,
    )

  def test_derivatives_and_transforms(self):
    fn = lambda x: segment_mean(x, segment=SEGMENT, num_segments=3, where=WHERE)
    transforms.assert_second_order(lambda x: jnp.square(fn(x)), self.x)
    transforms.assert_jit_and_vmap(fn, self.x)

  def test_same_in_all_modes(self):
    def loss(params, batch, axis_name):
      return jnp.sum(
        jnp.square(
          segment_mean(
            batch["x"] * params[None],
            segment=batch["segment"],
            num_segments=3,
            where=batch["where"],
            axis_name=axis_name,
          )
        )
      )

    parallel_modes.assert_same_in_all_modes(
      loss,
      np.array([0.4, -1.2]),
      dict(x=self.x, segment=SEGMENT, where=WHERE),
    )

  def test_dtypes_are_raised(self):
    out = segment_mean(
      jnp.ones(8, jnp.bfloat16), segment=SEGMENT, num_segments=2
    )
    self.assertEqual(out.dtype, jnp.float32)

  @parameterized.parameters(
    (TypeError, "segment must be integer", dict(segment=np.ones(8))),
    (ValueError, r"segment \(7,\) for x \(8, 2\)", dict(segment=SEGMENT[1:])),
    (ValueError, r"segment must have 1 axes", dict(segment=SEGMENT[:, None])),
    (ValueError, "num_segments.*0", dict(num_segments=0)),
    (TypeError, "where must be bool", dict(where=np.ones(8))),
    (ValueError, r"segment \(8,\), where \(2,\)", dict(where=WHERE[:2])),
  )
  def test_errors(self, error, message, change):
    arguments = dict(segment=SEGMENT, num_segments=3) | change
    with self.assertRaisesRegex(error, message):
      segment_mean(self.x, **arguments)

  def test_integer_values_raise(self):
    with self.assertRaisesRegex(TypeError, "x must be floating"):
      segment_sum(np.ones(8, int), segment=SEGMENT, num_segments=3)


if __name__ == "__main__":
  absltest.main()
