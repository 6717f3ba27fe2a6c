"""Steps run in order, once, on what earlier ones left; then one page."""

import contextlib
import dataclasses
import json
import tempfile

import ml_collections
import pytest
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments import pipeline
from jaxalign.experiments.common import config as configuration
from tests import checkout, shipped


@dataclasses.dataclass(frozen=True)
class ToyData:
  crowd_seed: int


@dataclasses.dataclass(frozen=True)
class Toy:
  seed: int
  crowd_seed: int  # as in `sample`, where sources stand in no section
  data: ToyData
  reads: str | None
  size: float


CONFIG = """
import ml_collections


def get_config(variant="full"):
  cfg = ml_collections.ConfigDict()
  cfg.seed = 7
  cfg.crowd_seed = 7
  cfg.data = dict(crowd_seed=7)
  cfg.reads = ml_collections.config_dict.placeholder(str)
  cfg.size = 1.0 if variant == "full" else 0.5
  return cfg
"""


class Stopped(Exception):
  """Stands in for the end of the process."""


class PipelineTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp())
    self.file = epath.Path(tempfile.mkdtemp()) / "toy.py"
    self.file.write_text(CONFIG)
    self.ran = []
    self.fails_at = None
    self.scores = {"eval/nll": 0.25}

    def run(config, workdir):
      if workdir.name == self.fails_at:
        raise Stopped
      self.ran.append((workdir.name, config))
      (workdir / "eval.json").write_text(json.dumps(self.scores))

    stages = dict(pipeline.STAGES)
    pipeline.STAGES["sft"] = pipeline.Kind(Toy, run)
    self.addCleanup(pipeline.STAGES.update, stages)

  def config(self, *steps, **changes):
    made = dict(
      seed=3,
      crowd_seed=4,
      steps=tuple(
        dict(
          name=name,
          stage="sft",
          config=f"{self.file}{variant}",
          changes=tuple(lines),
        )
        for name, variant, lines in steps
      ),
    )
    return configuration.to_dataclass(
      pipeline.Config, ml_collections.ConfigDict(made | changes)
    )

  def two(self, *lines):
    return self.config(
      ("first", "", ()), ("second", ":small", ("reads={first}/model", *lines))
    )

  def test_each_step_reads_what_earlier_ones_left(self):
    pipeline.run(self.two("size=2"), self.workdir)
    (first, one), (second, two) = self.ran
    self.assertEqual((first, second), ("first", "second"))
    self.assertEqual(one, Toy(3, 4, ToyData(4), None, 1.0))
    self.assertEqual(
      two, Toy(3, 4, ToyData(4), f"{self.workdir}/first/model", 2.0)
    )
    page = (self.workdir / "report.html").read_text()
    self.assertIn("nll 0.250", page)

  def test_a_step_is_known_by_the_headline_of_its_page(self):
    rate = dict(score=0.7, low=0.6, high=0.8, num_pairs=3)
    self.scores = {"rates": {"warm": {"all": rate}}}
    pipeline.run(self.two(), self.workdir)
    self.assertIn(
      "answer in 70.0 % [60.0, 80.0] of 3 prompts",
      (self.workdir / "report.html").read_text(),
    )

  def test_it_goes_on_at_the_first_unfinished_step(self):
    self.fails_at = "second"
    with self.assertRaises(Stopped):
      pipeline.run(self.two(), self.workdir)
    self.fails_at = None
    pipeline.run(self.two(), self.workdir)
    self.assertEqual([name for name, _ in self.ran], ["first", "second"])
    pipeline.run(self.two(), self.workdir)
    self.assertLen(self.ran, 2)

  def test_a_finished_step_with_another_config_is_an_error(self):
    pipeline.run(self.two(), self.workdir)
    with self.assertRaisesRegex(
      ValueError, "second was finished with another.*size was 0.5 and is 2"
    ):
      pipeline.run(self.two("size=2"), self.workdir)
    self.assertLen(self.ran, 2)

  def test_a_begun_step_with_another_config_is_an_error(self):
    self.fails_at = "second"
    with self.assertRaises(Stopped):
      pipeline.run(self.two(), self.workdir)
    (self.workdir / "second/checkpoints/4").mkdir(parents=True)
    for refuses in (pipeline.check, pipeline.run):
      with self.assertRaisesRegex(
        ValueError, "second holds a run that began with size=0.5, and it is 2"
      ):
        refuses(self.two("size=2"), self.workdir)
    self.fails_at = None
    pipeline.run(self.two(), self.workdir)
    self.assertLen(self.ran, 2)

  @parameterized.parameters(
    ("weight=1", "unknown key second.weight; second takes "),
    ("seed.deep=1", "steps: second: unknown key config.seed.deep"),
    ("reads={third}", "names no earlier step; there are: first"),
    ("size", "changes must be KEY=VALUE, got 'size'"),
  )
  def test_refuses_before_anything_runs(self, line, message):
    with self.assertRaisesRegex(ValueError, message):
      pipeline.run(self.two(line), self.workdir)
    self.assertEmpty(self.ran)

  def test_refuses_what_is_not_there(self):
    with self.assertRaisesRegex(
      ValueError, "a: there is no config file .*toy.py.gone"
    ):
      pipeline.run(self.config(("a", ".gone", ())), self.workdir)
    with self.assertRaisesRegex(ValueError, "different names, got"):
      self.config(("a", "", ()), ("a", "", ()))
    for section in (
      dict(fairness=dict(policies=("b",), best="b", prefix="eval/judge/")),
      dict(rounds=dict(policies=("a", "b"), prefix="eval/judge/")),
    ):
      with self.assertRaisesRegex(ValueError, "policies must be one of"):
        self.config(("a", "", ()), **section)


