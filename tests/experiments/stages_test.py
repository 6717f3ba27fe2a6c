"""One smoke run of every stage, each on what the others have left.

The short answer to whether a machine, or another Python, can run jaxalign.
"""

import json
import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.experiments import audit, pipeline
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.io import metric_writer
from tests import checkout, shipped

CROWD = "synthetic:two_groups,num_annotators=8,num_test_annotators=6"
TRAIN, TEST = f"('{CROWD}:train',)", f"('{CROWD}:test',)"
PAIRS = (f"data.train_files={TRAIN}", f"data.eval_files={TEST}")
FEW = ("mesh.data=1", "eval.num_samples=20")
SHORT = ("train.num_steps=4", "train.checkpoint_every=4", "mesh.data=1")
REWARD = (*PAIRS, *SHORT, "data.buckets=(128,)", "eval.num_samples=20")
# name, stage, config, changes, and a file that the step must leave
STEPS = (
  ("bytes", "train_tokenizer", "tokenizer_crowd.py:smoke", (), "tokenizer"),
  (
    "reward",
    "train_reward",
    "rm_bt_crowd.py:smoke",
    (*REWARD, "train.num_reference=8"),
    "report.html",
  ),
  (
    "strengths",
    "denoise",
    "denoise_crowd.py:smoke",
    (*PAIRS, *SHORT, "data.buckets=(128,)", "ensemble.num_members=2"),
    "train.jsonl.gz",
  ),
  (
    "scores",
    "evaluate",
    "evaluate.py:smoke",
    (
      f"data.eval_files={TEST}",
      "models=('{reward}/model',)",
      *("data.max_length=128", "data.buckets=(128,)", *FEW),
    ),
    "eval.json",
  ),
  (
    "scored",
    "score",
    "score.py:smoke",
    (
      f"data.eval_files={TEST}",
      "model={reward}/model",
      *("data.max_length=128", "data.buckets=(128,)", "mesh.data=1"),
    ),
    "scores.jsonl",
  ),
  (
    "start",
    "sft",
    "sft_crowd.py:smoke",
    (*PAIRS, *SHORT),
    "model",
  ),
  (
    "preferring",
    "train_dpo",
    "dpo_crowd.py:smoke",
    (*REWARD, "model.init_from={start}/model"),
    "report.html",
  ),
  (
    "answers",
    "sample",
    "sample.py:smoke",
    (
      f"files={TEST}",
      "model={start}/model",
      *("limit=3", "num_responses=2", "max_new_tokens=4", "mesh.data=1"),
    ),
    "responses.jsonl",
  ),
  (
    "best",
    "best_of_n",
    "best_of_n.py:smoke",
    (f"data.files={TEST}", "data.limit=8", "mesh.data=1"),
    "best.jsonl",
  ),
  (
    "rates",
    "win_rates",
    "win_rates.py:smoke",
    (),
    "eval.json",
  ),
  (
    "bench",
    "reward_bench",
    "reward_bench.py:smoke",
    (),
    "eval.json",
  ),
)


def config_of(name, stage):
  """The smoke variant of a config, on one device."""
  cfg = shipped.config(name, "smoke")
  if "mesh" in cfg:
    cfg.mesh.data = 1
  return cfg


class StagesTest(absltest.TestCase):
  def test_every_stage_of_a_pipeline_leaves_what_it_promises(self):
    steps = tuple(
      pipeline.StepConfig(
        name, stage, str(checkout.ROOT / "configs" / config), changes
      )
      for name, stage, config, changes, _ in STEPS
    )
    missing = {*pipeline.STAGES} - {step.stage for step in steps}
    # A policy takes a minute to compile, and the main job trains four.
    self.assertEqual(missing, {"train_policy"})
    workdir = epath.Path(tempfile.mkdtemp())
    pipeline.run(pipeline.Config(seed=0, crowd_seed=0, steps=steps), workdir)
    for name, *_, made in STEPS:
      self.assertTrue((workdir / name / made).exists(), f"{name}/{made}")
    rows = metric_writer.read_rows(workdir / "reward" / "metrics.jsonl")
    self.assertEqual(
      [row["step"] for row in rows if "train/loss" in row], [1, 2, 3, 4]
    )
    scores = json.loads((workdir / "scores" / "eval.json").read_text())
    trained = json.loads((workdir / "reward" / "eval.json").read_text())
    self.assertAlmostEqual(
      [*scores["models"].values()][0]["all"]["nll"]["value"],
      trained["models"]["model"]["all"]["nll"]["value"],
      places=5,
    )

  def test_audit(self):
    cfg = config_of("audit", audit)
    cfg.data.update(
      train_files=(f"{CROWD}:train",), eval_files=(f"{CROWD}:test",)
    )
    workdir = epath.Path(tempfile.mkdtemp())
    audit.run(configuration.to_dataclass(audit.Config, cfg), workdir)
    self.assertTrue((workdir / "report.html").exists())


if __name__ == "__main__":
  absltest.main()
