"""Attention and rotary positions against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
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
    self.query = rng.normal(size=(2, 5, 4, 6))
    self.key, self.value = rng.normal(size=(2, 2, 5, 2, 6))
    mask = np.ones((2, 5), bool)
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
    arrays = [
      jnp.asarray(x, jnp.float32) for x in (self.query, self.key, self.value)
    ]
    where = self.mask.any(-1)[:, 0]
    np.testing.assert_allclose(
      np.asarray(attention.fused_attend(*arrays, self.mask))[where],
      np.asarray(attention.attend(*arrays, self.mask))[where],
      atol=1e-6,
    )

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

  def test_only_the_first_entries_of_a_head_are_turned(self):
    frequencies = attention.rotary_frequencies(4, 100.0, None)
    angles = attention.rotary_angles(
      jnp.asarray([[3]]), frequencies, jnp.dtype(jnp.float32)
    )
    x = jnp.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    got = attention.rotate(x, *angles)
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(
      got[..., :4], attention.rotate(x[..., :4], *angles)
    )

  def test_scores_depend_on_the_distance_alone(self):
    with jax.enable_x64(True):
      rng = np.random.default_rng(0)
      query, key = rng.normal(size=(2, 8))
      frequencies = attention.rotary_frequencies(8, 100.0, None)

      def turned(x, position):
        angles = attention.rotary_angles(
          jnp.asarray([[position]]), frequencies, jnp.dtype(jnp.float64)
        )
        return np.asarray(attention.rotate(x[None, None, None], *angles))

      score = lambda m, n: np.sum(turned(query, m) * turned(key, n))
      np.testing.assert_allclose(score(9, 4), score(5, 0), rtol=1e-12)
      self.assertGreater(abs(score(9, 4) - score(9, 3)), 1e-3)

  def test_pairs_are_halves(self):
    frequencies = attention.rotary_frequencies(4, 100.0, None)
    np.testing.assert_allclose(frequencies, [1.0, 0.1])
    angles = attention.rotary_angles(
      jnp.asarray([[1]]), frequencies, jnp.dtype(jnp.float32)
    )
    x = jnp.asarray([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    np.testing.assert_allclose(
      attention.rotate(x, *angles)[0, 0, 0],
      [np.cos(1), 0, np.sin(1), 0],
      atol=1e-6,
    )

  def test_scaling_spares_the_fast_pairs(self):
    plain = attention.rotary_frequencies(16, 1e4, None)
    linear = models.RopeScaling("linear", 4.0)
    np.testing.assert_allclose(
      attention.rotary_frequencies(16, 1e4, linear), plain / 4
    )
    llama3 = models.RopeScaling("llama3", 4.0, 1.0, 4.0, 128)
    ratio = attention.rotary_frequencies(16, 1e4, llama3) / plain
    turns = 128 * plain / (2 * np.pi)
    np.testing.assert_allclose(ratio[turns > 4], 1.0)
    np.testing.assert_allclose(ratio[turns < 1], 0.25)
    blended = ratio[(turns > 1) & (turns < 4)]
    self.assertNotEmpty(blended)
    self.assertTrue(np.all((blended > 0.25) & (blended < 1)))


if __name__ == "__main__":
  absltest.main()
