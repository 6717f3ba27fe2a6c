"""Perplexity of answers against a softmax by hand, and paired comparisons."""

import dataclasses
import json
import tempfile

import jax
import numpy as np
import scipy.special
from absl.testing import absltest
from etils import epath

from jaxalign import models
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import perplexity
from jaxalign.experiments.common import config as configuration
from tests import config_reads, shipped
from tests.experiments.sample_test import policy

BOS, EOS = 257, 258
ROWS = [
  {"prompt": "q", "chosen": " yes", "rejected": " no", "source": "one"},
  {"prompt": "why", "responses": [" so it is"], "source": "two"},
  {"prompt": "é", "chosen": "ab", "rejected": "b", "source": "two"},
  {"prompt": "", "responses": ["c"], "source": "one"},
]


def config_of(*folders, rows=ROWS):
  path = epath.Path(tempfile.mkdtemp()) / "texts.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  cfg = shipped.config("perplexity", "smoke")
  cfg.mesh.data = 1
  cfg.batch_size = 2
  with cfg.ignore_type():
    cfg.models, cfg.data.eval_files = folders, (str(path),)
  cfg.data.buckets = (16, 32)
  return configuration.to_dataclass(perplexity.Config, cfg)


def run(config):
  workdir = epath.Path(tempfile.mkdtemp())
  perplexity.run(config, workdir)
  page = (workdir / "report.html").read_text()
  return json.loads((workdir / "eval.json").read_text()), page


def by_hand(folder):
  """Nats and tokens of each answer, one text at a time without padding."""
  apply, params, _ = models.load_causal_lm(folder)
  nats, tokens = [], []
  for row in ROWS:
    answer = row.get("chosen", (row.get("responses") or [None])[0])
    begin = [BOS, *row["prompt"].encode()]
    ids = np.array([[*begin, *answer.encode(), EOS]], np.int32)
    logits = np.asarray(apply(params, ids, ids >= 0), np.float64)[0]
    logs = scipy.special.log_softmax(logits, axis=-1)
    nats.append(
      -sum(logs[t - 1, ids[0, t]] for t in range(len(begin), ids.shape[1]))
    )
    tokens.append(ids.shape[1] - len(begin))
  return np.array(nats), np.array(tokens)


def moved(folder):
  """The same model with other embeddings."""
  _, params, network = models.load_causal_lm(folder)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape).astype(leaf.dtype),
    jax.device_get(params),
  )
  other = tempfile.mkdtemp()
  models.save_pretrained(other, params, network)
  tokenizer_files.byte_tokenizer().save(other)
  return other


class PerplexityTest(absltest.TestCase):
  def test_two_models_against_a_softmax_by_hand(self):
    first = policy()
    second = moved(first)
    config = config_of(first, second)
    with config_reads.recorded(config) as unread:
      result, page = run(config)
    self.assertEmpty({k for k in unread if not k.startswith("data.")})
    nats, tokens = by_hand(first)
    other, _ = by_hand(second)
    for subset, rows in (
      ("all", [0, 1, 2, 3]), ("one", [0, 3]), ("two", [1, 2])
    ):  # fmt: skip
      one, two = (result["models"][name][subset] for name in (first, second))
      count = tokens[rows].sum()
      self.assertEqual((one["texts"], one["tokens"]), (len(rows), count))
      value = np.exp(nats[rows].sum() / count)
      self.assertAlmostEqual(one["value"] / value, 1, places=4)
      each = np.exp(nats[rows] / tokens[rows])
      self.assertAlmostEqual(one["mean"] / each.mean(), 1, places=4)
      self.assertAlmostEqual(one["median"] / np.median(each), 1, places=4)
      self.assertAlmostEqual(one["ratio"], 1.0)
      ratio = np.exp((other - nats)[rows].sum() / count)
      self.assertAlmostEqual(two["ratio"] / ratio, 1, places=4)
      self.assertLessEqual(two["ratio_low"], two["ratio"] * (1 + 1e-5))
      self.assertGreaterEqual(two["ratio_high"], two["ratio"] * (1 - 1e-5))
    self.assertEqual(result["intervals_over"], "texts")
    self.assertIn("times the first model", page)

  def test_intervals_are_over_people_and_paired(self):
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 20, 200).astype(float)
    hard = np.repeat(rng.normal(size=20), 10)  # of each person's texts
    nats = tokens * (2 + 0.3 * hard)
    config = dataclasses.replace(config_of("a"), num_samples=400)
    people = np.repeat(np.arange(20), 10)
    first = (nats, tokens)
    over = lambda people: perplexity.summarise(
      nats + 0.1 * tokens, tokens, first, people, config
    )
    by_people, by_texts = over(people), over(None)
    wide = lambda one: one["high"] - one["low"]
    self.assertGreater(wide(by_people), 2 * wide(by_texts))
    # Each token costs 0.1 nats more, whoever wrote it.
    for one in (by_people, by_texts):
      for key in ("ratio", "ratio_low", "ratio_high"):
        self.assertAlmostEqual(one[key], np.exp(0.1), places=4)
    alone = perplexity.summarise(
      nats[:1], tokens[:1], (nats[:1], tokens[:1]), None, config
    )
    self.assertIsNone(alone["low"])
    self.assertAlmostEqual(alone["value"], np.exp(nats[0] / tokens[0]))

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "models must name one folder"):
      config_of()
    with self.assertRaisesRegex(ValueError, "not a language model"):
      run(config_of(policy(num_outputs=1)))
    with self.assertRaisesRegex(ValueError, "is empty: there is no row"):
      run(config_of(policy(), rows=[]))


if __name__ == "__main__":
  absltest.main()
