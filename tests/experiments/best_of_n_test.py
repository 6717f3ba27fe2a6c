"""Samples, picks and curves; a source that gives up, and a run that goes on."""

import functools
import json
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.records import reader
from jaxalign.data.records.record import Record
from jaxalign.data.synthetic import crowd
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import best_of_n, sft
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import answers, candidates
from jaxalign.models import heads
from jaxalign.models.hf import config_map
from jaxalign.runtime.io import artifact
from jaxalign.runtime.reward_sources.base import RewardError
from tests import config_reads, shipped
from tests.data import real_data


def config_of(variant="smoke", **changes):
  cfg = shipped.config("best_of_n", variant)
  cfg.mesh.data = 1
  with cfg.ignore_type():
    for key, value in changes.items():
      section, _, leaf = key.rpartition("__")
      (cfg[section] if section else cfg)[leaf] = value
  return configuration.to_dataclass(best_of_n.Config, cfg)


def is_answer(completions, answer, **columns):
  """A reward function of TRL's form."""
  pairs = zip(completions, answer, strict=True)
  return [float(said == str(right)) for said, right in pairs]


def run(config, workdir=None):
  workdir = epath.Path(tempfile.mkdtemp()) if workdir is None else workdir
  best_of_n.run(config, workdir)
  return workdir


@functools.cache
def policy() -> str:
  """A saved language model on bytes, random but fixed."""
  tokenizer = tokenizer_files.byte_tokenizer()
  network = config_map.scratch_config(
    "llama",
    vocab_size=tokenizer.vocab_size,
    num_layers=1,
    num_heads=2,
    embed_dim=8,
    mlp_dim=16,
    max_positions=64,
    tie_embeddings=True,
    pad_id=tokenizer.pad_id,
    bos_id=tokenizer.bos_id,
    eos_id=tokenizer.eos_id,
  )
  token = jnp.zeros((1, 1), jnp.int32)
  params = heads.causal_lm(network).init(jax.random.key(0), token, token > 0)
  folder = tempfile.mkdtemp()
  description = artifact.Description(
    kind="policy",
    heads=(),
    max_length=64,
    calibration=None,
    utilities=None,
    mixture_weights=None,
    provenance={},
  )
  artifact.save(folder, params, network, tokenizer, description)
  return folder


def sampling_config(**changes):
  """A config whose policy answers."""
  options = dict(
    policy=policy(),
    oracle=None,
    num_samples=3,
    data__limit=6,
    chunk=2,
    sampling__max_prompt_length=32,
    sampling__max_new_tokens=8,
    sampling__batch_size=4,
  )
  return config_of(**options | changes)


def bytes_of(prompts, responses):
  return [float(len(text.encode())) for text in responses]


calls: list[int] = []


def gives_up_once(prompts, responses):
  """Fails at the second chunk of the first run."""
  calls.append(len(responses))
  if len(calls) == 2:
    raise ConnectionError("gone")
  return bytes_of(prompts, responses)


