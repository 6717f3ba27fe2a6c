"""Rounds of the mixture through the stage: killed, restarted, refused."""

import dataclasses
import functools
import json
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import models
from jaxalign.algorithms import bradley_terry, denoised, mixture
from jaxalign.experiments import train_reward
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.reward_model import fitting, mixture_rounds
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, metric_writer
from tests.experiments import interrupted, train_reward_test

CROWD = "synthetic:two_groups,num_annotators=12,pairs_per_annotator=5"
FILES = (
  "metrics.jsonl",
  "mixture.json",
  "restarts.json",
  "eval.json",
  "model/model.safetensors",
  "model/jaxalign.json",
)


def config(**changes):
  """Three rounds of two steps on twelve people, after two starts."""
  recipe = dict(
    name="mixture",
    num_components=2,
    steps_per_round=2,
    restarts=2,
    restart_rounds=1,
  )
  recipe.update(changes.pop("recipe", {}))
  given = dict(
    data__train_files=(f"{CROWD}:train",),
    data__eval_files=(f"{CROWD},num_test_annotators=6:test",),
    recipe=recipe,
  )
  return train_reward_test.smoke_config(**given | changes)


def run(given, workdir=None):
  workdir = epath.Path(workdir or tempfile.mkdtemp())
  train_reward.run(given, workdir, profile=False)
  return workdir