class CrowdTest(absltest.TestCase):
  """The main job, every stage at its smallest."""

  @pytest.mark.pictures
  def test_from_raw_pairs_to_policies_side_by_side(self):
    cfg = shipped.config("pipeline_crowd", "smoke")
    config = configuration.to_dataclass(pipeline.Config, cfg)
    workdir = epath.Path(tempfile.mkdtemp())
    with contextlib.chdir(checkout.ROOT):
      pipeline.run(config, workdir)
    for step in config.steps:
      made = "model/jaxalign.json"
      if step.stage == "train_tokenizer":
        made = "tokenizer/tokenizer.json"
      self.assertTrue((workdir / step.name / made).exists())
    found = json.loads((workdir / "fairness.json").read_text())
    self.assertEqual(found["groups"], ["brief", "warm"])
    starts = [one["curve"]["brief"][0] for one in found["policies"].values()]
    self.assertLen({round(value, 6) for value in starts}, 1)
    self.assertEqual(found["policies"]["oracle"]["curve"]["kl"][0], 0.0)
    page = (workdir / "report.html").read_text()
    for words in ("share of the gain", "Utility of each group", "mixture"):
      self.assertIn(words, page)


class BestOfNTest(absltest.TestCase):
  """Tuning on the best of four answers, every stage at its smallest."""

  def config(self, variant):
    cfg = shipped.config("best_of_n_crowd", variant)
    for step in cfg.steps:
      # One device, one length, no page of a reward: compiling takes the time.
      if step["stage"] != "train_tokenizer":
        step["changes"] += ("mesh.data=1",)
      if step["stage"] == "train_reward":
        step["changes"] += ("data.buckets=(48,)", "data.eval_files=()")
    return configuration.to_dataclass(pipeline.Config, cfg)

  def test_every_step_has_the_keys_that_are_changed(self):
    with contextlib.chdir(checkout.ROOT):
      for variant in ("full", "smoke"):
        config = self.config(variant)
        for step in config.steps:
          found = pipeline.resolve(config, step, epath.Path("runs/x"))
          control = step.name == "answers_control"
          self.assertEqual(found.seed, 1000 if control else 0)

  @pytest.mark.slow
  def test_both_ways_of_picking_are_compared_with_the_start(self):
    workdir = epath.Path(tempfile.mkdtemp())
    with contextlib.chdir(checkout.ROOT):
      pipeline.run(self.config("smoke"), workdir)
    picked = {
      name: (workdir / f"best_{name}" / "samples.jsonl").read_text()
      for name in ("one", "least")
    }
    self.assertNotEqual(*picked.values())
    drawn = [
      [json.loads(line)[1] for line in text.splitlines()[1:]]
      for text in picked.values()
    ]
    self.assertLen(drawn[0], 40)
    self.assertEqual(*drawn)
    for name in ("one", "least", "control"):
      found = json.loads((workdir / f"rates_{name}/eval.json").read_text())
      self.assertEqual({*found["rates"]}, {"warm", "brief"})
      self.assertEqual(found["rates"]["warm"]["all"]["num_pairs"], 16)
    page = (workdir / "report.html").read_text()
    for words in ("warm prefers the first", "best of 2 samples"):
      self.assertIn(words, page)


if __name__ == "__main__":
  absltest.main()
