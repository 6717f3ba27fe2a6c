"""Each check passes what is allowed and names what is not."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.ops import checks


class ChecksTest(parameterized.TestCase):
  @parameterized.parameters(
    (jnp.bfloat16, jnp.bfloat16, jnp.float32),
    (jnp.float16, jnp.float32, jnp.float32),
    (jnp.bfloat16, jnp.float64, jnp.float64),
  )
  def test_floating_raises_to_the_widest_and_at_least_float32(
    self, first, second, expected
  ):
    with jax.enable_x64(True):
      a, b = checks.floating(a=jnp.ones(2, first), b=jnp.ones((), second))
    self.assertEqual((a.dtype, b.dtype), (expected, expected))

  def test_floating_names_the_integer(self):
    with self.assertRaisesRegex(TypeError, "scores.*int32"):
      checks.floating(gap=jnp.ones(1), scores=jnp.ones(1, jnp.int32))

  def test_floating_works_on_numpy_and_under_a_trace(self):
    out = jax.jit(lambda x: checks.floating(x=x)[0])(np.float32(2.0))
    self.assertEqual(out, 2.0)

  def test_boolean(self):
    checks.boolean(where=np.array([True]), absent=None)
    with self.assertRaisesRegex(TypeError, "where must be bool.*int32"):
      checks.boolean(where=jnp.ones(1, jnp.int32))

  def test_integer(self):
    checks.integer(source=np.array([1]))
    with self.assertRaisesRegex(TypeError, "source must be integer.*float32"):
      checks.integer(source=jnp.ones(1))

  def test_same_shape(self):
    checks.same_shape(a=np.ones(2), b=np.ones(2), absent=None)
    with self.assertRaisesRegex(ValueError, r"a \(2,\), b \(2, 1\)"):
      checks.same_shape(a=np.ones(2), b=np.ones((2, 1)))

  @parameterized.parameters(-0.1, 1.5, np.inf)
  def test_fraction_names_what_is_known_and_outside(self, value):
    for given in (value, np.array([0.5, value]), jnp.array([[value, 1.0]])):
      with self.assertRaisesRegex(ValueError, r"p must be in \[0, 1\], got"):
        checks.fraction(p=given)

  def test_fraction_lets_pass_what_it_cannot_know(self):
    ends = np.array([0.0, 1.0, 1.0 + 1e-7, -1e-7, np.nan])
    checks.fraction(p=ends, q=1, r=jnp.asarray(ends))

    @jax.jit
    def traced(p):
      checks.fraction(p=p)
      return p

    self.assertEqual(float(traced(jnp.float32(7.0))), 7.0)

  def test_rank(self):
    checks.rank(2, a=np.ones((1, 1)))
    with self.assertRaisesRegex(ValueError, r"b must have 2 axes.*\(3,\)"):
      checks.rank(2, a=np.ones((1, 1)), b=np.ones(3))

  def test_at_least(self):
    checks.at_least(1, steps=1, limit=None, rate=1.5)
    for value in (0, -1, float("nan")):
      with self.assertRaisesRegex(
        ValueError, f"^rate must be >= 1, got {value}$"
      ):
        checks.at_least(1, steps=2, rate=value)

  def test_above(self):
    checks.above(0, rate=1e-9, limit=None)
    for value in (0, -0.5, float("nan")):
      with self.assertRaisesRegex(
        ValueError, f"^rate must be > 0, got {value}$"
      ):
        checks.above(0, steps=2, rate=value)

  def test_within(self):
    checks.within(0, 0.5, share=0, rate=0.5, limit=None)
    for value in (-1e-9, 0.51, float("nan")):
      with self.assertRaisesRegex(
        ValueError, rf"^rate must be in \[0, 0\.5\], got {value}$"
      ):
        checks.within(0, 0.5, share=0.1, rate=value)

  def test_one_of(self):
    checks.one_of(("half", "wrong"), ties="half")
    with self.assertRaisesRegex(ValueError, "ties.*half, wrong, got 'HALF'"):
      checks.one_of(("half", "wrong"), ties="HALF")

  def test_counted_puts_zeros_under_the_mask_in_one_dtype(self):
    where = np.array([True, False])
    (a, b), mask = checks.counted(
      where, a=np.array([1, np.nan], np.float32), b=jnp.ones(2, jnp.bfloat16)
    )
    np.testing.assert_array_equal(a, [1, 0])
    np.testing.assert_array_equal(b, [1, 0])
    self.assertEqual((a.dtype, b.dtype), (jnp.float32, jnp.float32))
    np.testing.assert_array_equal(mask, where)
    (a,), mask = checks.counted(None, a=np.ones(3, np.float32))
    np.testing.assert_array_equal(mask, [True] * 3)
    with self.assertRaisesRegex(ValueError, r"a \(3,\), where \(2,\)"):
      checks.counted(where, a=np.ones(3, np.float32))
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      checks.counted(np.ones(2), a=np.ones(2, np.float32))


if __name__ == "__main__":
  absltest.main()
