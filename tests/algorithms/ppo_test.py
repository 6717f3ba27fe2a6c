"""The policy learner: golden step, known optima, any layout, early stop."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo
from jaxalign.runtime.distributed import mesh as meshes
from tests import parallel_modes, transforms
from tests.algorithms import bigram, policy_reference

R = 16
LAYOUTS = {
  "one device": (1, 1, 1),
  "sharded": (2, 4, 1),
  "pmap": (8, 1, 1),
}
CASES = {
  "ppo": {},
  "ppo shared": {
    "critic": dict(kind="shared", coef=0.1),
    "policy": dict(entropy_coef=0.01, importance_limit=2.0, dual_clip=3.0),
    "kl": dict(place="loss", estimator="k3"),
    "reward": dict(scale="standardise", clip=0.8, missing_eos=1.0),
    "welfare": dict(kind="soft_min", temperature=0.5),
  },
  "ppo atoms": {"critic": bigram.ATOMS},
  "ppo shared atoms": {
    "critic": bigram.ATOMS | dict(kind="shared", coef=0.1),
    "policy": dict(entropy_coef=0.01),
    "kl": dict(place="loss", estimator="k3"),
  },
  "grpo": {
    "policy": dict(kind="grpo", aggregation="sequence_mean", whiten=False),
    "critic": bigram.NO_CRITIC,
    "kl": dict(place="loss", estimator="k3"),
    "welfare": dict(kind="sample_min"),
  },
  "group_dpo": {
    "policy": dict(kind="group_dpo", **bigram.PAIRS),
    "critic": bigram.NO_CRITIC,
    "kl": dict(place="loss", estimator="k2"),
    "welfare": dict(kind="exponentiated", step_size=0.5),
  },
  "ppo labels": bigram.LABELS,
}


def config_of(case, **changes):
  sections = {
    name: CASES[case].get(name, {}) | changes.get(name, {})
    for name in bigram.SECTIONS
  }
  return bigram.config(CASES[case].get("groups", bigram.GROUPS), **sections)


@functools.cache
def program(
  case, layout, scale, epochs, minibatches, accumulation, agrees=False
):
  """The jitted learner of a case, plain descent, and its config."""
  cfg = config_of(case, policy=dict(epochs=epochs, minibatches=minibatches))
  parallel_modes.need_devices(math.prod(LAYOUTS[layout]))
  mesh = meshes.make_mesh(meshes.MeshConfig(*LAYOUTS[layout]))
  rows, everywhere = meshes.batch_sharding(mesh), meshes.replicated(mesh)
  pmap = layout == "pmap"
  learn = ppo.make_learn(
    bigram.networks(cfg.critic.kind)._replace(sampler_agrees=agrees),
    bigram.sgd(0.1 * scale),
    cfg,
    accumulation=accumulation,
    axis_name="data" if pmap else None,
    spread=lambda batch: (
      batch if pmap else jax.lax.with_sharding_constraint(batch, rows)
    ),
    texts=bigram.texts_of(cfg),
  )
  if pmap:
    mapped = meshes.data_parallel(
      lambda state, batch, rest: learn(state, rest[0], batch, rest[1]), mesh
    )
    return cfg, lambda state, frozen, batch, key: mapped(
      state, batch, (frozen, key)
    )
  return cfg, jax.jit(
    learn, in_shardings=(everywhere, everywhere, rows, everywhere)
  )


def learned(
  case,
  layout="one device",
  *,
  scale=1.0,
  epochs=1,
  minibatches=1,
  accumulation=1,
  batch=None,
  agrees=False,
):
  """State and metrics after one iteration of a case."""
  cfg, learn = program(
    case, layout, scale, epochs, minibatches, accumulation, agrees
  )
  start, frozen = bigram.state(cfg, critic=cfg.critic.kind)
  if batch is None:
    batch = bigram.batch_of(cfg, R)
  return learn(start, frozen, batch, jax.random.key(3))


def tables(state):
  """All trained parameters as one vector."""
  trees = [state.actor.params]
  if not isinstance(state.critic, tuple) or state.critic:
    trees.append(state.critic.params)
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(trees)])


class LearnTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_one_step_is_that_of_the_papers(self):
    cfg = bigram.config()
    optimizers = bigram.sgd(1.0)
    start, frozen = bigram.state(cfg, optimizers=optimizers)
    batch = bigram.batch()
    learn = ppo.make_learn(bigram.networks(), optimizers, cfg)
    state, metrics = jax.jit(learn)(start, frozen, batch, jax.random.key(0))
    actor, ref, critic = (
      np.asarray(x[name])
      for x, name in zip(
        bigram.params(), ("table", "table", "value"), strict=True
      )
    )
    where = np.asarray(batch["where"])
    utilities = np.asarray(batch["scores"], np.float64)[where, 0].mean(0)
    worst = int(np.argmin(utilities))
    rows = policy_reference.advantages(
      actor,
      ref,
      critic,
      batch,
      kl_coef=float(np.float32(0.1)),
      discount=1.0,
      lam=0.95,
      scores=np.asarray(batch["scores"], np.float64)[:, 0, worst],
    )
    whitened = policy_reference.whiten(rows)
    step = policy_reference.slope(
      lambda t: policy_reference.policy_loss(t, actor, batch, whitened, 0.2),
      actor,
    )
    np.testing.assert_allclose(
      state.actor.params["table"], actor - step, atol=2e-8
    )
    step = policy_reference.slope(
      lambda v: policy_reference.value_loss(v, batch, rows, 0.2), critic
    )
    np.testing.assert_allclose(
      state.critic.params["value"], critic - step, atol=2e-8
    )
    np.testing.assert_allclose(
      metrics["train/value_loss"],
      policy_reference.value_loss(critic, batch, rows, 0.2),
    )
    self.assertEqual(float(metrics[f"train/group_weight/{'ab'[worst]}"]), 1.0)

  def test_golden_step(self):
    # If this moves, say first which line should have moved it: see
    # CONTRIBUTING.md, "Judge a changed golden value".
    state, metrics = learned("ppo shared", epochs=2, minibatches=4)
    np.testing.assert_allclose(
      [np.sum(tables(state)), np.sum(tables(state) ** 2)],
      [-3.3505411211202487, 21.615328924274827],
      rtol=1e-8,
    )
    for name, value in {
      "train/loss": 0.19823089632472723,
      "train/policy_loss": 0.04115958857089282,
      "train/value_loss": 0.8268058099540141,
      "train/kl_loss": 0.8963028983243192,
      "train/entropy": 1.388189630964064,
      "train/approx_kl": 8.508385035680831e-05,
      "train/kl": -0.6859135977530746,
      "train/shaped_score": -0.35780401687251456,
    }.items():
      np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)

  @parameterized.parameters(
    ("ppo", dict(accumulation=4)),
    ("ppo", dict(layout="sharded")),
    ("ppo shared", dict(layout="pmap", accumulation=2)),
    ("ppo atoms", dict(layout="pmap", accumulation=2)),
    ("ppo shared atoms", dict(layout="sharded")),
    ("grpo", dict(layout="pmap")),
    ("group_dpo", dict(layout="pmap")),
    ("ppo labels", dict(layout="sharded")),
    ("ppo labels", dict(layout="pmap", accumulation=2)),
  )
  def test_any_layout_gives_the_same_step(self, case, options):
    expected, report = learned(case)
    state, metrics = learned(case, **options)
    before = tables(
      bigram.state(config_of(case), critic=config_of(case).critic.kind)[0]
    )
    moved = tables(expected) - before
    self.assertGreater(np.abs(moved).max(), 1e-4)
    np.testing.assert_allclose(
      tables(state) - before, moved, rtol=1e-10, atol=1e-13
    )
    for name, value in report.items():
      np.testing.assert_allclose(
        metrics[name], value, rtol=1e-6, atol=1e-9, err_msg=name
      )

  @parameterized.parameters(
    dict(),
    dict(accumulation=4),
    dict(layout="sharded"),
    dict(layout="pmap", accumulation=2),
  )
  def test_one_step_reads_its_own_forward_pass(self, **options):
    batch = bigram.batch(R, 4)
    expected, report = learned("grpo", batch=batch)
    state, metrics = learned("grpo", batch=batch, agrees=True, **options)
    before = tables(bigram.state(config_of("grpo"), critic="none")[0])
    moved = tables(expected) - before
    np.testing.assert_allclose(
      tables(state) - before, moved, rtol=1e-10, atol=1e-13
    )
    # The sampler of this batch reports what no policy said: it is reported on,
    # and the KL is by its word.
    spared = {"train/kl", "train/kl/a", "train/kl/b"}
    said, true = (float(m["train/kl"]) for m in (metrics, report))
    self.assertGreater(abs(said - true), 0.1)
    self.assertEqual({*report} - {*metrics}, {"train/mismatch_max_ratio"})
    for name in {*metrics} - spared:
      np.testing.assert_allclose(
        metrics[name], report[name], rtol=1e-6, atol=1e-9, err_msg=name
      )

  def test_layouts_agree_over_epochs_of_minibatches(self):
    expected, _ = learned("ppo", epochs=3, minibatches=2)
    for options in (dict(accumulation=4), dict(layout="pmap")):
      state, _ = learned("ppo", epochs=3, minibatches=2, **options)
      np.testing.assert_allclose(tables(state), tables(expected), rtol=1e-9)

  def test_a_step_eight_times_too_large_is_seen(self):
    expected, wrong = learned("ppo")[0], learned("ppo", scale=8.0)[0]
    self.assertGreater(np.abs(tables(wrong) - tables(expected)).max(), 1e-3)

  @parameterized.parameters("ppo", "group_dpo")
  def test_minibatches_add_up_to_the_batch(self, case):
    # With steps too small to matter, those of all minibatches are one epoch's
    # step of the whole batch times their number.
    cfg = config_of(case)
    before = tables(bigram.state(cfg, critic=cfg.critic.kind)[0])
    tiny = 1e-5
    whole = tables(learned(case)[0]) - before
    parts = tables(learned(case, scale=tiny, minibatches=4)[0]) - before
    np.testing.assert_allclose(parts / 4 / tiny, whole, rtol=1e-4, atol=1e-7)

  @parameterized.parameters(
    "ppo", "ppo shared", "ppo shared atoms", "grpo", "group_dpo", "ppo labels"
  )
  def test_what_is_masked_may_be_anything(self, case):
    cfg = config_of(case)
    batch = bigram.batch_of(cfg, R)
    clean, report = learned(case, batch=batch)
    garbage = dict(batch)
    garbage["tokens"] = (
      jnp.where(batch["mask"], batch["tokens"], bigram.V - 1).at[2].set(1)
    )
    garbage["sampler_log_probs"] = jnp.where(
      batch["mask"][..., -bigram.N :], batch["sampler_log_probs"], jnp.nan
    )
    for name in {"scores", "label_probs", "label_gaps"} & {*batch}:
      garbage[name] = batch[name].at[2].set(jnp.nan)
    state, metrics = learned(case, batch=garbage)
    transforms.assert_identical(tables(state), tables(clean))
    transforms.assert_identical(
      {name: metrics[name] for name in report}, report
    )

  def test_what_comes_after_the_stop_changes_nothing(self):
    def after(epochs, stop_kl):
      cfg = bigram.config(
        policy=dict(epochs=epochs, minibatches=2, stop_kl=stop_kl)
      )
      optimizers = ppo.Optimizers(optax.adam(0.5), optax.adam(0.5))
      start, frozen = bigram.state(cfg, optimizers=optimizers)
      learn = ppo.make_learn(bigram.networks(), optimizers, cfg)
      return jax.jit(learn)(start, frozen, bigram.batch(), jax.random.key(1))

    short, report = after(4, 0.02)
    self.assertEqual(float(report["train/stopped"]), 1.0)
    self.assertBetween(int(report["train/updates"]), 1, 7)
    self.assertEqual(int(short.actor.step), int(report["train/updates"]))
    self.assertLessEqual(float(report["train/approx_kl"]), 0.02)
    free, unstopped = after(4, None)
    self.assertEqual(int(unstopped["train/updates"]), 8)
    self.assertGreater(np.abs(tables(free) - tables(short)).max(), 1e-2)

  def test_a_non_finite_step_is_counted_and_not_applied(self):
    batch = bigram.batch(R)
    batch["scores"] = batch["scores"].at[0].set(jnp.nan)
    start = tables(bigram.state(bigram.config())[0])
    state, metrics = learned("ppo", batch=batch, epochs=3)
    np.testing.assert_array_equal(tables(state), start)
    self.assertEqual(int(metrics["train/bad_steps"]), 3)

  def test_minibatches_must_divide_the_prompts(self):
    with self.assertRaisesRegex(ValueError, "got 3 and 16"):
      learned("ppo", minibatches=3)


def bandit(cfg, *, optimizers, iterations, rewards, samples=512, critic="none"):
  """Trains the table on one-token answers to token 0, sampling on-policy."""
  networks = bigram.networks(critic, width=1)
  learn = ppo.make_learn(networks, optimizers, cfg)
  actor = {"table": jnp.zeros((bigram.V, bigram.V))}
  frozen = {"table": jnp.array(np.random.default_rng(7).normal(size=(5, 5)))}
  actor = jax.tree.map(jnp.copy, frozen)
  value = {"value": jnp.zeros(bigram.V)}
  if critic == "shared":
    actor |= value
  start = ppo.init_policy_state(
    actor, value if critic == "separate" else None, optimizers, cfg
  )
  size = 1 if cfg.policy.kind == "ppo" else 4
  shape = (samples // size, size)

  def iteration(state, key):
    draw, order = jax.random.split(key)
    table = state.actor.params["table"]
    token = jax.random.categorical(draw, table[0], shape=shape)
    batch = {
      "tokens": jnp.stack([jnp.zeros(shape, jnp.int32), token], -1).astype(
        jnp.int32
      ),
      "mask": jnp.ones((*shape, 2), bool),
      "sampler_log_probs": jax.nn.log_softmax(table[0])[token][..., None],
      "ended": jnp.ones(shape, bool),
      "scores": rewards[token],
      "group": jnp.full(shape[0], -1, jnp.int32),
      "where": jnp.ones(shape[0], bool),
      "row": jnp.arange(shape[0], dtype=jnp.int32),
    }
    return learn(state, frozen, batch, order)

  keys = jax.random.split(jax.random.key(0), iterations)
  state, metrics = jax.jit(lambda s, k: jax.lax.scan(iteration, s, k))(
    start, keys
  )
  return state, metrics, np.asarray(frozen["table"][0])


def probabilities(table):
  shifted = np.exp(table - table.max())
  return shifted / shifted.sum()


class OptimumTest(parameterized.TestCase):
  rewards = np.array(
    [[1.0, 0.0], [0.0, 1.0], [0.6, 0.5], [0.0, 0.0], [0.2, 0.1]]
  )

  def adam(self, rate=0.03):
    schedule = optax.cosine_decay_schedule(rate, 600)
    return ppo.Optimizers(optax.adam(schedule), optax.adam(0.1))

  @parameterized.parameters(
    ("ppo", "reward", "k1", "separate"),
    ("ppo", "loss", "k2", "shared"),
    ("rloo", "reward", "k1", "none"),
  )
  def test_reaches_the_closed_form(self, kind, place, estimator, critic):
    """One group: π ∝ π_ref exp(r / β)."""
    beta = 0.5
    changes = dict(kind="single", group=0)
    cfg = bigram.config(
      policy=dict(kind=kind, whiten=False, epochs=2, minibatches=1),
      critic=(
        bigram.NO_CRITIC
        if critic == "none"
        else dict(
          kind=critic, coef=0.5 if critic == "shared" else None, clip=None
        )
      ),
      kl=dict(place=place, estimator=estimator, coef=beta),
      welfare=changes,
    )
    state, metrics, ref = bandit(
      cfg,
      optimizers=self.adam(),
      iterations=300,
      rewards=jnp.array(self.rewards, jnp.float32),
      critic=critic,
    )
    found = probabilities(np.asarray(state.actor.params["table"][0]))
    wanted = probabilities(ref + self.rewards[:, 0] / beta)
    np.testing.assert_allclose(found, wanted, atol=0.015)
    self.assertGreater(np.abs(probabilities(ref) - wanted).max(), 0.15)

  def test_maxmin_lifts_the_worst_off_group(self):
    """Exponentiated weights against a policy: the saddle point of the dual."""
    beta = 0.2

    def dual(weight):
      mixed = self.rewards @ np.array([weight, 1 - weight])
      return beta * np.log(np.sum(base * np.exp(mixed / beta)))

    cfg = bigram.config(
      policy=dict(whiten=False, epochs=2),
      critic=dict(clip=None),
      kl=dict(coef=beta),
      welfare=dict(kind="exponentiated", step_size=0.05),
    )
    state, metrics, ref = bandit(
      cfg,
      optimizers=self.adam(),
      iterations=300,
      rewards=jnp.array(self.rewards, jnp.float32),
      critic="separate",
    )
    base = probabilities(ref)
    found = probabilities(np.asarray(state.actor.params["table"][0]))
    grid = np.linspace(0, 1, 2001)
    weight = grid[np.argmin([dual(w) for w in grid])]
    best = probabilities(
      ref + self.rewards @ np.array([weight, 1 - weight]) / beta
    )
    value = lambda p: (
      (p @ self.rewards).min() - beta * np.sum(p * np.log(p / base))
    )
    self.assertLess(value(best) - value(found), 0.01)
    self.assertGreater(value(found) - value(base), 0.05)
    np.testing.assert_allclose(
      np.asarray(metrics["train/group_weight/a"][-100:]).mean(),
      weight,
      atol=0.1,
    )

  def test_the_controller_reaches_its_target(self):
    cfg = bigram.config(
      policy=dict(whiten=False, epochs=2),
      critic=dict(clip=None),
      kl=dict(coef=0.05, controller="adaptive", target=0.3, horizon=4000.0),
      welfare=dict(kind="single", group=0),
    )
    state, metrics, _ = bandit(
      cfg,
      optimizers=ppo.Optimizers(optax.adam(0.03), optax.adam(0.1)),
      iterations=400,
      rewards=jnp.array(self.rewards, jnp.float32),
      critic="separate",
    )
    kl = np.asarray(metrics["train/kl"])
    self.assertLess(kl[0], 0.05)
    np.testing.assert_allclose(kl[-100:].mean(), 0.3, rtol=0.1)
    self.assertGreater(float(state.kl.kl_coef), 0.1)

  @parameterized.parameters("dpo", "group_dpo")
  def test_online_preferences_favour_the_better_answer(self, kind):
    cfg = bigram.config(
      policy=dict(kind=kind, **bigram.PAIRS),
      critic=bigram.NO_CRITIC,
      kl=dict(place="loss", estimator="k2", coef=0.5),
      welfare=(
        dict(kind="single", group=0)
        if kind == "dpo"
        else dict(kind="exponentiated", step_size=0.05)
      ),
    )
    state, metrics, ref = bandit(
      cfg,
      optimizers=self.adam(),
      iterations=200,
      rewards=jnp.array(self.rewards, jnp.float32),
    )
    found = probabilities(np.asarray(state.actor.params["table"][0]))
    gain = found @ self.rewards - probabilities(ref) @ self.rewards
    if kind == "dpo":
      self.assertGreater(gain[0], 0.15)
    else:
      self.assertGreater(gain.min(), 0.02)
      weights = state.group_weights
      np.testing.assert_allclose(float(jnp.sum(weights)), 1.0, rtol=1e-5)


if __name__ == "__main__":
  absltest.main()
