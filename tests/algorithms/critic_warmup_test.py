"""Texts beside responses and a critic that warms up: steps in any layout."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo
from tests import transforms
from tests.algorithms import bigram, ppo_test

CASES = {
  "texts": {"policy": dict(text_coef=0.7)},
  "warming": {
    "critic": dict(warmup_iterations=1),
    "kl": dict(controller="adaptive", target=0.1, horizon=50.0),
    "welfare": dict(kind="exponentiated", step_size=0.5),
  },
}


class CriticWarmupTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.enter_context(mock.patch.dict(ppo_test.CASES, CASES))

  @parameterized.parameters(
    ("texts", dict(accumulation=4)),
    ("texts", dict(layout="sharded", minibatches=2)),
    ("texts", dict(layout="pmap", accumulation=2)),
    ("warming", dict(layout="sharded")),
    ("warming", dict(layout="pmap")),
  )
  def test_any_layout_gives_the_same_step(self, case, options):
    batch = bigram.batch(ppo_test.R) | bigram.texts(ppo_test.R)
    steps = {k: v for k, v in options.items() if k == "minibatches"}
    expected, report = ppo_test.learned(case, batch=batch, **steps)
    state, metrics = ppo_test.learned(case, batch=batch, **options)
    before = ppo_test.tables(bigram.state(ppo_test.config_of(case))[0])
    moved = ppo_test.tables(expected) - before
    self.assertGreater(np.abs(moved).max(), 1e-4)
    np.testing.assert_allclose(
      ppo_test.tables(state) - before, moved, rtol=1e-10, atol=1e-13
    )
    for name, value in report.items():
      np.testing.assert_allclose(
        metrics[name], value, rtol=1e-6, atol=1e-9, err_msg=name
      )

  def test_while_the_critic_warms_up_the_policy_stays(self):
    cfg = ppo_test.config_of("warming", critic=dict(warmup_iterations=2))
    never = ppo_test.config_of("warming", critic=dict(warmup_iterations=0))
    optimizers = ppo.Optimizers(optax.adam(0.1), optax.adam(0.1))
    start, frozen = bigram.state(cfg, optimizers=optimizers)
    learn, plain = (
      jax.jit(ppo.make_learn(bigram.networks(), optimizers, one))
      for one in (cfg, never)
    )
    batches = [bigram.batch(seed=seed) for seed in range(3)]
    step = lambda learn, state, n: learn(
      state, frozen, batches[n], jax.random.key(n)
    )
    state = start
    for n in range(2):
      state, metrics = step(learn, state, n)
      self.assertEqual(float(metrics["train/warming"]), 1.0)
    kept = lambda s: (s.actor, s.kl, s.group_weights)
    transforms.assert_identical(kept(state), kept(start))
    moved = jnp.abs(state.critic.params["value"] - start.critic.params["value"])
    self.assertGreater(float(moved.min()), 0.0)
    self.assertEqual(int(state.critic.step), 2)
    self.assertEqual(float(state.moments.number), 14.0)
    # The first step of the policy is that of a learner with this critic.
    after, metrics = step(learn, state, 2)
    self.assertEqual(float(metrics["train/warming"]), 0.0)
    want, _ = step(plain, state, 2)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), after, want
    )
    self.assertEqual(int(after.actor.step), 1)
    self.assertGreater(
      np.abs(after.actor.params["table"] - start.actor.params["table"]).max(),
      1e-3,
    )


if __name__ == "__main__":
  absltest.main()
