"""Personal rewards through the stage: what a run leaves, and what it keeps."""

import functools
import json
import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import models
from jaxalign.experiments import evaluate, train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reward_model import fitting
from jaxalign.runtime.io import artifact, metric_writer
from tests import shipped
from tests.experiments import interrupted, train_reward_test

CROWD = "synthetic:two_groups,num_annotators=12,pairs_per_annotator=8"
FILES = (
  "metrics.jsonl",
  "personal.json",
  "people.jsonl",
  "eval.json",
  "model/model.safetensors",
  "model/jaxalign.json",
)


def config(**changes):
  """Three rounds of two steps on twelve people."""
  recipe = dict(name="personal", rank=2, steps_per_round=2, save_people=True)
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
    due = [r["step"] for r in rows if "people/log_evidence_per_pair" in r]
    self.assertEqual(due, [2, 4, 6])
    described = artifact.load_description(self.straight / "model")
    self.assertEqual(described.heads, ("shared", "factor_0", "factor_1"))
    self.assertEqual(described.readout, "low_rank")
    self.assertLen(described.calibration["mean"], 1)
    self.assertIsNone(described.mixture_weights)
    found = json.loads((self.straight / "personal.json").read_text())
    self.assertEqual(
      (found["kind"], found["rank"], found["people"]), ("low_rank", 2, 12)
    )
    self.assertAlmostEqual(
      found["log_evidence"] / 96,
      [r for r in rows if "people/size" in r][-1][
        "people/log_evidence_per_pair"
      ],
      places=5,
    )
    result = json.loads((self.straight / "eval.json").read_text())
    self.assertEqual([*result["models"]], ["model"])
    self.assertEqual(result["mixtures"], {})
    lines = result["personal"]["model"]["new_users"]
    self.assertEqual([line["pairs_seen"] for line in lines], [0, 1, 2, 5])
    self.assertEqual({line["num_users"] for line in lines}, {6})
    self.assertAlmostEqual(
      rows[-1]["eval/placed_nll"], lines[-1]["nll"], places=5
    )
    self.assertAlmostEqual(
      rows[-1]["eval/accuracy"],
      result["models"]["model"]["all"]["accuracy"]["value"],
      places=5,
    )
    page = (self.straight / "report.html").read_text()
    self.assertIn("New people of model, known by their first pairs", page)
    self.assertIn("0 is the reward that people share", page)

  def test_people_are_where_their_pairs_put_them(self):
    _, loaded = fitting.load(config())
    people = [
      json.loads(line)
      for line in (self.straight / "people.jsonl").read_text().splitlines()
    ]
    dataset = loaded.learned.dataset
    self.assertEqual(
      [one["annotator"] for one in people], [*dataset.annotator_names]
    )
    spread = np.std([one["place"] for one in people], axis=0)
    found = json.loads((self.straight / "personal.json").read_text())
    np.testing.assert_allclose(spread, found["spread"], rtol=1e-5)
    self.assertGreater(spread.min(), 0)
    deviation = np.array([one["deviation"] for one in people])
    self.assertTrue(np.all((deviation > 0) & (deviation < 1)))

  def test_no_person_leaves_with_the_model_or_unasked(self):
    _, loaded = fitting.load(config())
    names = loaded.learned.dataset.annotator_names
    workdir = run(config(recipe=dict(save_people=False)))
    self.assertFalse((workdir / "people.jsonl").exists())
    told = [
      path
      for path in (workdir / "model").iterdir()
      if path.suffix in (".json", ".md", ".jinja")
    ]
    self.assertGreater(len(told), 2)
    for path in [*told, *(workdir / n for n in ("eval.json", "report.html"))]:
      text = path.read_text()
      self.assertEmpty([name for name in names if f'"{name}"' in text], path)
    _, params, _ = models.load_reward_model(str(workdir / "model"))
    sizes = [leaf.shape for leaf in jax.tree.leaves(params)]
    self.assertNotIn(12, {size for shape in sizes for size in shape})

  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self):
    again = functools.partial(run, config())
    # After an evaluation, which is between two rounds.
    interrupted.assert_resumes(self, again, self.straight, FILES, step=3)

  def test_evaluate_places_new_people_too(self):
    cfg = shipped.config("evaluate", "smoke")
    cfg.mesh.data = 1
    cfg.models = (str(self.straight / "model"),)
    cfg.data.eval_files = (f"{CROWD},num_test_annotators=6:test",)
    cfg.data.train_files = ()
    workdir = epath.Path(tempfile.mkdtemp())
    evaluate.run(configuration.to_dataclass(evaluate.Config, cfg), workdir)
    (found,) = json.loads((workdir / "eval.json").read_text())[
      "personal"
    ].values()
    (mine,) = json.loads((self.straight / "eval.json").read_text())[
      "personal"
    ].values()
    for line, own in zip(found["new_users"], mine["new_users"], strict=True):
      self.assertAlmostEqual(line["nll"], own["nll"], places=4)

  def test_no_annotators_are_an_error_in_one_line(self):
    file = epath.Path(tempfile.mkdtemp()) / "pairs.jsonl"
    row = {"prompt": "Q:", "chosen": " yes", "rejected": " no"}
    file.write_text(f"{json.dumps(row)}\n" * 9)
    with self.assertRaisesRegex(
      ValueError, "recipe.num_users counts the annotators.*no pair has"
    ):
      run(config(data__train_files=(str(file),), data__eval_files=()))

  @parameterized.parameters(
    {"mesh__data": 2, "mesh__fsdp": 2},
    {"mesh__data": 2, "train__parallel": "pmap"},
    {"train__accumulation": 2},
  )
  def test_layouts_place_people_alike(self, **changes):
    workdir = run(config(**changes))
    place = lambda folder: np.array(
      [
        json.loads(line)["place"]
        for line in (folder / "people.jsonl").read_text().splitlines()
      ]
    )
    # Adam turns rounding into steps, and a place adds up many pairs.
    np.testing.assert_allclose(place(workdir), place(self.straight), atol=1e-3)


if __name__ == "__main__":
  absltest.main()
