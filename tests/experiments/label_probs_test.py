"""Label shares of a model's folder through `score` and `serve`."""

import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.experiments import score
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.reward_sources.http import EndpointSource
from tests import shipped
from tests.experiments import serve_test
from tests.runtime.reward_sources import http_test, model_test

ROWS = [
  {"prompt": "Q: a\nA:", "responses": [" yes", " yes yes", " no"]},
  {"prompt": "Q: bb\nA:", "chosen": " yes", "rejected": " no"},
]


def labelled() -> str:
  """A folder whose two outputs are the logits of two labels."""
  return model_test.described(
    readout="labels",
    utilities=[1.0, -1.0],
    calibration={"mean": [0.5], "std": [2.0]},
    mixture_weights=None,
  )


class LabelProbsTest(absltest.TestCase):
  def scored(self, model):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "asked.jsonl").write_text(text)
    cfg = shipped.config("score", "smoke")
    cfg.mesh.data = 1
    cfg.model, cfg.calibrated = model, True
    cfg.data.update(
      eval_files=(f"{folder}/asked.jsonl",), max_length=64, buckets=(64,)
    )
    with self.assertLogs("jaxalign", "INFO") as logs:
      score.run(
        configuration.to_dataclass(score.Config, cfg), epath.Path(folder)
      )
    lines = (folder / "scores.jsonl").read_text().splitlines()
    file = folder / "labels.json"
    labels = json.loads(file.read_text()) if file.exists() else None
    return [json.loads(line) for line in lines], labels, "\n".join(logs.output)

  def test_scores_have_the_shares_and_the_reward_is_their_worth(self):
    lines, labels, said = self.scored(labelled())
    self.assertEqual([len(row["label_probs"]) for row in lines], [3, 2])
    for row, given in zip(lines, ROWS, strict=True):
      for response, reward, shares in zip(
        row["responses"], row["rewards"], row["label_probs"], strict=True
      ):
        logits = model_test.by_hand(given["prompt"], response)
        first = 1 / (1 + np.exp(logits[1] - logits[0]))
        np.testing.assert_allclose(shares, [first, 1 - first], atol=1e-6)
        self.assertLen(reward, 1)
        self.assertAlmostEqual(reward[0], (2 * first - 1.5) / 2, places=5)
    means = [np.mean(row["label_probs"], axis=0)[0] for row in lines]
    self.assertEqual(labels["names"], list(model_test.NAMES))
    self.assertAlmostEqual(labels["shares"][0]["value"], np.mean(means))
    self.assertIn("labels over 2 prompts: warm", said)

  def test_a_plain_model_has_no_labels(self):
    lines, labels, said = self.scored(model_test.folder())
    self.assertIsNone(labels)
    self.assertNotIn("label_probs", lines[0])
    self.assertNotIn("labels over", said)

  def test_a_server_gives_what_the_model_gives(self):
    local = model_test.open_source(labelled())
    texts = model_test.PROMPTS, model_test.RESPONSES
    room = dict(max_bytes=10_000, max_waiting_bytes=99_000)
    with serve_test.serving(local, **room) as url:
      remote = EndpointSource(f"{url}/v1", http_test.CONNECTION, batch_size=2)
      found = remote.scored(*texts)
      raw = serve_test.post(url, ["a"]).json()
    self.assertEqual(remote.labels, local.labels)
    self.assertEqual(remote.labels.values, (0.25, -0.75))
    for got, want in zip(found[:2], local.scored(*texts)[:2], strict=True):
      np.testing.assert_allclose(got, want, atol=2e-6)
    self.assertEqual([*raw["labels"]], ["names", "values", "probs"])
    self.assertAlmostEqual(sum(raw["labels"]["probs"][0]), 1.0, places=6)

  def test_a_server_of_plain_rewards_says_nothing_of_labels(self):
    room = dict(max_bytes=10_000, max_waiting_bytes=99_000)
    with serve_test.serving(model_test.open_source(), **room) as url:
      raw = serve_test.post(url, ["a"]).json()
    self.assertNotIn("labels", raw)


if __name__ == "__main__":
  absltest.main()