class RoundsTest(parameterized.TestCase):
  straight = None

  def setUp(self):
    super().setUp()
    if RoundsTest.straight is None:
      RoundsTest.straight = run(config())

  def test_what_a_run_leaves(self):
    rows = metric_writer.read_rows(self.straight / "metrics.jsonl")
    due = [row["step"] for row in rows if "em/log_likelihood" in row]
    self.assertEqual(due, [2, 4, 6])
    self.assertEqual(
      [row["step"] for row in rows if "train/loss" in row], [*range(1, 7)]
    )
    described = artifact.load_description(self.straight / "model")
    self.assertEqual(described.heads, ("component_0", "component_1"))
    self.assertLen(described.calibration["mean"], 2)
    self.assertNotEqual(*described.calibration["std"])
    self.assertAlmostEqual(sum(described.mixture_weights), 1.0, places=5)
    found = json.loads((self.straight / "mixture.json").read_text())
    self.assertEqual(found["mixture_weights"], list(described.mixture_weights))
    self.assertLen(found["users"], 12)
    shares = np.array(list(found["users"].values()))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
      shares.mean(axis=0), found["mixture_weights"], atol=1e-5
    )
    self.assertEqual(np.sum(found["confusion"]), 12)
    self.assertEqual(rows[-2]["em/group_accuracy"], found["group_accuracy"])
    self.assertIn("eval/user_nll", rows[-1])
    result = json.loads((self.straight / "eval.json").read_text())
    self.assertEqual([*result["models"]], ["model, head 0", "model, head 1"])
    self.assertAlmostEqual(
      result["mixtures"]["model"]["user_nll"],
      rows[-1]["eval/user_nll"],
      places=5,
    )

  def test_the_likeliest_start_goes_on(self):
    tried = json.loads((self.straight / "restarts.json").read_text())
    likelihood, chosen = tried["log_likelihood"], tried["chosen"]
    self.assertEqual(chosen, int(np.argmax(likelihood)))
    self.assertNotEqual(*likelihood)
    rows = metric_writer.read_rows(self.straight / "metrics.jsonl")
    self.assertAlmostEqual(
      rows[1]["em/log_likelihood"], likelihood[chosen], places=3
    )
    for start in range(2):
      folder = self.straight / "restarts" / str(start)
      self.assertFalse((folder / "checkpoints").exists())
      self.assertLen(metric_writer.read_rows(folder / "metrics.jsonl"), 2)

  @parameterized.parameters(2, 4, 9)
  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self, writes):
    # Rows are written for two steps of each start, then for steps 3 to 6: the
    # kills are within the first start, at its end and after an E-step.
    again = functools.partial(run, config())
    interrupted.assert_resumes(self, again, self.straight, FILES, row=writes)

  def test_oracle_keeps_the_known_groups(self):
    workdir = run(
      config(
        recipe=dict(assignment="oracle", restarts=1),
        train__num_steps=2,
        optimizer__warmup_steps=1,
      )
    )
    found = json.loads((workdir / "mixture.json").read_text())
    self.assertEqual(found["group_accuracy"], 1.0)
    self.assertEqual(
      np.array(list(found["users"].values())).tolist(),
      np.eye(2)[found["group_of_user"]].tolist(),
    )

  def test_the_e_step_reads_what_the_m_step_is_taught(self):
    rng = np.random.default_rng(0)
    dataset = types.SimpleNamespace(
      annotator=np.array([0, 1, 1, -1], np.int32),
      margin=np.array([0.5, -1, 0, 2], np.float32),
      chosen_prob=np.array([1, 0.2, 0.7, 0.5], np.float32),
    )
    rewards = rng.normal(size=(4, 2, 3)).astype(np.float32)
    gaps = rewards[:, 0] - rewards[:, 1]
    for loss, rows, margin, label in (
      (("hard", 0.0, None, 0.1), None, 0, None),
      (("votes", 0.0, "column", 0.0), None, 1, dataset.chosen_prob),
      (("hard", 0.25, None, 0.0), None, 0, np.full(4, 0.75)),
      (
        ("hard", 0.0, None, 0.0, denoised.DenoiseConfig("drop")),
        np.array([0, 2]),
        1,
        dataset.chosen_prob,
      ),
    ):
      config = bradley_terry.PairLossConfig(*loss)
      found = mixture_rounds.evidence(rewards, dataset, rows, config)
      np.testing.assert_allclose(
        found["gaps"], gaps - margin * dataset.margin[:, None]
      )
      if label is None:
        self.assertIsNone(found["chosen_prob"])
        label = np.ones(4)
      else:
        np.testing.assert_allclose(found["chosen_prob"], label)
      used = [0, 1, 1, -1] if rows is None else [0, -1, 1, -1]
      self.assertEqual(found["user"].tolist(), used)
      # The likelihood of the E-step is minus the loss, but for centering.
      d = found["gaps"][:, 1]
      likelihood = -label * np.log1p(np.exp(-d))
      likelihood -= (1 - label) * np.log1p(np.exp(d))
      plain = dataclasses.replace(config, centering=0.0)
      per_pair = bradley_terry.pair_losses(
        jnp.array(rewards[:, 0, 1]),
        jnp.array(rewards[:, 1, 1]),
        jax.tree.map(jnp.array, vars(dataset)),
        plain,
      )
      np.testing.assert_allclose(likelihood, -per_pair, rtol=1e-5)

  def test_a_coupled_mixture_is_resumed_bit_for_bit(self):
    given = config(
      coupling=dict(name="more"),
      recipe=dict(restarts=1),
      data__eval_files=(),
      loss__flip_rate=0.1,
    )
    files = ("metrics.jsonl", "mixture.json", "model/model.safetensors")
    again = functools.partial(run, given)
    interrupted.assert_resumes(self, again, run(given), files, row=5)

  def test_every_group_has_a_reward_model_of_its_own(self):
    given = config(
      recipe=dict(separate=True, fresh_schedule=True),
      optimizer__warmup_steps=1,
    )
    straight = run(given)
    self.assertFalse((straight / "model").exists())
    found = []
    for number in (0, 1):
      folder = str(straight / "models" / f"component_{number}")
      described = artifact.load_description(folder)
      self.assertEqual(described.heads, (f"component_{number}",))
      self.assertLen(described.calibration["mean"], 1)
      self.assertIsNone(described.mixture_weights)
      _, params, network = models.load_reward_model(folder)
      self.assertEqual(network.num_outputs, 1)
      found.append(params)
    differ = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *found)
    self.assertGreater(min(jax.tree.leaves(differ)), 0)
    result = json.loads((straight / "eval.json").read_text())
    self.assertLen(result["mixtures"]["model"]["weights"], 2)
    self.assertLen(result["mixtures"]["model"]["pooled_cost"]["groups"], 2)
    files = (
      "metrics.jsonl",
      "mixture.json",
      "models/component_1/model.safetensors",
    )
    again = functools.partial(run, given)
    interrupted.assert_resumes(self, again, straight, files, row=9)

  def test_models_side_by_side_are_those_alone(self):
    # Each is given its own group's pairs alone: the other's tell it nothing.
    given = config(
      recipe=dict(separate=True, num_users=12), loss__flip_rate=0.1
    )
    stage = train_reward.build(given, meshes.make_mesh(given.mesh))
    network = stage.network
    self.assertEqual(network.num_outputs, 1)
    model = heads.reward_model(network)
    forward = mixture_rounds.separate_forward(model, network)
    alone = bradley_terry.pair_forward(model.apply, dropout=False)
    rng = np.random.default_rng(0)
    tokens = jnp.array(rng.integers(0, 200, size=(6, 2, 9)), jnp.int32)
    batch = {
      "tokens": tokens,
      "mask": jnp.ones(tokens.shape, bool),
      "prompt_lengths": jnp.full((6, 2), 3, jnp.int32),
      "where": jnp.arange(6) < 5,
      "annotator": jnp.array([0, 1, 0, 1, 0, -1], jnp.int32),
      "margin": jnp.zeros(6),
      "chosen_prob": jnp.ones(6),
    }
    keys = jax.random.split(jax.random.key(0), 2)
    own = [model.init(key, tokens[:, 0], batch["mask"][:, 0]) for key in keys]
    both = jax.tree.map(lambda *x: jnp.stack(x), *own)
    found = forward(both, batch)
    for k in (0, 1):
      one = alone(own[k], batch)
      for side in ("chosen", "rejected"):
        np.testing.assert_allclose(
          getattr(found, side)[:, k], getattr(one, side)[:, 0], atol=1e-6
        )
    rows = mixture.mixture_rows(given.recipe, given.loss)
    membership = rows.carry._replace(
      responsibilities=jnp.eye(2)[jnp.arange(12) % 2]
    )

    def together(params):
      ready = rows.prepare(batch, membership)
      return jnp.sum(rows.losses(forward(params, ready), ready)[:5])

    def of_one(params, k):
      kept = {**batch, "where": batch["where"] & (batch["annotator"] == k)}
      outputs = alone(params, kept)
      each = bradley_terry.pair_losses(
        outputs.chosen[:, 0], outputs.rejected[:, 0], kept, given.loss
      )
      return jnp.sum(jnp.where(kept["where"], each, 0.0))

    slopes = jax.grad(together)(both)
    for k in (0, 1):
      jax.tree.map(
        lambda got, want, k=k: np.testing.assert_allclose(
          got[k], want, rtol=1e-3, atol=1e-6
        ),
        slopes,
        jax.grad(of_one)(own[k], k),
      )

  def test_a_fresh_schedule_begins_each_round_as_a_run_would(self):
    def made(steps, **changes):
      return config(
        recipe=dict(restarts=1, num_users=12, **changes),
        data__eval_files=(),
        train__num_steps=steps,
        optimizer__warmup_steps=1,
        optimizer__schedule="linear",
      )

    given, loaded = fitting.load(made(4, fresh_schedule=True))
    mesh = meshes.make_mesh(given.mesh)
    stage = train_reward.build(given, mesh)
    brief = train_reward.build(made(2), mesh)
    rng = np.random.default_rng(0)
    rounds = mixture_rounds.Rounds(
      given.recipe,
      given.loss,
      types.SimpleNamespace(
        stage=stage,
        pairs=loaded.learned,
        rows=loaded.rows,
        seed=0,
        train=given.train,
        rewards_of=lambda params, pairs: rng.normal(
          size=(len(pairs.dataset), 2, 2)
        ).astype(np.float32),
      ),
    )
    source, copy = (
      fitting.batches(given, loaded),
      lambda tree: jax.tree.map(jnp.array, tree),
    )
    spread = stage.batch["where"].sharding
    key = jax.random.key(1)
    batch = lambda n: multihost.global_batch(source[n], spread)
    state = stage.init(jax.random.key(0))
    for n in (0, 1):
      state, _ = stage.step(state, batch(n), jax.random.clone(key))
    worn = state
    state, _ = rounds.revise(2, state)
    counts = [x for x in jax.tree.leaves(state.opt_state) if x.ndim == 0]
    self.assertNotEmpty(counts)
    for leaf in jax.tree.leaves(state.opt_state):
      self.assertEqual(float(jnp.abs(leaf).max()), 0.0)
    fresh = brief.init(jax.random.key(0))._replace(
      params=copy(state.params), carry=copy(state.carry), step=copy(state.step)
    )
    unlike = copy(worn)._replace(carry=copy(state.carry))

    def run_on(built, state):
      for n in (2, 3):
        state, _ = built.step(state, batch(n), jax.random.clone(key))
      return state.params

    want, worn = run_on(brief, fresh), run_on(stage, unlike)
    got = run_on(stage, state)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), got, worn)
    self.assertGreater(max(jax.tree.leaves(gaps)), 1e-5)

  def test_separate_models_in_all_layouts_are_the_same(self):
    given = lambda **changes: config(
      recipe=dict(separate=True, restarts=1),
      data__eval_files=(),
      train__num_steps=2,
      optimizer__warmup_steps=1,
      **changes,
    )
    first = None
    for changes in (
      {},
      {"train__accumulation": 2},
      {"mesh__data": 2, "train__parallel": "pmap"},
      {"mesh__data": 2, "mesh__fsdp": 2},
    ):
      workdir = run(given(**changes))
      row = metric_writer.read_rows(workdir / "metrics.jsonl")[-1]
      _, params, _ = models.load_reward_model(
        str(workdir / "models" / "component_1")
      )
      first = first or (row, params)
      self.assertAlmostEqual(
        row["em/log_likelihood"], first[0]["em/log_likelihood"], places=3
      )
      jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, atol=2e-5),
        params,
        first[1],
      )

  def test_starts_are_balanced_and_differ(self):
    given = config(recipe=dict(num_users=12))
    rounds = mixture_rounds.Rounds.__new__(mixture_rounds.Rounds)
    rounds._config, rounds._seed = given.recipe, 0
    first, second = (rounds.first_assignment(start) for start in (0, 1))
    for rows in (first, second):
      np.testing.assert_array_equal(rows.sum(axis=0), [6, 6])
    self.assertFalse(np.array_equal(first, second))
    np.testing.assert_array_equal(first, rounds.first_assignment(0))

  @parameterized.parameters(
    (dict(num_users=13), "num_users must be .* got 13 and 12"),
    (
      dict(num_components=3, assignment="oracle", restarts=1),
      "needs num_components groups.*got 3 and 2, 0 users",
    ),
    (dict(restart_rounds=4), r"must be <= train.num_steps, got 4 x 2 and 6"),
    (
      dict(steps_per_round=4, fresh_schedule=True),
      "must be a multiple of steps_per_round with fresh_schedule, got 6 and 4",
    ),
  )
  def test_what_does_not_fit_the_data_is_refused(self, recipe, message):
    with self.assertRaisesRegex(ValueError, message):
      run(config(recipe=recipe))

  def test_separate_models_have_no_head_in_common(self):
    given = config(
      recipe=dict(separate=True),
      coupling=dict(name="more"),
      data__train_files=("nowhere.jsonl",),
    )
    with self.assertRaisesRegex(ValueError, "no head in common: coupling must"):
      run(given)
    head = dataclasses.replace(
      config(recipe=dict(separate=True)),
      model=backbone.BackboneConfig(init_from="nowhere", trainable="head"),
    )
    with self.assertRaisesRegex(ValueError, "trainable='head', whose heads"):
      run(head)


if __name__ == "__main__":
  absltest.main()
