"""What the page of a policy run shows, from rows that are known."""

import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.experiments.reports import policy
from tests.experiments import train_policy_test

GROUPS = ("warm", "brief")


def trained(step):
  """A row of training: the groups swap places at step 2."""
  u = {"warm": -1.0 + step, "brief": 0.5}
  worst = min(u, key=u.get)
  row = {
    "kl": 0.5 * step,
    "kl_coef": 0.1 * step,
    "score": u[worst],
    "shaped_score": u[worst] - 1,
    "response_tokens": 8.0 - step,
    "ended": 0.2 * step,
    "loss": 0.1,
    "value_loss": 0.3,
  }
  for name, value in u.items():
    row[f"utility/{name}"] = value
    row[f"group_weight/{name}"] = float(name == worst)
    row[f"kl/{name}"] = 0.4 * step
  return {"step": step, **{f"train/{k}": v for k, v in row.items()}}


def evaluated(step, warm, brief, truly_warm):
  row = {
    "utility/warm": warm,
    "utility/brief": brief,
    "judge/warm": truly_warm,
    "judge/brief": brief,
    "kl": 0.6 * step,
    "response_tokens": 7.0,
    "ended": 0.5,
  }
  return {"step": step, **{f"eval/{k}": v for k, v in row.items()}}


def timed(step, sampling, learning):
  return {
    "step": step,
    "speed/sampling_seconds": sampling,
    "speed/scoring_seconds": 0.5,
    "speed/learning_seconds": learning,
    "speed/response_tokens_per_second": 100.0 * step,
    "speed/host_memory_bytes": 2.0**30,
  }


ROWS = [
  evaluated(0, -1.0, 0.4, -1.0),
  trained(1),
  trained(2),
  evaluated(2, 1.0, 0.6, 0.9),
  trained(3),
  evaluated(3, 2.0, 0.8, 0.3),
]
# The first iteration compiles, and so does the one after a resumption.
TIMES = [timed(1, 30.0, 60.0), timed(2, 0.5, 1.0), timed(3, 9.0, 99.0),
         timed(4, 0.5, 1.0)]  # fmt: skip


