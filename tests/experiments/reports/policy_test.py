"""What the page of a policy run shows, from rows that are known."""

import json
import tempfile
from unittest import mock

from absl.testing import absltest
from etils import epath

from jaxalign.experiments.reports import policy
from jaxalign.runtime.plots import curves
from jaxalign.runtime.plots import groups as group_plots
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
  def written(self, rows, config, pictures=True):
    """Text of the page, and what was drawn over steps and over KL."""
    workdir = epath.Path(tempfile.mkdtemp())
    for name, lines in (("metrics", rows), ("speed", TIMES)):
      text = "".join(f"{json.dumps(line)}\n" for line in lines)
      (workdir / f"{name}.jsonl").write_text(text)
    draw = {"over_steps": curves.over_steps,
            "rewards_against_kl": group_plots.rewards_against_kl}  # fmt: skip
    empty = curves.over_steps([])
    side = lambda name: draw[name] if pictures else lambda *a, **k: empty
    with (
      mock.patch.object(
        curves, "over_steps", side_effect=side("over_steps")
      ) as steps,
      mock.patch.object(
        group_plots,
        "rewards_against_kl",
        side_effect=side("rewards_against_kl"),
      ) as kl,
    ):
      policy.write(workdir, config)
      page = (workdir / "report.html").read_bytes()
      if not pictures:
        policy.write(workdir, config)
        self.assertEqual((workdir / "report.html").read_bytes(), page)
    panels = {
      panel.label: panel
      for call in steps.call_args_list
      for panel in call[0][0]
    }
    return page.decode(), panels, kl.call_args[0]

  def test_everything_that_was_logged_is_shown(self):
    config = train_policy_test.smoke_config(
      kl__controller="adaptive", kl__target=0.7, kl__horizon=100.0
    )
    page, panels, (kl, groups) = self.written(ROWS, config)
    lines = {
      name: {line.label: [*line.values] for line in panel.lines}
      for name, panel in panels.items()
    }
    self.assertEqual(
      lines["utility to the source"],
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
    distance = panels["KL, nats per response"]
    self.assertEqual(distance.target, 0.7)
    self.assertEqual(lines[distance.label]["all"], [0.5, 1.0, 1.5])
    self.assertEqual(panels["KL coefficient"].target, None)
    self.assertEqual(lines["reward"]["weighted over groups"], [0.0, 0.5, 0.5])
    self.assertEqual(lines["tokens of a response"]["training"], [7, 6, 5])
    self.assertLen(lines["share of responses that ended"]["held-out"], 3)
    # One colour for a group in every panel, dashes for what was held out.
    styles = {
      line.label: (line.colour, line.dashed)
      for line in panels["utility to the source"].lines
    }
    self.assertEqual(styles["warm"][0], styles["warm, held-out"][0])
    self.assertEqual(styles["warm"][0], panels["group weight"].lines[0].colour)
    self.assertEqual(styles["warm, held-out"][1], True)
    # Past the oracle's top, at step 2, more of the proxy does harm.
    self.assertEqual(kl, [0.0, 1.2, 1.7999999999999998])
    self.assertEqual(
      groups["warm"], {"proxy": [-1.0, 1.0, 2.0], "oracle": [-1.0, 0.9, 0.3]}
    )
    self.assertIn("went from -1.000 to 0.800, at a KL of 1.80 nats", page)
    self.assertIn("To the judge it went from -1.000 to 0.300", page)

  def test_time_is_split_without_what_compiles(self):
    config = train_policy_test.smoke_config()
    page, panels, _ = self.written(ROWS, config, pictures=False)
    table = page[page.index("Where the time") :]
    cells = [
      cell.split("<")[0] for cell in table.split("</table>")[0].split("<td")[1:]
    ]
    values = [cell.partition(">")[2] for cell in cells]
    self.assertEqual(
      values,
      ["sampling", "0.5", "25%", "30", "scoring", "0.5", "25%", "0.5",
       "learning", "1", "50%", "60"],
    )  # fmt: skip
    self.assertIn("300 response tokens per second", table)
    self.assertIn("Host memory 1.00 GiB", table)
    seconds = panels["seconds"].lines
    self.assertEqual([*seconds[0].values], [0.5, 9.0, 0.5])

  def test_without_evaluations_the_iterations_are_shown(self):
    config = train_policy_test.smoke_config(data__eval_files=())
    rows = [row for row in ROWS if "train/kl" in row]
    page, panels, (kl, groups) = self.written(rows, config, pictures=False)
    self.assertEqual(kl, [0.5, 1.0, 1.5])
    self.assertEqual({*groups["warm"]}, {"proxy"})
    labels = [line.label for line in panels["utility to the source"].lines]
    self.assertEqual(labels, [*GROUPS])
    self.assertIn("its own prompts", page)

  def test_a_judge_with_other_names_has_panels_of_its_own(self):
    config = train_policy_test.smoke_config()
    judge = config.judge.__class__(**vars(config.judge) | {"names": ("true",)})
    config = config.__class__(**vars(config) | {"judge": judge})
    rows = [
      {k.replace("judge/warm", "judge/true"): v for k, v in row.items()}
      for row in ROWS
    ]
    _, _, (_, groups) = self.written(rows, config, pictures=False)
    self.assertEqual({*groups["warm"]}, {"proxy"})
    self.assertEqual(groups["true"], {"oracle": [-1.0, 0.9, 0.3]})


if __name__ == "__main__":
  absltest.main()