class BestOfNTest(parameterized.TestCase):
  def test_smoke_picks_by_the_proxy_and_reads_every_key(self):
    config = config_of()
    with config_reads.recorded(config) as unread:
      workdir = run(config)
    self.assertEqual(
      {k for k in unread if not k.startswith(("sampling", "oracle."))},
      {k for k in unread if k.startswith("source.connection.")},
    )
    people = crowd.preset("two_groups")
    records = list(reader.RecordStream((str(workdir / "best.jsonl"),)))
    self.assertLen(records, 40)
    gains = []
    for record in records:
      self.assertEqual(record.num_ranked, 1)
      best, other = (
        crowd.utilities(people, record.prompt, text)
        for text in record.responses
      )
      gains.append(best - other)
    self.assertGreaterEqual(np.min(gains, axis=0)[0], 0)
    result = json.loads((workdir / "eval.json").read_text())
    self.assertEqual(result["sizes"], [1, 2])
    np.testing.assert_allclose(result["kl"], [0, np.log(2) - 0.5], rtol=1e-6)
    one, two = np.array(result["proxy"]["value"])
    # Calibrated, so in deviations of the group's utility.
    self.assertGreater(two[0], one[0])
    np.testing.assert_allclose(
      result["proxy"]["value"], result["oracle"]["value"], rtol=1e-5
    )
    for low, value, high in zip(
      *(np.array(result["oracle"][k]) for k in ("low", "value", "high")),
      strict=True,
    ):
      self.assertTrue(np.all((low <= value) & (value <= high)))
    self.assertIn("Best of n by warm", (workdir / "report.html").read_text())

  def tune_on(self, best):
    """The best answers through the sft stage."""
    records = list(reader.RecordStream((str(best),)))
    self.assertLen(records, 6)
    for record in records:
      sizes = bytes_of([], record.responses)
      self.assertEqual(sizes, sorted(sizes, reverse=True))
    cfg = shipped.config("sft_crowd", "smoke")
    cfg.data.update(train_files=(str(best),), eval_files=(), length=96)
    cfg.mesh.data = 1
    cfg.train.update(num_steps=1, batch_size=2, eval_every=None)
    cfg.optimizer.warmup_steps = 0
    tuned = epath.Path(tempfile.mkdtemp())
    sft.run(configuration.to_dataclass(sft.Config, cfg), tuned)
    self.assertTrue((tuned / "model" / artifact.DESCRIPTION).exists())

  def test_after_a_source_gave_up_only_the_rest_is_made_and_sft_tunes(self):
    changes = dict(
      source__crowd=None,
      source__function=f"{__name__}:gives_up_once",
      pick_by="reward",
    )
    config = sampling_config(
      **changes,
      source__connection=dict(
        sampling_config().source.connection.__dict__, max_attempts=1
      ),
    )
    calls.clear()
    workdir = epath.Path(tempfile.mkdtemp())
    with (
      self.assertLogs("jaxalign", "WARNING"),
      self.assertRaisesRegex(RewardError, "gives_up_once failed 1 times"),
    ):
      run(config, workdir)
    run(config, workdir)
    self.assertEqual(calls, [6, 6, 6, 6])
    with config_reads.recorded(config) as unread:
      straight = run(config)
    self.assertEmpty({k for k in unread if k.startswith("sampling.")})
    for name in ("best.jsonl", "samples.jsonl", "eval.json"):
      self.assertEqual(
        (workdir / name).read_bytes(), (straight / name).read_bytes(), name
      )
    self.tune_on(straight / "best.jsonl")
    # A torn line is made again; another config's samples are not mixed in.
    samples = workdir / "samples.jsonl"
    samples.write_bytes(samples.read_bytes()[:-20])
    run(config, workdir)
    self.assertEqual(
      samples.read_bytes(), (straight / "samples.jsonl").read_bytes()
    )
    with self.assertRaisesRegex(ValueError, "samples of another config"):
      run(config_of(), workdir)

  def test_no_answer_is_there_twice_and_no_other_one_is_empty(self):
    of = lambda *texts, order: best_of_n.best_record(
      candidates.Scored("Q", list(texts), [], []), Record("Q", ()), order
    )
    found = of(" a", " b", " b", "", " a", order=[2, 0, 1, 3, 4])
    self.assertEqual(found.responses, (" b", " a"))
    self.assertEqual(found.num_ranked, 1)
    alone = of(" a", " a", order=[1, 0])
    self.assertEqual((alone.responses, alone.num_ranked), ((" a",), None))
    nothing = of("", " a", order=[0, 1])
    self.assertEqual(nothing.responses, ("", " a"))

  def test_pick_by(self):
    proxy = np.array([[1.0, 4.0], [3.0, 3.0]])
    pick = functools.partial(best_of_n.picked_by, proxy, ("a", "b"))
    np.testing.assert_array_equal(pick("mean"), [2.5, 3.0])
    np.testing.assert_array_equal(pick("min"), [1.0, 3.0])
    np.testing.assert_array_equal(pick("b"), [4.0, 3.0])
    with self.assertRaisesRegex(ValueError, "mean, min or one of a, b, got 'c"):
      pick("c")

  @parameterized.parameters(
    (dict(num_samples=3), "^record 0, id .*: policy must be set, as .* 2 resp"),
    (dict(num_samples=0), "num_samples must be >= 1, got 0"),
    (dict(pick_by="nobody"), "pick_by must be mean, min or one of warm, brief"),
    (dict(data__limit=0), "must hold one prompt or more"),
  )
  def test_errors(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      run(config_of(**changes))

  def test_a_verifiable_reward_reads_the_answer_of_each_record(self):
    path = epath.Path(tempfile.mkdtemp()) / "sums.jsonl"
    rows = [
      {"prompt": f"{a} + 1 =", "responses": ["7", str(a + 1)], "answer": a + 1}
      for a in range(6)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = config_of(
      "candidates",
      data__files=(str(path),),
      data__limit=None,
      data__reward_columns=("answer",),
      num_samples=2,
      source__models=(),
      source__function=f"{__name__}:is_answer",
    )
    result = json.loads((run(config) / "eval.json").read_text())
    # The second of two is right each time, so the better of both always is.
    proxy = np.array(result["proxy"]["value"])[:, 0]
    np.testing.assert_allclose(proxy[[0, -1]], [0.5, 1.0], atol=1e-6)

  def test_candidates_of_a_file_with_their_judge(self):
    real_data.folder("bon_tulu16_NC")
    config = config_of(
      "candidates",
      data__limit=60,
      source__models=(),
      source__function=f"{__name__}:bytes_of",
    )
    result = json.loads((run(config) / "eval.json").read_text())
    self.assertEqual(result["oracle_names"], ["overall"])
    judged = np.array(result["oracle"]["value"])[:, 0]
    self.assertLen(judged, 11)
    # A random answer beats the reference less often than not.
    self.assertBetween(judged[0], 1.2, 1.5)
    lengths = np.array(result["proxy"]["value"])[:, 0]
    self.assertTrue(np.all(np.diff(lengths) > 0))


class AnswererTest(absltest.TestCase):
  def sampling(self, **changes):
    fields = sampling_config().sampling.__dict__ | changes
    return answers.SamplingConfig(**fields)

  def test_an_answer_depends_on_its_prompt_and_number_alone(self):
    key = jax.random.key(0)
    answerer = answers.Answerer(policy(), self.sampling(), key)
    prompts = ["Q: a", "Q: bb", "Q: " + "c" * 60, "Q: a", "Q: a"]
    found = answerer(prompts, [0, 1, 2, 0, 3])
    self.assertEqual(found[0], found[3])
    self.assertNotEqual(found[0], found[4])
    self.assertEqual(answerer(prompts[2:3], [2]), found[2:3])
    other = answers.Answerer(policy(), self.sampling(batch_size=2), key)
    self.assertEqual(other(prompts, [0, 1, 2, 0, 3]), found)

  def test_the_ends_of_the_section_end_an_answer(self):
    key, prompts = jax.random.key(0), ["Q: a"] * 4
    of = lambda ends: answers.Answerer(
      policy(), self.sampling(end_ids=ends), key
    )
    self.assertGreater(max(map(len, of(())(prompts, range(4)))), 1)
    ended = of(tuple(range(256)))(prompts, range(4))
    self.assertEqual(max(map(len, ended)), 1)
    with self.assertRaisesRegex(ValueError, r"end_ids must be in \[0, 259\)"):
      of((259,))

  def test_what_does_not_fit(self):
    with self.assertRaisesRegex(ValueError, "exceed the 64 positions"):
      answers.Answerer(
        policy(), self.sampling(max_new_tokens=40), jax.random.key(0)
      )
    with self.assertRaisesRegex(ValueError, "batch_size must be >= 1, got 0"):
      self.sampling(batch_size=0)


if __name__ == "__main__":
  absltest.main()
