"""Rounds of sampling, reward and policy: their numbers, and a whole run."""

import contextlib
import json
import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.data.records import reader
from jaxalign.data.synthetic import crowd
from jaxalign.experiments import pipeline
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import rounds as policy_rounds
from jaxalign.experiments.reports import pipeline as page
from tests import checkout, shipped

KINDS = ("answers", "reward", "policy")


def write_curve(workdir, name, kl, reward, **groups):
  rows = [
    {"step": step, "eval/kl": kl[step], "eval/mean_utility": reward[step]}
    | {f"eval/judge/{g}": values[step] for g, values in groups.items()}
    for step in range(len(kl))
  ]
  folder = epath.Path(workdir) / name
  folder.mkdir(parents=True)
  text = "".join(f"{json.dumps(row)}\n" for row in [{"step": 0}, *rows])
  (folder / "metrics.jsonl").write_text(text)


class TraceTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp())
    write_curve(
      self.workdir,
      "one",
      (0, 1, 3),
      (0, 1, 2.5),
      warm=(0, 1, 2),
      brief=(0.5, 0, -1),
    )
    write_curve(
      self.workdir, "two", (3, 4), (-1, 1), warm=(2, 1), brief=(-1, 0)
    )
    self.config = policy_rounds.RoundsConfig(("one", "two"))

  def test_before_and_after_each_round(self):
    found = policy_rounds.trace(self.workdir, self.config)
    self.assertEqual(found["groups"], ["brief", "warm"])
    one, two = found["rounds"]
    self.assertEqual(one["policy"], "one")
    self.assertEqual(
      one["start"],
      dict(kl=0, reward=0, utilities=dict(brief=0.5, warm=0), worst=0),
    )
    self.assertEqual(
      two["end"], dict(kl=4, reward=1, utilities=dict(brief=0, warm=1), worst=0)
    )
    self.assertEqual(one["curve"]["utilities"]["warm"], [0, 1, 2])
    self.assertEqual(one["curve"]["kl"], [0, 1, 3])
    self.assertEqual(two["curve"]["reward"], [-1, 1])

  def test_the_page_has_a_row_a_round_and_its_gains(self):
    found = policy_rounds.trace(self.workdir, self.config)
    table, figure = page.round_sections(found)
    self.assertEqual(
      table.columns[:5], ["round", "KL", "brief", "warm", "worst-off"]
    )
    self.assertEqual(
      table.rows,
      [
        ["start", 0, 0.5, 0, 0, None, None, None],
        # Groups gained 2 and -1.5; the reward said 2.5.
        ["one", 3, -1, 2, -1, -1, 0.25, 2.5],
        ["two", 4, 0, 1, 0, 1, 0, 2],
      ],
    )
    brief, warm, worst, reward = figure.pictures
    self.assertEqual([line.label for line in worst.marks], ["one", "two"])
    self.assertEqual([*worst.marks[0].y], [0, 0, -1])
    self.assertEqual(brief.ylim, warm.ylim)
    self.assertIsNone(reward.ylim)
    self.assertIn(
      "0.00 at the start, then round by round -1.00 (KL 3.0), 0.00 (KL 4.0).",
      page.round_headline(found),
    )

  def test_refuses(self):
    write_curve(self.workdir, "other", (3, 4), (0, 0), exact=(0, 0))
    with self.assertRaisesRegex(
      ValueError, "other/metrics.jsonl has utilities of exact, the first round"
    ):
      policy_rounds.trace(
        self.workdir, policy_rounds.RoundsConfig(("one", "other"))
      )
    for policies in ((), ("one", "one")):
      with self.assertRaisesRegex(ValueError, "one or more different steps"):
        policy_rounds.RoundsConfig(policies)


