"""Rotations turn pairs of halves, keep distances, and stretch as told."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.models import rotary
from jaxalign.models.config import RopeScaling


class RotaryTest(absltest.TestCase):
  def test_only_the_first_entries_of_a_head_are_turned(self):
    frequencies = rotary.rotary_frequencies(4, 100.0, None)
    angles = rotary.rotary_angles(
      jnp.asarray([[3]]), frequencies, jnp.dtype(jnp.float32)
    )
    x = jnp.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    got = rotary.rotate(x, *angles)
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(
      got[..., :4], rotary.rotate(x[..., :4], *angles)
    )

  def test_scores_depend_on_the_distance_alone(self):
    with jax.enable_x64(True):
      rng = np.random.default_rng(0)
      query, key = rng.normal(size=(2, 8))
      frequencies = rotary.rotary_frequencies(8, 100.0, None)

      def turned(x, position):
        angles = rotary.rotary_angles(
          jnp.asarray([[position]]), frequencies, jnp.dtype(jnp.float64)
        )
        return np.asarray(rotary.rotate(x[None, None, None], *angles))

      score = lambda m, n: np.sum(turned(query, m) * turned(key, n))
      np.testing.assert_allclose(score(9, 4), score(5, 0), rtol=1e-12)
      self.assertGreater(abs(score(9, 4) - score(9, 3)), 1e-3)

  def test_pairs_are_halves(self):
    frequencies = rotary.rotary_frequencies(4, 100.0, None)
    np.testing.assert_allclose(frequencies, [1.0, 0.1])
    angles = rotary.rotary_angles(
      jnp.asarray([[1]]), frequencies, jnp.dtype(jnp.float32)
    )
    x = jnp.asarray([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    np.testing.assert_allclose(
      rotary.rotate(x, *angles)[0, 0, 0],
      [np.cos(1), 0, np.sin(1), 0],
      atol=1e-6,
    )

  def test_scaling_spares_the_fast_pairs(self):
    plain = rotary.rotary_frequencies(16, 1e4, None)
    linear = RopeScaling("linear", 4.0)
    np.testing.assert_allclose(
      rotary.rotary_frequencies(16, 1e4, linear), plain / 4
    )
    llama3 = RopeScaling("llama3", 4.0, 1.0, 4.0, 128)
    ratio = rotary.rotary_frequencies(16, 1e4, llama3) / plain
    turns = 128 * plain / (2 * np.pi)
    np.testing.assert_allclose(ratio[turns > 4], 1.0)
    np.testing.assert_allclose(ratio[turns < 1], 0.25)
    blended = ratio[(turns > 1) & (turns < 4)]
    self.assertNotEmpty(blended)
    self.assertTrue(np.all((blended > 0.25) & (blended < 1)))

  def test_yarn_stretches_the_slow_pairs_and_scales_all(self):
    plain = rotary.rotary_frequencies(16, 1e4, None)
    yarn = RopeScaling(
      "yarn", 4.0, original_max_positions=256, beta_fast=8.0, beta_slow=0.5
    )
    ratio = rotary.rotary_frequencies(16, 1e4, yarn) / plain
    turns = 256 * plain / (2 * np.pi)
    self.assertTrue(np.all(np.diff(ratio) <= 0))
    np.testing.assert_allclose(ratio[turns > 16], 1.0)
    np.testing.assert_allclose(ratio[turns < 0.1], 0.25)
    at = jnp.asarray([[7]])
    cos, sin = rotary.rotation_of(16, 1e4, yarn, at, at + 1, jnp.float32)
    scale = 0.1 * np.log(4) + 1
    np.testing.assert_allclose(cos**2 + sin**2, scale**2, rtol=1e-5)

  def test_longrope_divides_by_the_numbers_of_the_length(self):
    short, long = (1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)
    scaling = RopeScaling(
      "longrope",
      32.0,
      original_max_positions=64,
      short_factor=short,
      long_factor=long,
    )
    plain = rotary.rotary_frequencies(8, 1e4, None)
    at = jnp.asarray([[5], [5]])
    lengths = jnp.asarray([[64], [65]])
    cos, sin = rotary.rotation_of(8, 1e4, scaling, at, lengths, jnp.float32)
    scale = np.sqrt(1 + np.log(32) / np.log(64))
    for row, divisors in enumerate((short, long)):
      angles = 5 * plain / np.asarray(divisors)
      np.testing.assert_allclose(
        cos[row, 0, 0], scale * np.cos(angles), rtol=1e-5
      )
      np.testing.assert_allclose(
        sin[row, 0, 0], scale * np.sin(angles), rtol=1e-5
      )

  def test_dynamic_is_plain_within_the_context(self):
    np.testing.assert_array_equal(
      rotary.rotary_frequencies(16, 1e4, RopeScaling("dynamic", 4.0)),
      rotary.rotary_frequencies(16, 1e4, None),
    )


if __name__ == "__main__":
  absltest.main()
