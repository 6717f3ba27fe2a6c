"""Scores of known label distributions, against NumPy and linear programming."""

import json
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import losses
from jaxalign.data.records.record import Record
from jaxalign.experiments import evaluate, train_reward
from jaxalign.experiments.common import config as configurations
from jaxalign.experiments.reports import label_scores
from jaxalign.experiments.reward_model import pair_scores
from jaxalign.runtime.io import artifact
from tests import references
from tests.experiments.evaluate_test import config_of
from tests.experiments.train_reward_test import smoke_config

N, D = 40, 6
UTILITIES = (1.0, 0.5, -1.0, -1.0, -1.5, -3.0)
COST = np.asarray(losses.helpful_harmless_label_set().cost, np.float64)


def description(**changes) -> artifact.Description:
  settings = {
    "kind": "reward",
    "heads": losses.HELPFUL_HARMLESS_LABELS,
    "max_length": 64,
    "calibration": None,
    "utilities": UTILITIES,
    "mixture_weights": None,
    "provenance": {},
    "readout": "labels",
    "label_cost": tuple(map(tuple, COST.tolist())),
  }
  return artifact.Description(**settings | changes)


class LabelScoresTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.crowd = rng.dirichlet(np.full(D, 0.5), size=(N, 2))
    self.logits = rng.normal(size=(N, 2, D)).astype(np.float32)
    self.known = np.ones((N, 2), bool)
    self.known[3, 1] = self.known[7] = False
    self.records = [
      Record(
        "Q",
        ("a", "b"),
        labels=tuple(
          tuple(row) for row in self.crowd[i][self.known[i]].tolist()
        )
        or None,
      )
      for i in range(N)
    ]

  def score(self, logits=None, records=None, model=None):
    return label_scores.score(
      model or description(),
      self.logits if logits is None else logits,
      self.records if records is None else records,
      pair_scores.EvalConfig(batch_size=8, num_bins=10, num_samples=50),
      0,
    )

  def test_scores(self):
    got = self.score().result
    probs = np.exp(self.logits.astype(np.float64))
    probs = (probs / probs.sum(-1, keepdims=True))[self.known]
    crowd = self.crowd[self.known]
    nll = -np.sum(crowd * np.log(probs), -1)
    entropy = -np.sum(crowd * np.log(crowd), -1)
    order = np.argsort(UTILITIES)
    ahead = np.cumsum((probs - crowd)[:, order], axis=1)[:, :-1]
    moved = [
      references.transport_cost(p, c, COST)
      for p, c in zip(probs, crowd, strict=True)
    ]
    at = np.digitize(probs.ravel(), np.linspace(0, 1, 11)[1:-1])
    excess = np.bincount(at, (probs - crowd).ravel())
    expected = {
      "nll": nll.mean(),
      "kl": (nll - entropy).mean(),
      "line": np.sum(np.abs(ahead) * np.diff(np.sort(UTILITIES)), 1).mean(),
      "top1": np.mean(probs.argmax(1) == crowd.argmax(1)),
      "utility_error": np.abs((probs - crowd) @ UTILITIES).mean(),
      "ece": np.abs(excess).sum() / probs.size,
    }
    for name, value in expected.items():
      self.assertAlmostEqual(got[name]["value"], value, places=4, msg=name)
      low, high = got[name]["low"], got[name]["high"]
      self.assertLess(low, high)
    transport = got["transport"]["value"]
    self.assertAlmostEqual(transport, np.mean(moved), delta=0.01 * transport)
    self.assertEqual(got["num_responses"], self.known.sum())
    self.assertAlmostEqual(got["entropy"], entropy.mean(), places=4)
    mean = crowd.mean(0)
    constant = np.abs((mean - crowd) @ UTILITIES).mean()
    self.assertAlmostEqual(got["constant"]["utility_error"], constant, places=4)

  def test_the_truth_has_no_distance_from_itself(self):
    got = self.score(logits=np.log(self.crowd).astype(np.float32)).result
    for name in ("kl", "transport", "line", "utility_error", "ece"):
      self.assertAlmostEqual(got[name]["value"], 0, delta=1e-3, msg=name)
    self.assertEqual(got["top1"]["value"], 1)

  def test_nothing_to_say(self):
    self.assertIsNone(self.score(records=[Record("Q", ("a", "b"))] * N))
    self.assertIsNone(self.score(model=description(readout="rewards")))

  def test_other_labels_are_named(self):
    three = Record("Q", ("a", "b"), labels=((0.2, 0.3, 0.5),))
    with self.assertRaisesRegex(ValueError, "must be over the 6 labels"):
      self.score(records=[three] * N)

  def test_a_trained_model_is_scored_alike_by_both_stages(self):
    files = ("synthetic:labels,num_test_annotators=10,label_votes=0:test",)
    config = smoke_config(
      data__train_files=("synthetic:labels:train",),
      data__eval_files=files,
      recipe=dict(name="dprm", loss="cross_entropy"),
      train__num_steps=3,
      train__eval_every=None,
    )
    workdir, again = (epath.Path(tempfile.mkdtemp()) for _ in range(2))
    train_reward.run(config, workdir, profile=False)
    trained = json.loads((workdir / "eval.json").read_text())
    self.assertIn(
      "Label shares of model", (workdir / "report.html").read_text()
    )
    folder = str(workdir / "model")
    cfg = config_of("evaluate", models=(folder,), data__eval_files=files)
    cfg.data.update(max_length=128, buckets=(128,))
    cfg.eval.update(batch_size=64, num_samples=20)
    evaluate.run(configurations.to_dataclass(evaluate.Config, cfg), again)
    scored = json.loads((again / "eval.json").read_text())
    for name in ("nll", "ece"):
      for found, expected in (
        (scored["labels"][folder], trained["labels"]["model"]),
        (scored["models"][folder]["all"], trained["models"]["model"]["all"]),
      ):
        self.assertAlmostEqual(
          found[name]["value"], expected[name]["value"], places=4
        )


if __name__ == "__main__":
  absltest.main()
