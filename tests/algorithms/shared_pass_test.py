"""One forward pass for advantages and gradient: when, and that it is equal."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo, shared_pass
from tests.algorithms import bigram

ONE = dict(policy=dict(epochs=1, minibatches=1))
SHARED = {
  "critic": dict(kind="shared", coef=0.1),
  "policy": dict(epochs=1, minibatches=1, entropy_coef=0.01),
}


class SharedPassTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def counted(self, sections, accumulation=1):
    """Forward passes of actor and critic that an iteration traces, and it."""
    cfg = bigram.config(**sections)
    networks, calls = bigram.networks(cfg.critic.kind), {"actor": 0}

    def actor(*arguments):
      calls["actor"] += 1
      return networks.actor(*arguments)

    def critic(*arguments):
      calls["critic"] = calls.get("critic", 0) + 1
      return networks.critic(*arguments)

    counting = networks._replace(
      actor=actor, critic=critic if networks.critic is not None else None
    )
    optimizers = bigram.sgd()
    learn = ppo.make_learn(counting, optimizers, cfg, accumulation=accumulation)
    start, frozen = bigram.state(cfg, critic=cfg.critic.kind)
    state, metrics = jax.jit(learn)(
      start, frozen, bigram.batch(), jax.random.key(0)
    )
    return calls, state, metrics

  @parameterized.parameters(
    (ONE, {"actor": 1, "critic": 1}), (SHARED, {"actor": 1})
  )
  def test_each_network_is_passed_once(self, sections, wanted):
    calls, state, metrics = self.counted(sections)
    self.assertEqual(calls, wanted)
    # Two micro-batches are passed forward before the step as well.
    more, expected, report = self.counted(sections, accumulation=2)
    self.assertGreater(min(more.values()), 1)
    for one, other in zip(
      jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)
    self.assertEqual({*metrics}, {*report})
    for name, value in metrics.items():
      np.testing.assert_allclose(
        value, report[name], rtol=1e-6, atol=1e-9, err_msg=name
      )

  def test_the_only_step_is_never_stopped(self):
    sections = {"policy": dict(ONE["policy"], stop_kl=1e-12)}
    _, state, metrics = self.counted(sections)
    # The policy of the only step is the one that sampled: nothing stops it.
    self.assertEqual(int(metrics["train/updates"]), 1)
    before, _ = bigram.state(bigram.config(**sections))
    moved = jnp.abs(state.actor.params["table"] - before.actor.params["table"])
    self.assertGreater(float(moved.max()), 1e-3)

  @parameterized.parameters(
    ("one step of one piece", {}, 1, True),
    ("a second epoch", dict(policy=dict(epochs=2)), 1, False),
    ("a second minibatch", dict(policy=dict(minibatches=2)), 1, False),
    ("a second micro-batch", {}, 2, False),
    (
      "pairs",
      {
        "policy": dict(kind="dpo", **bigram.PAIRS),
        "critic": bigram.NO_CRITIC,
        "kl": dict(place="loss", estimator="k2"),
      },
      1,
      False,
    ),
  )
  def test_when(self, why, changes, accumulation, wanted):
    sections = {k: ONE.get(k, {}) | changes.get(k, {}) for k in bigram.SECTIONS}
    cfg = bigram.config(**sections)
    networks = bigram.networks(cfg.critic.kind)
    shared = shared_pass.is_shared(networks, cfg, accumulation)
    self.assertEqual(shared, wanted, why)

  def test_a_pass_that_the_sampler_spares_is_not_taken(self):
    cfg = bigram.config(
      policy=dict(kind="grpo", whiten=False, **ONE["policy"]),
      critic=bigram.NO_CRITIC,
      kl=dict(place="loss", estimator="k3"),
    )
    networks = bigram.networks("none")
    self.assertTrue(shared_pass.is_shared(networks, cfg, 1))
    spared = networks._replace(sampler_agrees=True)
    self.assertFalse(shared_pass.is_shared(spared, cfg, 1))


if __name__ == "__main__":
  absltest.main()
