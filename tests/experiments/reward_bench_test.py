"""RewardBench as a stage: files of its rows to sections and a page."""

import json
import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.experiments import reward_bench
from jaxalign.experiments.common import config as configuration
from tests import config_reads, shipped
from tests.data.adapters import benchmarks_test


def lengths(prompts, responses):
  return [[len(text), -len(text)] for text in responses]


def run(adapter, *rows, **changes):
  path = epath.Path(tempfile.mkdtemp()) / "rows.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  workdir = epath.Path(tempfile.mkdtemp())
  cfg = shipped.config("reward_bench", "smoke")
  cfg.mesh.data = 1
  cfg.files = (f"{adapter}:{path}",)
  with cfg.ignore_type():
    cfg.source.crowd = None
    cfg.source.function = f"{__name__}:lengths"
    cfg.source.names = ("long", "short")
  config = configuration.to_dataclass(reward_bench.Config, cfg)
  reward_bench.run(config, workdir)
  return json.loads((workdir / "eval.json").read_text()), workdir


class RewardBenchTest(absltest.TestCase):
  def test_pairs_by_each_output(self):
    first = benchmarks_test.FIRST
    rows = [first, first | {"subset": "math-prm", "chosen": "x"}]
    result, workdir = run("allenai/reward-bench", *rows)
    self.assertEqual(result["version"], 1)
    values = {
      name: {s: each["value"] for s, each in scores["sections"].items()}
      for name, scores in result["outputs"].items()
    }
    self.assertEqual(
      values,
      {
        "long": {"Chat Hard": 1.0, "Reasoning": 0.0},
        "short": {"Chat Hard": 0.0, "Reasoning": 1.0},
      },
    )
    page = (workdir / "report.html").read_text()
    for word in ("RewardBench 1", "Chat Hard", "math-prm", "long"):
      self.assertIn(word, page)

  def test_best_of_four_and_ties(self):
    second = benchmarks_test.SECOND
    four = second | dict(
      chosen=["Longest."], rejected=["a", "bb", "ccc"], num_correct=1
    )
    rows = [
      four | dict(subset="Math", id="7"),
      four | dict(id="ref:0"),
      second | dict(chosen=["Red.", "Tan."], rejected=["a"], id="tied:0"),
    ]
    result, _ = run("allenai/reward-bench-2", *rows)
    self.assertEqual(result["version"], 2)
    long = result["outputs"]["long"]["sections"]
    self.assertEqual(long["Math"]["value"], 1.0)
    # The right ones are equally long, so the ratio of margins is infinite.
    self.assertAlmostEqual(long["Ties"]["value"], 1.01, places=6)
    self.assertIsNone(long["Ties"]["error"])

  def test_every_key_is_read(self):
    cfg = shipped.config("reward_bench", "smoke")
    cfg.mesh.data = 1
    config = configuration.to_dataclass(reward_bench.Config, cfg)
    with config_reads.recorded(config) as unread:
      reward_bench.run(config, epath.Path(tempfile.mkdtemp()))
    self.assertEqual(
      {key for key in unread if not key.startswith("source.")}, set()
    )


if __name__ == "__main__":
  absltest.main()
