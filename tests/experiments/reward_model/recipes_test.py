"""Every recipe through the stage: its first steps, and what it leaves.

If a golden test fails, a change altered what training computes. Was that the
point? If so, say in the commit what moved and why, and put the new numbers
here; if not, the change is wrong.
"""

import ast
import dataclasses
import tempfile
from typing import Literal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, denoised, reward_readout
from jaxalign.experiments import train_reward
from jaxalign.experiments.reward_model import recipe as recipe_object
from jaxalign.experiments.reward_model import recipes, scoring
from jaxalign.runtime.io import artifact, metric_writer
from tests import checkout, config_reads
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
  "personal": (
    dict(
      recipe=dict(
        name="personal", rank=2, num_users=200, steps_per_round=2, pull=0.01
      )
    ),
    ((1.213744, 44.707054), (0.864088, 69.300171), (0.684819, 14.606927)),
  ),
}

DENOISE = dict(
  loss__denoise=dict(policy="smooth_margin"),
  data__train_files=(strong_crowd(),),
)
LABELS = dict(
  recipe=dict(name="dprm", loss="line"),
  data__train_files=("synthetic:labels:train",),
)
# Under "l2" two sources weigh one half each, as in their mean.
MORE = dict(
  coupling=dict(name="more", normalise="none"), data__mixing="stratified"
)
METARM = GOLDEN["metarm"][0]
MIXTURE = dict(recipe=dict(name="mixture", num_components=2, steps_per_round=2))
# What trains -> the same without what is added, and a metric that says so.
COMBINATIONS = {
  "denoised more": (
    dict(recipe=dict(name="more"), **DENOISE),
    dict(loss__denoise=None),
    "train/source_weight/0",
  ),
  "denoised contrastive": (
    dict(recipe=dict(name="contrastive"), model__dropout=0.05, **DENOISE),
    dict(loss__denoise=None),
    "train/contrastive",
  ),
  "denoised metarm": (
    METARM | DENOISE,
    dict(loss__denoise=None),
    "train/spread",
  ),
  "dropped pairs in a mixture": (
    MIXTURE | DENOISE | dict(loss__denoise=dict(policy="drop", fraction=0.5)),
    dict(loss__denoise=None),
    "em/log_likelihood",
  ),
  "votes in a mixture": (
    MIXTURE
    | dict(
      loss__labels="votes",
      data__train_files=(strong_crowd(prob=0.6),),
    ),
    dict(loss__labels="hard"),
    "em/log_likelihood",
  ),
  "mixture more": (MIXTURE | MORE, dict(coupling=None), "em/log_likelihood"),
  "dprm more": (LABELS | MORE, dict(coupling=None), "train/source_weight/0"),
  "dprm group_dro": (
    LABELS | dict(coupling=dict(name="group_dro")),
    dict(coupling=None),
    "train/group_weight/1",
  ),
  "normal more": (
    dict(recipe=dict(name="mean_variance")) | MORE,
    dict(coupling=None),
    "train/source_weight/1",
  ),
  "metarm more": (METARM | MORE, dict(coupling=None), "train/spread_ahead"),
}


def three_steps(changes):
  """Rows of the metrics of three steps, and the workdir."""
  config = smoke_config(
    data__eval_files=(), train__num_steps=3, train__eval_every=None, **changes
  )
  workdir = epath.Path(tempfile.mkdtemp())
  train_reward.run(config, workdir, profile=False)
  return metric_writer.read_rows(workdir / "metrics.jsonl"), workdir


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
    if name == "denoised":  # its loss reads a copy
      copied = dataclasses.fields(denoised.DenoiseConfig)
      unread -= {f"recipe.{field.name}" for field in copied}
    if name == "more":
      unread -= {"recipe.step_size"}  # of GradNorm's weights alone
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


