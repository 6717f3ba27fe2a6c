"""The coefficient of the KL, and what may not be asked of it."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import losses
from jaxalign.algorithms import kl_control
from tests.algorithms import bigram

ADAPTIVE = dict(controller="adaptive", target=6.0, horizon=10_000.0, coef=0.15)


class ControllersTest(parameterized.TestCase):
  def test_follows_ziegler(self):
    cfg = bigram.section("kl", **ADAPTIVE)
    state = losses.init_kl_controller(cfg.coef)
    found = []
    for observed in (3.0, 6.0, 6.6, 30.0):
      state = kl_control.next_coefficient(
        state, jnp.float32(observed), cfg, num_samples=512
      )
      found.append(float(state.kl_coef))
    np.testing.assert_allclose(
      found, [0.148464, 0.148464, 0.1492241, 0.1507522], rtol=1e-5
    )

  def test_fixed_stays(self):
    state = losses.init_kl_controller(0.2)
    found = kl_control.next_coefficient(
      state, jnp.float32(99.0), bigram.section("kl"), num_samples=512
    )
    np.testing.assert_array_equal(found.kl_coef, state.kl_coef)

  @parameterized.parameters(
    (dict(place="value"), "place must be one of"),
    (dict(place="loss"), "gradient has mean 0"),
    (dict(estimator="k2"), "must be 'k1' with place='reward', got 'k2': as a"),
    (dict(estimator="k3"), "k2 with place='loss' has the gradient of the KL"),
    (dict(coef=-0.1), "coef must be >= 0"),
    (dict(controller="adaptive"), "target is set with"),
    (dict(target=1.0), "target is set with"),
    (dict(ADAPTIVE, horizon=0.0), "horizon must be > 0"),
  )
  def test_refuses(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      bigram.section("kl", **changes)


if __name__ == "__main__":
  absltest.main()
