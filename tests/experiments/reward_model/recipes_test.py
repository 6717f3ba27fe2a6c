"""Every recipe through the stage: its first steps, and what it leaves.

If a golden test fails, a change altered what training computes. Was that the
point? If so, say in the commit what moved and why, and put the new numbers
here; if not, the change is wrong.
"""

import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import losses
from jaxalign.algorithms import reward_readout
from jaxalign.experiments import train_reward
from jaxalign.experiments.reward_model import scoring
from jaxalign.runtime.io import artifact, metric_writer
from tests import config_reads
from tests.experiments.reward_model.pair_recipes_test import strong_crowd
from tests.experiments.train_reward_test import smoke_config

# Read with certain values of other keys alone.
CONDITIONAL = {
  "recipe.decay",
  "recipe.epsilon",
  "recipe.fixed",
  "recipe.labels.cost",
  "recipe.labels.utilities",
  "recipe.num_iters",
  "recipe.prototype_learning_rate",
  "recipe.queue_size",
  "recipe.smoothing",
}
SWAV = dict(
  name="contrastive",
  loss="swav",
  instances="differences",
  weight=0.5,
  temperature=0.1,
  num_prototypes=4,
  queue_size=24,
)
# recipe, changes of the config, (loss, gradient norm) of three steps
GOLDEN = {
  "contrastive": (
    dict(recipe=dict(name="contrastive"), model__dropout=0.05),
    ((2.850454, 161.738785), (2.622553, 119.125633), (3.291040, 136.571976)),
  ),
  "contrastive_swav": (
    dict(recipe=SWAV, model__dropout=0.05),
    ((2.265528, 48.410431), (2.661399, 38.796616), (2.917588, 44.475773)),
  ),
  "denoised": (
    dict(
      recipe=dict(name="denoised", policy="flip_margin"),
      data__train_files=(strong_crowd(),),
    ),
    ((1.462347, 34.148491), (1.131516, 33.156925), (0.935481, 16.481035)),
  ),
  "dprm": (
    dict(
      recipe=dict(name="dprm", prior_strength=5.0),
      data__train_files=("synthetic:labels:train",),
    ),
    ((1.540024, 58.598282), (1.230652, 47.034767), (1.208515, 14.705588)),
  ),
  "mean_variance": (
    dict(recipe=dict(name="mean_variance")),
    ((1.006630, 132.886581), (1.240709, 90.328163), (0.731445, 8.193960)),
  ),
  "metarm": (
    dict(
      recipe=dict(
        name="metarm",
        files=("synthetic:two_groups:test_candidates",),
        num_prompts=4,
        num_responses=3,
        step_size=1e-3,
      )
    ),
    ((0.787773, 20.424242), (0.595856, 21.576656), (0.801989, 9.925777)),
  ),
  "group_dro": (
    dict(recipe=dict(name="group_dro", num_groups=2)),
    ((0.768654, 35.240704), (1.020873, 48.832718), (0.586375, 18.089508)),
  ),
  "mixture": (
    dict(
      recipe=dict(
        name="mixture", num_components=2, num_users=200, steps_per_round=2
      )
    ),
    ((0.820402, 29.752367), (1.021652, 31.38868), (0.670464, 8.670485)),
  ),
  "more": (
    dict(recipe=dict(name="more", num_sources=2), data__mixing="stratified"),
    ((0.738016, 19.376425), (0.678784, 22.386181), (0.863285, 15.078632)),
  ),
}


class RecipesTest(parameterized.TestCase):
  @parameterized.parameters(*GOLDEN)
  def test_first_steps_and_artefact(self, name):
    changes, golden = GOLDEN[name]
    config = smoke_config(
      data__eval_files=(), train__num_steps=3, train__eval_every=None, **changes
    )
    workdir = epath.Path(tempfile.mkdtemp())
    with config_reads.recorded(config) as unread:
      train_reward.run(config, workdir, profile=False)
    unread = {key for key in unread if key.startswith("recipe")}
    self.assertContainsSubset(unread, CONDITIONAL)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    got = [[row["train/loss"], row["train/gradient_norm"]] for row in rows]
    np.testing.assert_allclose(got, golden, rtol=1e-4)
    self.assertContainsSubset(("train/nll", "train/accuracy"), rows[-1])
    page = (workdir / "report.html").read_text()
    self.assertIn("Warning: no pairs are held out", page)
    folder = str(workdir / "model")
    described = artifact.load_description(folder)
    read = scoring.load_readout(folder)
    network = scoring.load_network(folder, "float32")
    self.assertLen(described.heads, network.num_outputs)
    self.assertLen(
      described.calibration["mean"], read.num_rewards(network.num_outputs)
    )

  def test_a_label_model_says_how_it_is_read(self):
    config = smoke_config(
      data__train_files=("synthetic:labels:train",),
      data__eval_files=(),
      recipe=dict(name="dprm", loss="cross_entropy", risk="cvar", alpha=0.3),
      train__num_steps=3,
    )
    workdir = epath.Path(tempfile.mkdtemp())
    train_reward.run(config, workdir, profile=False)
    described = artifact.load_description(workdir / "model")
    self.assertEqual(described.heads, losses.HELPFUL_HARMLESS_LABELS)
    self.assertEqual(described.label_cost[0], (0.0, 0.5, 2.0, 2.0, 2.5, 4.0))
    self.assertEqual(
      scoring.load_readout(str(workdir / "model")),
      reward_readout.Readout(
        "labels", (1.0, 0.5, -1.0, -1.0, -1.5, -3.0), "cvar", alpha=0.3
      ),
    )

  def test_a_recipe_with_its_own_loss_refuses_changes_of_the_pair_loss(self):
    config = smoke_config(
      recipe=dict(name="mean_variance"), loss__flip_rate=0.1
    )
    with self.assertRaisesRegex(
      ValueError, "'mean_variance' has a loss of its own.*flip_rate=0.1"
    ):
      train_reward.run(config, epath.Path(tempfile.mkdtemp()), profile=False)


if __name__ == "__main__":
  absltest.main()