class CombinationsTest(parameterized.TestCase):
  @parameterized.parameters(*COMBINATIONS)
  def test_trains_otherwise_than_its_parts(self, name):
    changes, plainer, metric = COMBINATIONS[name]
    rows, _ = three_steps(changes)
    losses_of = lambda rows: [row["train/loss"] for row in rows]
    self.assertTrue(np.isfinite(losses_of(rows)).all())
    self.assertTrue(any(metric in row for row in rows), rows[-1])
    without, _ = three_steps(changes | plainer)
    self.assertFalse(np.allclose(losses_of(rows), losses_of(without), 1e-5))

  @parameterized.parameters(
    (
      dict(recipe=dict(name="denoised", policy="flip_margin")),
      dict(loss__denoise=dict(policy="flip_margin")),
      dict(data__train_files=(strong_crowd(),)),
    ),
    (
      dict(recipe=dict(name="more", num_sources=2)),
      dict(coupling=dict(name="more", num_sources=2)),
      {},
    ),
  )
  def test_two_spellings_are_one_run(self, one, other, both):
    first, second = (three_steps(given | both) for given in (one, other))
    self.assertEqual(first[0], second[0])
    self.assertEqual(
      *(
        (folder / "model/model.safetensors").read_bytes()
        for _, folder in (first, second)
      )
    )

  @parameterized.parameters(
    (
      dict(recipe=dict(name="contrastive"), **MORE),
      "'contrastive' does not go with coupling 'more', as its contrastive "
      "loss.*coupling must be None",
    ),
    (
      dict(recipe=dict(name="more"), coupling=dict(name="group_dro")),
      "'more' does not go with coupling 'group_dro', as it is a coupling",
    ),
    (
      MIXTURE | dict(coupling=dict(name="group_dro")),
      "'mixture' does not go with coupling 'group_dro'.*'more' or None",
    ),
    (
      dict(recipe=dict(name="mean_variance"), **DENOISE),
      "'mean_variance' has a loss of its own.*smooth_margin",
    ),
    (
      LABELS | dict(loss__labels="votes"),
      "'dprm' has a loss of its own.*got .*votes.*take a recipe",
    ),
    (
      dict(recipe=dict(name="denoised", policy="flip"), **DENOISE),
      "'denoised' sets loss.denoise itself.*take recipe 'bradley_terry'",
    ),
  )
  def test_what_makes_no_sense_is_refused_by_name(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      smoke_config(**changes).made()

  def test_a_policy_and_a_margin_are_refused(self):
    with self.assertRaisesRegex(
      ValueError, "config.loss: denoise sets labels and margins"
    ):
      smoke_config(**DENOISE, loss__margin="column")


@dataclasses.dataclass(frozen=True)
class HingeConfig:
  """Pairs whose gap is pushed up to a width."""

  name: Literal["hinge"]
  width: float = 2.0


class Counting(recipe_object.Hooks):
  """Says how many steps it has seen, in the metrics."""

  def revise(self, step, state):
    return state, {"train/steps_seen": float(step)}


def make_hinge(config, loss, coupling):
  """What somebody adding a recipe writes."""
  recipe_object.refuse_other_losses(config.name, loss)

  def of_pair(outputs, batch):
    gap = outputs.chosen[:, 0] - outputs.rejected[:, 0]
    return jnp.square(jax.nn.relu(config.width - gap))

  rows = bradley_terry.pair_rows(loss)._replace(losses=of_pair)
  return recipe_object.Recipe(
    recipe_object.coupled(lambda: rows, coupling), hooks=Counting
  )


class OwnRecipeTest(absltest.TestCase):
  def test_one_line_of_the_table_makes_a_recipe(self):
    entry = recipe_object.Entry(HingeConfig, make_hinge)
    config = dataclasses.replace(
      smoke_config(
        data__eval_files=(),
        train__num_steps=3,
        train__eval_every=None,
        coupling=dict(name="group_dro"),
      ),
      recipe=HingeConfig("hinge", 3.0),
    )
    workdir = epath.Path(tempfile.mkdtemp())
    with mock.patch.dict(recipes.TABLE, hinge=entry):
      train_reward.run(config, workdir, profile=False)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    self.assertEqual([row["train/steps_seen"] for row in rows], [1, 2, 3])
    self.assertIn("train/group_weight/1", rows[0])
    # At the start gaps are near 0, so a pair costs about 3 squared.
    self.assertAlmostEqual(rows[0]["train/loss"], 9.0, delta=3.0)
    described = artifact.load_description(workdir / "model")
    self.assertEqual(described.heads, ("reward",))


def dispatches(source: str) -> list[int]:
  """Lines that ask which recipe a config is, by class or by name."""
  kinds = {row.config.__name__ for row in recipes.TABLE.values()}
  named = lambda node: any(
    (isinstance(part, ast.Attribute) and part.attr in kinds)
    or (isinstance(part, ast.Name) and part.id in kinds)
    for part in ast.walk(node)
  )
  found = []
  for node in ast.walk(ast.parse(source)):
    asked = isinstance(node, ast.MatchClass) and named(node.cls)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
      asked = named(node.args[1])
    if isinstance(node, ast.Compare):
      asked = "recipe.name" in ast.unparse(node)
    if asked:
      found.append(node.lineno)
  return found


class DispatchTest(parameterized.TestCase):
  def test_no_file_asks_which_recipe_it_is(self):
    found = [
      f"{checkout.relative(path)}:{line}"
      for path in checkout.library_files()
      # The stage that is about one recipe refuses the others.
      if path.name != "mixture_sizes.py"
      for line in dispatches(path.read_text("utf-8"))
    ]
    self.assertEmpty(found)

  @parameterized.parameters(
    "match recipe:\n  case dprm.DprmConfig():\n    pass",
    "isinstance(config.recipe, mixture.MixtureConfig)",
    "isinstance(recipe, (MoreConfig, int))",
    "if config.recipe.name == 'more':\n  pass",
  )
  def test_would_notice(self, source):
    self.assertLen(dispatches(source), 1)

  def test_the_table_is_short_and_its_names_are_those_of_its_configs(self):
    text = (
      checkout.LIBRARY / "experiments/reward_model/recipes.py"
    ).read_text()
    self.assertLessEqual(text.count("\n"), 60)
    for name, row in recipes.TABLE.items():
      fields = {
        field.name: field.type for field in dataclasses.fields(row.config)
      }
      (literal,) = fields["name"].__args__
      self.assertEqual(literal, name)


if __name__ == "__main__":
  absltest.main()
