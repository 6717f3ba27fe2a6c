"""M networks as one program: the same gradients, on any mesh, on one base."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from jaxalign.algorithms import bradley_terry, ensemble, train_state
from jaxalign.algorithms import update as contract
from jaxalign.experiments import denoise
from jaxalign.experiments.reward_model import ensembles
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from tests.experiments import layouts
from tests.experiments.denoise_test import smoke_config

MEMBERS = 3


@functools.cache
def problem():
  """The update of a tiny Llama in float64, whose step is its gradient."""
  model = heads.reward_model(layouts.network())
  chain = optax.sgd(1.0)
  objective = bradley_terry.bradley_terry(
    model.apply,
    bradley_terry.PairLossConfig("hard", 0.1, None, 0.01),
    dropout=True,
  )
  token = np.zeros((1, 1), np.int32)
  states = [
    train_state.init_state(
      model.init(jax.random.key(m), token, token == 0), chain
    )
    for m in range(MEMBERS)
  ]
  return model, chain, contract.make_update(objective, chain), states


class GradientTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_every_member_has_the_gradient_it_has_alone(self):
    _, _, update, states = problem()
    batches = [layouts.rows(m) for m in range(MEMBERS)]
    together = ensemble.make_ensemble_update(update, MEMBERS, MEMBERS)
    state, means = jax.jit(together)(
      jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
      {name: np.stack([b[name] for b in batches]) for name in batches[0]},
      jax.random.key(1),
    )
    alone, losses = jax.jit(update), []
    for m in range(MEMBERS):
      key = ensemble.member_key(jax.random.key(1), m)
      expected, found = alone(states[m], batches[m], key)
      losses.append(found["train/loss"])
      gaps, sizes = 0.0, 0.0
      for start, end, got in zip(
        *map(jax.tree.leaves, (states[m].params, expected.params)),
        jax.tree.leaves(state.params),
        strict=True,
      ):
        gaps += float(jnp.sum((got[m] - end) ** 2))
        sizes += float(jnp.sum((end - start) ** 2))
      self.assertLess((gaps / sizes) ** 0.5, 1e-10)
    np.testing.assert_allclose(means["train/loss"], np.mean(losses), rtol=1e-12)
    self.assertGreater(np.std(losses), 1e-3)


@functools.cache
def step(sizes, **changes):
  """The built stage, its first state and the state after a step."""
  config = smoke_config(mesh__rules=(("vocab", None),), **changes)
  mesh = meshes.make_mesh(meshes.MeshConfig(*sizes))
  stage = denoise.build(config, mesh)
  start = stage.init(jax.random.key(0))
  first = multihost.fetch(start)
  rng = np.random.default_rng(0)
  batch = {
    name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in stage.batch.items()
  }
  batch["tokens"] = rng.integers(0, 200, batch["tokens"].shape, np.int32)
  batch["mask"][:] = batch["where"][:] = True
  batch["row"][:] = np.arange(batch["row"].shape[-1])
  placed = multihost.global_batch(batch, stage.batch["where"].sharding)
  end, metrics = stage.step(start, placed, jax.random.key(1))
  return stage, first, multihost.fetch(end), metrics


class StageTest(absltest.TestCase):
  def test_a_mesh_changes_nothing(self):
    _, start, end, metrics = step((1, 1, 1))
    _, _, spread, others = step((2, 2, 2))
    for one, other, before in zip(
      *map(jax.tree.leaves, (end.params, spread.params, start.params)),
      strict=True,
    ):
      travelled = max(np.abs(one - before).max(), 1e-6)
      self.assertLess(np.abs(one - other).max(), 2e-2 * travelled)
    np.testing.assert_allclose(
      metrics["train/loss"], others["train/loss"], rtol=1e-5
    )

  def test_members_begin_differently_and_are_laid_out_as_announced(self):
    stage, start, _, _ = step((2, 2, 2))
    kernel = start.params["score"]["kernel"]
    self.assertGreater(np.abs(kernel[0] - kernel[1]).max(), 0.01)
    made = stage.init(jax.random.key(0))
    self.assertEqual(
      jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), made),
      jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), stage.state),
    )
    split = stage.batch["tokens"].sharding.shard_shape((3, 8, 2, 128))
    self.assertEqual(split, (3, 2, 2, 128))

  def test_adapters_share_one_base(self):
    low_rank = dict(rank=2, alpha=4.0, targets=("query", "value"))
    stage, start, end, _ = step.__wrapped__((1, 1, 1), model__lora=low_rank)
    whole = jax.tree.leaves(stage.params)[0].shape
    self.assertEqual(whole[0], MEMBERS)
    base = jax.tree.leaves(start.frozen)
    self.assertEqual(base[0].shape, whole[1:])
    for before, after in zip(base, jax.tree.leaves(end.frozen), strict=True):
      np.testing.assert_array_equal(before, after)
    self.assertLess(
      sum(x.size for x in jax.tree.leaves(start.params)),
      sum(x.size for x in base),
    )
    np.testing.assert_array_equal(
      base[0], jax.tree.leaves(stage.frozen(jax.random.key(0)))[0]
    )

  def test_scores_are_those_of_each_member(self):
    config = smoke_config()
    mesh = meshes.make_mesh(meshes.MeshConfig(2, 1, 1))
    stage = denoise.build(config, mesh)
    scorer = ensembles.score_stage(stage, mesh, (), 4, 128, MEMBERS)
    self.assertEqual(scorer.num_rewards, MEMBERS)
    params = stage.init(jax.random.key(0)).params
    rng = np.random.default_rng(0)
    batch = {
      name: np.zeros(leaf.shape, leaf.dtype)
      for name, leaf in scorer.batch.items()
    }
    batch["tokens"] = rng.integers(0, 200, batch["tokens"].shape, np.int32)
    batch["mask"][:] = True
    rewards, _, _ = scorer.step(
      params, multihost.global_batch(batch, scorer.batch["where"].sharding)
    )
    score = jax.jit(
      bradley_terry.make_score(heads.reward_model(stage.network).apply)
    )
    for m in range(MEMBERS):
      own = jax.tree.map(lambda leaf, m=m: leaf[m], multihost.fetch(params))
      np.testing.assert_allclose(
        rewards[..., m], score(own, batch)[..., 0], rtol=1e-4, atol=1e-5
      )


if __name__ == "__main__":
  absltest.main()
