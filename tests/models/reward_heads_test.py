"""Heads of rewards: of a decoder, and of features that are given."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models import reward_heads
from tests.models.samples import LLAMA, start

REWARD = dataclasses.replace(LLAMA, num_outputs=3)
GIVEN = dataclasses.replace(REWARD, num_texts=5)


def numbers(*texts):
  """Texts by their numbers, and the mask; None is a row without a text."""
  tokens = np.array([[-7 if n is None else n] for n in texts], np.int32)
  return tokens, tokens >= 0


class PoolingTest(absltest.TestCase):
  def test_last_attended_position(self):
    mask = jnp.asarray([[1, 1, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]], bool)
    last = reward_heads.last_attended
    np.testing.assert_array_equal(last(mask), [1, 2, 1, 0])
    mask = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
    np.testing.assert_array_equal(last(mask, but_one=True), [0, 1, 0, 0])


class FeatureNetworkTest(parameterized.TestCase):
  @parameterized.parameters(None, "keep", "remove")
  def test_rewards_are_of_the_rows_of_the_table(self, log_length):
    config = dataclasses.replace(GIVEN, log_length=log_length)
    model, params = start(config)
    self.assertEqual(params["features"].shape, (5, 8 + bool(log_length)))
    table = np.asarray(params["features"], np.float64)
    out = model.apply(params, *numbers(3, None, 0))
    rows = table[[3, 0], :8]
    want = rows @ np.asarray(params["score"]["kernel"])
    if log_length == "keep":
      want += table[[3, 0], 8:] * np.asarray(params["log_length"]["kernel"])
    np.testing.assert_allclose(out.rewards[::2], want, atol=1e-6)
    np.testing.assert_array_equal(out.features[::2], rows.astype(np.float32))
    np.testing.assert_array_equal(out.rewards[1], np.zeros(3))
    self.assertEqual(models.reward_model(config), model)


if __name__ == "__main__":
  absltest.main()
