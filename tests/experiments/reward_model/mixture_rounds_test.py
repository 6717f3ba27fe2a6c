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

from jaxalign.algorithms import bradley_terry, denoised
from jaxalign.experiments import train_reward
from jaxalign.experiments.reward_model import mixture_rounds
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
  )
  def test_what_does_not_fit_the_data_is_refused(self, recipe, message):
    with self.assertRaisesRegex(ValueError, message):
      run(config(recipe=recipe))


if __name__ == "__main__":
  absltest.main()