def config_of(variant, **changes):
  cfg = shipped.config("rounds_metarm_crowd", variant)
  cfg.update(changes)
  for step in cfg.steps if variant == "smoke" else ():
    # One device, one length, no page of a reward: compiling is what takes time.
    if step["stage"] != "train_tokenizer":
      step["changes"] += ("mesh.data=1",)
    if step["stage"] == "train_reward":
      step["changes"] += ("data.buckets=(48,)", "data.eval_files=()")
  return configuration.to_dataclass(pipeline.Config, cfg)


class Stopped(Exception):
  """Stands in for the end of the process."""


class MetaRmTest(absltest.TestCase):
  """Two rounds, every stage at its smallest."""

  def setUp(self):
    super().setUp()
    self.ran = []
    self.stops_at = None
    self.enter_context(contextlib.chdir(checkout.ROOT))
    self.addCleanup(pipeline.STAGES.update, dict(pipeline.STAGES))
    for name, kind in [*pipeline.STAGES.items()]:
      pipeline.STAGES[name] = kind._replace(run=self.watched(kind.run))

  def watched(self, run):
    def run_unless_stopped(config, workdir):
      if workdir.name == self.stops_at:
        raise Stopped
      self.ran.append(workdir.name)
      run(config, workdir)

    return run_unless_stopped

  def test_rounds_go_on_from_each_other_and_where_they_stopped(self):
    config = config_of("smoke", crowd_seed=3)
    names = [step.name for step in config.steps]
    rounds = [f"{kind}_{n}" for n in (1, 2) for kind in KINDS]
    self.assertEqual(names, ["tokenizer", "tuned", *rounds])
    workdir = epath.Path(tempfile.mkdtemp())
    self.stops_at = "reward_2"
    with self.assertRaises(Stopped):
      pipeline.run(config, workdir)
    self.assertFalse((workdir / "report.html").exists())
    self.assertEqual(self.ran, names[:6])
    self.stops_at = None
    pipeline.run(config, workdir)
    self.assertEqual(self.ran, names)
    self.check_answers(workdir)
    one, two = json.loads((workdir / "rounds.json").read_text())["rounds"]
    # A round starts where the last one ended, as far from the tuned policy.
    self.assertEqual(one["start"]["kl"], 0.0)
    self.assertNotAlmostEqual(one["end"]["kl"], 0.0, places=4)
    for key in ("kl", "worst"):
      self.assertAlmostEqual(two["start"][key], one["end"][key], places=5)
    self.assertNotAlmostEqual(two["end"]["kl"], two["start"]["kl"], places=4)
    page = (workdir / "report.html").read_text()
    for words in (
      "worth after each round",
      "policy_2",
      "reward_1",
      "gain by its own reward",
    ):
      self.assertIn(words, page)

  def check_answers(self, workdir):
    """Both rounds answer the crowd's own prompts, with other policies."""
    asked = crowd.records_of("two_groups:train", seed=3)
    prompts = [*dict.fromkeys(record.prompt for record in asked)][:16]
    read = lambda n: [
      *reader.RecordStream([str(workdir / f"answers_{n}/responses.jsonl")])
    ]
    first, second = read(1), read(2)
    for records in (first, second):
      self.assertContainsSubset([r.prompt for r in records], prompts)
      self.assertTrue(all(len(record.responses) == 5 for record in records))
    self.assertNotEqual(
      [r.responses for r in first], [r.responses for r in second]
    )

  def test_the_control_differs_in_the_inner_step_alone(self):
    full, plain = config_of("full"), config_of("plain")
    self.assertLen(full.rounds.policies, 3)
    for ours, theirs in zip(full.steps, plain.steps, strict=True):
      one, two = (
        pipeline.resolve(c, s, epath.Path("runs"))
        for c, s in ((full, ours), (plain, theirs))
      )
      if ours.stage == "train_reward":
        steps = (one.recipe.step_size, two.recipe.step_size)
        self.assertEqual(steps, (3e-3, 0.0))
      else:
        self.assertEqual(one, two)


if __name__ == "__main__":
  absltest.main()