class PolicyPageTest(absltest.TestCase):
  def written(self, rows, config, answers=None):
    """Text of the page, and its sections by title."""
    workdir = epath.Path(tempfile.mkdtemp())
    for name, lines in (("metrics", rows), ("speed", TIMES)):
      text = "".join(f"{json.dumps(line)}\n" for line in lines)
      (workdir / f"{name}.jsonl").write_text(text)
    if answers is not None:
      (workdir / "answers.json").write_text(json.dumps(answers))
    policy.write(workdir, config)
    page = (workdir / "report.html").read_bytes()
    policy.write(workdir, config)
    self.assertEqual((workdir / "report.html").read_bytes(), page)
    sections = policy.sections(
      policy.read(workdir, config), TIMES, config.kl.target
    )
    return page.decode(), {section.title: section for section in sections}

  def curves(self, sections):
    """Values by panel and line of what is shown by iteration."""
    open_one = sections["Groups and distance by iteration"]
    folded = sections["Reward, answers and KL coefficient by iteration"]
    self.assertEqual((open_one.folded, folded.folded), (False, True))
    pictures = [*open_one.pictures, *folded.pictures]
    return {
      panel.y: {line.label: [*line.y] for line in panel.marks}
      for panel in pictures
    }, {panel.y: panel for panel in pictures}

  def test_everything_that_was_logged_is_shown(self):
    config = train_policy_test.smoke_config(
      kl__controller="adaptive", kl__target=0.7, kl__horizon=100.0
    )
    page, sections = self.written(ROWS, config)
    lines, panels = self.curves(sections)
    self.assertEqual(
      lines["utility, proxy"],
      {
        "warm": [0.0, 1.0, 2.0],
        "brief": [0.5, 0.5, 0.5],
        "warm, held-out": [-1.0, 1.0, 2.0],
        "brief, held-out": [0.4, 0.6, 0.8],
      },
    )
    self.assertEqual(
      lines["group weight"], {"warm": [1, 0, 0], "brief": [0, 1, 1]}
    )
    distance = "KL, nats per response"
    self.assertEqual(panels[distance].levels, {"target": 0.7})
    self.assertEqual(lines[distance]["all"], [0.5, 1.0, 1.5])
    self.assertEmpty(panels["KL coefficient"].levels)
    self.assertEqual(lines["reward"]["weighted over groups"], [0.0, 0.5, 0.5])
    self.assertEqual(lines["tokens of a response"]["all"], [7, 6, 5])
    self.assertLen(lines["share of responses that ended"]["all, held-out"], 3)
    # One colour for a group in every panel, dashes for what was held out.
    styles = {
      line.label: (line.colour, line.dashed)
      for line in panels["utility, proxy"].marks
    }
    self.assertEqual(styles["warm"][0], styles["warm, held-out"][0])
    self.assertEqual(styles["warm"][0], panels["group weight"].marks[0].colour)
    self.assertEqual(styles["warm, held-out"][1], True)
    # Past the oracle's top, at step 2, more of the proxy does harm.
    against = sections["Utility against distance from the start"].pictures
    warm, brief = against
    self.assertEqual(warm.ylim, brief.ylim)
    for line, values in zip(
      warm.marks, ([-1.0, 1.0, 2.0], [-1.0, 0.9, 0.3]), strict=True
    ):
      self.assertEqual(line.x, [0.0, 1.2, 1.7999999999999998])
      self.assertEqual(line.y, values)
      self.assertTrue(line.star)
    self.assertIn("from -1.000 to 0.300 in true utility", page)
    self.assertIn("at a KL of 1.80 nats", page)
    self.assertIn("went from -1.000 to 0.800", page)

  def test_time_is_split_without_what_compiles(self):
    config = train_policy_test.smoke_config()
    _, sections = self.written(ROWS, config)
    table = sections["Where the time of an iteration goes"]
    self.assertEqual(
      table.rows,
      [
        ["sampling", 0.5, "25%", 30.0],
        ["scoring", 0.5, "25%", 0.5],
        ["learning", 1.0, "50%", 60.0],
      ],
    )
    self.assertIn("300 response tokens per second", table.note)
    self.assertIn("Host memory 1.00 GiB", table.note)
    seconds = sections["Time of an iteration"].pictures[0].marks
    self.assertEqual([*seconds[0].y], [0.5, 9.0, 0.5])

  def test_answers_are_described_and_gaps_share_their_bins(self):
    config = train_policy_test.smoke_config()
    side = {
      "num_prompts": 7,
      "prompts": [],
      "answers": [],
      "utilities": [],
      "standard_error": {},
      "statistics": {
        "self_bleu": 0.25,
        "perplexity": {"mean": 3.0, "median": 2.0, "90 %": 5.0},
        "tokens": 6.5,
        "gaps": {"warm": [0.0, 1.0, 4.0], "brief": []},
      },
    }
    later = side["statistics"] | {
      "self_bleu": None,
      "gaps": {"warm": [0.1, 0.1, 0.15], "brief": []},
    }
    answers = {"start": side, "end": side | {"statistics": later}}
    _, sections = self.written(ROWS, config, answers)
    table = sections["Answers to held-out prompts"]
    self.assertEqual(
      table.rows,
      [
        ["start", "0.250", "3.000", "2.000", "5.000", "6.500"],
        ["end", "", "3.000", "2.000", "5.000", "6.500"],
      ],
    )
    title = "How far apart the rewards of two answers to one prompt are"
    (warm,) = sections[title].pictures
    self.assertEqual([mark.label for mark in warm.marks], ["start", "end"])
    for mark, counts in zip(warm.marks, ([1, 1, 1], [3]), strict=True):
      found, _ = np.histogram(mark.values, mark.edges)
      self.assertEqual(found[found > 0].tolist(), counts)
      self.assertEqual(mark.edges[-1], 4.0)
    old = {name: {**one} for name, one in answers.items()}
    for one in old.values():
      del one["statistics"]
    _, sections = self.written(ROWS, config, old)
    self.assertNotIn("Answers to held-out prompts", sections)

  def test_without_evaluations_the_iterations_are_shown(self):
    config = train_policy_test.smoke_config(data__eval_files=())
    rows = [row for row in ROWS if "train/kl" in row]
    page, sections = self.written(rows, config)
    warm, _ = sections["Utility against distance from the start"].pictures
    self.assertEqual(warm.marks[0].x, [0.5, 1.0, 1.5])
    self.assertEqual([line.label for line in warm.marks], ["proxy"])
    self.assertEqual([*self.curves(sections)[0]["utility, proxy"]], [*GROUPS])
    self.assertIn("its own prompts", page)

  def test_heads_go_by_the_group_whose_oracle_they_follow(self):
    config = train_policy_test.smoke_config()
    judge = config.judge.__class__(**vars(config.judge) | {"names": ("true",)})
    config = config.__class__(**vars(config) | {"judge": judge})
    rows = [
      {k.replace("judge/warm", "judge/true"): v for k, v in row.items()}
      for row in ROWS
    ]
    side = {
      "num_prompts": 7,
      "prompts": ["Why <b>?"],
      "answers": ["Because."],
      "utilities": [{"true": 0.25}],
      "standard_error": {"true": 0.1},
      "closest": {"warm": {"group": "true", "correlation": 0.8}},
    }
    answers = {"start": side, "end": side | {"answers": ["So <i>."]}}
    page, sections = self.written(rows, config, answers)
    against = sections["Utility against distance from the start"].pictures
    shown = {panel.title: [line.label for line in panel.marks]
             for panel in against}  # fmt: skip
    self.assertEqual(
      shown,
      {
        "warm (follows true)": ["proxy"],
        "brief": ["proxy"],
        "true": ["oracle"],
      },
    )
    texts = sections["The same 1 prompts, answered by start, end"]
    self.assertEqual(
      texts.samples,
      [
        (
          "Why <b>?",
          {"start (true 0.25)": "Because.", "end (true 0.25)": "So <i>."},
        )
      ],
    )
    self.assertIn("So &lt;i&gt;.", page)
    self.assertIn("95 % over prompts at the end: true ± 0.196", page)
    self.assertIn("Means over 7 held-out prompts.", page)


if __name__ == "__main__":
  absltest.main()
