"""Attention and rotary positions against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.models import attention


def reference(query, key, value, mask):
  """Head by head, query by query."""
  batch, length, heads, width = query.shape
  group = heads // key.shape[2]
  out = np.zeros(query.shape)
  for b, h, t in np.ndindex(batch, heads, length):
    logits = key[b, :, h // group] @ query[b, t, h] / np.sqrt(width)
    allowed = mask[b, 0, t] if mask[b, 0, t].any() else np.ones(length, bool)
    weights = np.exp(logits[allowed] - logits[allowed].max())
    if not mask[b, 0, t].any():
      weights = np.ones(length)
    out[b, t, h] = weights / weights.sum() @ value[b, allowed, h // group]
  return out


class AttendTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.query = rng.normal(size=(2, 6, 4, 8))
    self.key, self.value = rng.normal(size=(2, 2, 6, 2, 8))
    mask = np.ones((2, 6), bool)
    mask[1, :2] = mask[1, 4] = False  # the first two queries may read nothing
    self.mask = np.asarray(attention.attention_mask(jnp.asarray(mask)))

  def test_matches_reference_in_float64(self):
    with jax.enable_x64(True):
      got = attention.attend(self.query, self.key, self.value, self.mask)
    self.assertEqual(got.dtype, np.float64)
    expected = reference(self.query, self.key, self.value, self.mask)
    np.testing.assert_allclose(got, expected, rtol=1e-12)

  def test_bfloat16_is_summed_in_float32(self):
    narrow = [
      jnp.asarray(x, jnp.bfloat16) for x in (self.query, self.key, self.value)
    ]
    got = attention.attend(*narrow, self.mask)
    self.assertEqual(got.dtype, jnp.bfloat16)
    expected = reference(
      *(np.asarray(x, np.float64) for x in narrow), self.mask
    )
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, atol=0.02)

  def test_fused_equals_dense_where_something_is_attended(self):
    on_gpu = jax.default_backend() == "gpu"  # whose kernel wants few bits
    dtype, limit = (jnp.bfloat16, 2e-2) if on_gpu else (jnp.float32, 1e-6)
    arrays = [jnp.asarray(x, dtype) for x in (self.query, self.key, self.value)]
    where = jnp.asarray(self.mask.any(-1)[:, 0])[..., None, None]

    def total(attend, *arrays):
      mixed = attend(*arrays, self.mask).astype(jnp.float32)
      mixed = jnp.where(where, mixed, 0.0)
      return jnp.sum(jnp.sin(mixed)), mixed

    run = jax.value_and_grad(total, (1, 2, 3), has_aux=True)
    (_, got), got_grads = run(attention.fused_attend, *arrays)
    (_, want), want_grads = run(attention.attend, *arrays)
    for a, b in zip((got, *got_grads), (want, *want_grads), strict=True):
      a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
      self.assertLess(np.linalg.norm(a - b), limit * np.linalg.norm(b))

  @parameterized.parameters(1.0, 1e4)
  def test_gradients_are_finite_where_nothing_is_attended(self, scale):
    with jax.enable_x64(True):
      total = lambda *x: jnp.sum(jnp.sin(attention.attend(*x, self.mask)))
      grads = jax.grad(total, (0, 1, 2))(
        self.query * scale, self.key, self.value
      )
    for grad in grads:
      self.assertTrue(np.isfinite(grad).all())
      self.assertGreater(np.abs(grad).max(), 0)


class WindowTest(parameterized.TestCase):
  def test_a_cache_is_read_in_powers_of_two(self):
    self.assertEqual(attention.windows_of(128), (128,))
    self.assertEqual(attention.windows_of(129), (128, 129))
    self.assertEqual(attention.windows_of(1000), (128, 256, 512, 1000))

  def test_what_is_not_in_use_is_not_read(self):
    rng = np.random.default_rng(0)
    query, key, value = (
      rng.normal(size=shape).astype(np.float32)
      for shape in ((2, 1, 4, 8), (2, 300, 2, 8), (2, 300, 2, 8))
    )
    attend = jax.jit(attention.cached_attend)
    for used, window in ((1, 128), (128, 128), (129, 256), (257, 300)):
      mask = np.broadcast_to(np.arange(300) < used, (2, 1, 1, 300))
      beyond = (np.arange(300) >= window)[None, :, None, None]
      by_head = lambda x, out=beyond: np.where(out, np.nan, x).swapaxes(1, 2)
      got = attend(query, by_head(key), by_head(value), mask, jnp.int32(used))
      expected = attention.attend(query, key, value, mask)
      np.testing.assert_allclose(got, expected, atol=1e-6)
      if used > 1:  # and all that is in use is
        less = mask & (np.arange(300) != used - 1)
        other = attention.attend(query, key, value, less)
        self.assertGreater(np.max(np.abs(got - other)), 1e-4)

  @parameterized.parameters(1, 3)
  def test_a_cache_is_attended_as_keys_and_values_are(self, length):
    rng = np.random.default_rng(1)
    query, key, value = (
      rng.normal(size=shape).astype(np.float32)
      for shape in ((2, length, 6, 8), (2, 9, 2, 8), (2, 9, 2, 8))
    )
    mask = rng.random((2, 1, length, 9)) < 0.6
    mask[0, 0, 0] = False  # which gives the mean
    for options in ({}, {"scale": 0.3, "cap": 2.0}):
      got = attention.cached_attend(
        query, key.swapaxes(1, 2), value.swapaxes(1, 2), mask, None, **options
      )
      expected = attention.attend(query, key, value, mask, **options)
      np.testing.assert_allclose(got, expected, atol=1e-6)


class PositionsTest(parameterized.TestCase):
  def test_positions_count_attended_tokens(self):
    mask = jnp.asarray([[0, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(
      attention.positions_of(mask), [[0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5]]
    )

  def test_each_text_of_a_row_begins_at_zero(self):
    mask = jnp.asarray([[1, 1, 1, 1, 1, 0], [0, 1, 1, 0, 1, 1]], bool)
    texts = jnp.asarray([[1, 1, 2, 2, 2, 0], [1, 1, 1, 2, 2, 2]])
    np.testing.assert_array_equal(
      np.where(mask, attention.positions_of(mask, texts), -1),
      [[0, 1, 0, 1, 2, -1], [-1, 0, 1, -1, 0, 1]],
    )
    seen = attention.attention_mask(mask, segment_ids=texts)[:, 0]
    for row in range(2):
      expected = (
        np.tril(np.ones((6, 6), bool))
        & np.asarray(mask[row])[None]
        & (texts[row][:, None] == texts[row][None])
      )
      np.testing.assert_array_equal(seen[row], expected)

  def test_a_window_counts_attended_tokens(self):
    mask = jnp.asarray([[1, 1, 0, 1, 1, 0]], bool)
    seen = attention.attention_mask(mask, window=2)[0, 0]
    np.testing.assert_array_equal(
      np.asarray(seen)[np.asarray(mask[0])],
      np.array(
        [
          [1, 0, 0, 0, 0, 0],
          [1, 1, 0, 0, 0, 0],
          [0, 1, 0, 1, 0, 0],
          [0, 0, 0, 1, 1, 0],
        ],
        bool,
      ),
    )
    np.testing.assert_array_equal(
      attention.attention_mask(mask, window=6), attention.attention_mask(mask)
    )


if __name__ == "__main__":
  absltest.main()
