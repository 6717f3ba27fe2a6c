"""Scores of known rewards, then a saved model through the whole stage."""

import json
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.batching import pair_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import evaluate, score
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import pair_scores, scoring
from jaxalign.models import heads
from jaxalign.models.hf import config_map, weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact
from tests import object_store, shipped

EVAL = pair_scores.EvalConfig(batch_size=8, num_bins=10, num_samples=200)


def save_model(seed: int) -> str:
  """A folder with a tiny random reward model on bytes."""
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
    num_outputs=1,
    pad_id=tokenizer.pad_id,
    bos_id=tokenizer.bos_id,
    eos_id=tokenizer.eos_id,
  )
  model = heads.reward_model(network)
  token = jnp.zeros((1, 1), jnp.int32)
  params = model.init(jax.random.key(seed), token, token == 0)
  folder = tempfile.mkdtemp()
  artifact.save(
    folder,
    params,
    network,
    tokenizer,
    artifact.Description(
      kind="reward",
      heads=("reward",),
      max_length=64,
      calibration={"mean": [1.0], "std": [2.0]},
      utilities=None,
      mixture_weights=None,
      provenance={},
    ),
  )
  return folder


def write_pairs(name: str, rows: list[dict]) -> str:
  path = epath.Path(tempfile.mkdtemp()) / name
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return str(path)


PAIRS = [
  {
    "prompt": f"Q{i}:",
    "chosen": " yes" * (1 + i % 3),
    "rejected": " no" * (1 + i % 4),
    "source": "even" if i % 2 == 0 else "odd",
  }
  for i in range(22)
]


def reward_of(folder: str, prompt: str, response: str) -> float:
  """The reward of one text, by hand and without any padding."""
  apply, params, _ = weights.load_reward_model(folder)
  tokenizer = tokenizer_files.load_tokenizer(folder)
  ids = tokenizer.encode(prompt + response)
  row = np.array([[tokenizer.bos_id, *ids, tokenizer.eos_id]], np.int32)
  return float(apply(params, row, np.ones_like(row, bool))[0, 0])


def config_of(name: str, **changes):
  cfg = shipped.config(name)
  cfg.data.update(max_length=64, buckets=(32, 64))
  cfg.mesh.data = 1
  for key, value in changes.items():
    section, _, leaf = key.rpartition("__")
    (cfg[section] if section else cfg)[leaf] = value
  return cfg


class ProgramsTest(absltest.TestCase):
  def test_parts_of_every_size_share_a_few_programs(self):
    rng = np.random.default_rng(0)
    rows = [
      row | {"annotator": f"a{i % 3}", "group": f"g{i % 2 or i % 5}"}
      for i, row in enumerate(PAIRS)
    ]
    cfg = config_of("evaluate")
    data = configuration.to_dataclass(preferences.DataConfig, cfg.data)
    pairs = preferences.load_pairs(
      data, (write_pairs("p.jsonl", rows),), tokenizer_files.byte_tokenizer()
    )
    rewards = rng.normal(size=(len(PAIRS), 2, 1)).astype(np.float32)
    jax.clear_caches()
    with jax.log_compiles(), self.assertLogs("jax", "WARNING") as logs:
      evaluate.write_evaluation(
        epath.Path(tempfile.mkdtemp()), {"model": rewards}, pairs, None, EVAL, 0
      )
    compiled = [m for m in logs.output if "Finished XLA compilation" in m]
    self.assertBetween(len(compiled), 1, 6, "\n".join(compiled))


class ScoresTest(parameterized.TestCase):
  def test_known_gaps(self):
    gaps = np.array([1.0, -1.0, 2.0, 0.0], np.float32)
    # A second subset, and a pair in neither, change nothing of the first.
    more = np.array([*gaps, 3.0, -7.0], np.float32)
    subsets = {"known": np.arange(4), "other": np.array([4])}
    scores = pair_scores.summarise(more, subsets, EVAL, 0)["known"]
    p = 1 / (1 + np.exp(-gaps.astype(np.float64)))
    self.assertEqual(scores["num_pairs"], 4)
    self.assertAlmostEqual(scores["accuracy"]["value"], 2.5 / 4, places=6)
    self.assertAlmostEqual(scores["nll"]["value"], -np.log(p).mean(), places=6)
    self.assertAlmostEqual(
      scores["brier"]["value"], ((1 - p) ** 2).mean(), places=6
    )
    # Both orders of each pair in ten bins of predicted probability.
    both, won = np.r_[p, 1 - p], np.r_[np.ones(4), np.zeros(4)]
    bins = np.minimum((both * 10).astype(int), 9)
    ece = sum(
      abs(won[bins == b].mean() - both[bins == b].mean()) * np.mean(bins == b)
      for b in set(bins)
    )
    self.assertAlmostEqual(scores["ece"]["value"], ece, places=5)
    for name in pair_scores.SCORES:
      self.assertLessEqual(scores[name]["low"], scores[name]["high"])

  def test_interval_narrows_with_more_pairs(self):
    gaps = np.random.default_rng(0).normal(0.5, 1, 1600).astype(np.float32)
    subsets = {"few": np.arange(100), "many": np.arange(1600)}
    summary = pair_scores.summarise(gaps, subsets, EVAL, 0)
    few, many = (
      summary[name]["accuracy"]["high"] - summary[name]["accuracy"]["low"]
      for name in ("few", "many")
    )
    self.assertBetween(few / many, 2.5, 6.0)
    self.assertLess(
      summary["many"]["ece"]["noise_floor"]["mean"],
      summary["few"]["ece"]["noise_floor"]["mean"],
    )


class StageTest(absltest.TestCase):
  def test_two_models_two_sources(self):
    folders = (save_model(0), save_model(1))
    cfg = config_of(
      "evaluate",
      models=folders,
      data__eval_files=(write_pairs("pairs.jsonl", PAIRS),),
      data__train_files=(write_pairs("more.jsonl", PAIRS),),
      eval__num_samples=50,
    )
    config = configuration.to_dataclass(evaluate.Config, cfg)
    workdir = epath.Path(tempfile.mkdtemp())
    with self.assertLogs("jaxalign") as logs:
      evaluate.run(config, workdir)
    *findings, report, then = [r.getMessage() for r in logs.records][-4:]
    for folder, said in zip(folders, findings, strict=True):
      self.assertStartsWith(said, f"{folder}: accuracy 0.")
      self.assertIn("on 22 held-out pairs; baselines: chance 0.500, alw", said)
    self.assertEqual(report, f"report: {workdir}/report.html")
    self.assertIn("next: python -m jaxalign.experiments.serve --conf", then)
    result = json.loads((workdir / "eval.json").read_text())
    self.assertEqual(set(result["models"]), set(folders))
    for folder in folders:
      gaps = np.array(
        [
          reward_of(folder, row["prompt"], row["chosen"])
          - reward_of(folder, row["prompt"], row["rejected"])
          for row in PAIRS
        ]
      )
      by_source = result["models"][folder]
      for name, rows in (
        ("all", slice(None)),
        ("even", slice(0, None, 2)),
        ("odd", slice(1, None, 2)),
      ):
        self.assertAlmostEqual(
          by_source[name]["nll"]["value"],
          np.log1p(np.exp(-gaps[rows])).mean(),
          places=4,
        )
    self.assertEqual(set(result["baselines"]), {"all", "even", "odd"})
    page = (workdir / "report.html").read_text()
    self.assertIn("noise floor", page)
    self.assertIn("Warning: 22 of 22 held-out pairs also train", page)
    self.assertLen(result["warnings"], 1)

  def test_texts_are_cut_to_the_length_of_each_model(self):
    folder = save_model(0)
    long = [{"prompt": "Q" * 90, "chosen": " a", "rejected": " b" * 3}]
    found = []
    for max_length, buckets in ((64, (64,)), (512, (32, 512))):
      cfg = config_of(
        "evaluate",
        models=(folder,),
        data__eval_files=(write_pairs("pairs.jsonl", long * 2),),
        data__max_length=max_length,
        data__buckets=buckets,
      )
      config = configuration.to_dataclass(evaluate.Config, cfg)
      with mock.patch.object(evaluate, "write_evaluation") as written:
        evaluate.run(config, epath.Path(tempfile.mkdtemp()))
      _, rewards, pairs, *_ = written.call_args.args
      self.assertEqual(pairs.report["truncated_prompts"], 2)
      found.append(rewards[folder])
    np.testing.assert_array_equal(*found)

  def test_rewards_do_not_depend_on_batch_or_mesh(self):
    folder = save_model(2)
    tokenizer = tokenizer_files.load_tokenizer(folder)
    cfg = config_of("evaluate")
    data = configuration.to_dataclass(preferences.DataConfig, cfg.data)
    records = [
      Record(prompt=r["prompt"], responses=(r["chosen"], r["rejected"]))
      for r in PAIRS
    ]
    dataset = pair_dataset.encode_pairs(records, tokenizer, max_length=64)
    pairs = preferences.Pairs(records, dataset, {})
    network = scoring.load_network(folder, "float32")
    rewards = []
    for sizes, batch_size in (((1, 1, 1), 22), ((8, 1, 1), 8), ((2, 4, 1), 16)):
      mesh = meshes.make_mesh(meshes.MeshConfig(*sizes))
      stage = scoring.build(network, mesh, (), batch_size, 64)
      params = scoring.load_params(stage, folder)
      rewards.append(scoring.rewards_of(stage, params, pairs, data, tokenizer))
    self.assertTrue(np.isfinite(rewards[0]).all())
    np.testing.assert_allclose(rewards[1], rewards[0], atol=1e-5)
    np.testing.assert_allclose(rewards[2], rewards[0], atol=1e-5)

  def test_the_average_of_models_is_one_more(self):
    folders = (save_model(0), save_model(1))
    cfg = config_of(
      "evaluate",
      models=folders,
      average=True,
      data__eval_files=(write_pairs("pairs.jsonl", PAIRS),),
      eval__num_samples=20,
    )
    workdir = epath.Path(tempfile.mkdtemp())
    evaluate.run(configuration.to_dataclass(evaluate.Config, cfg), workdir)
    found = json.loads((workdir / "eval.json").read_text())
    mean = lambda text, row: np.mean(
      [reward_of(folder, row["prompt"], text) for folder in folders]
    )
    gaps = np.array(
      [mean(row["chosen"], row) - mean(row["rejected"], row) for row in PAIRS]
    )
    scores = found["models"]["average"]["all"]
    self.assertAlmostEqual(
      scores["nll"]["value"], np.log1p(np.exp(-gaps)).mean(), places=4
    )
    agreement = found["breakdown"]["agreement"]
    self.assertEqual(agreement["names"], [*folders, "average"])
    self.assertLess(agreement["drift"][2], max(agreement["drift"][:2]))

  def test_a_language_model_is_refused(self):
    folder = save_model(3)
    file = epath.Path(folder) / "config.json"
    described = json.loads(file.read_text())
    described["architectures"] = ["LlamaForCausalLM"]
    file.write_text(json.dumps(described))
    with self.assertRaisesRegex(ValueError, "not a reward model"):
      scoring.load_network(folder, "float32")

  def test_the_description_of_another_model_is_refused(self):
    folder = save_model(3)
    file = epath.Path(folder) / artifact.DESCRIPTION
    described = json.loads(file.read_text())
    described |= {"heads": ["a", "b"], "mixture_weights": [0.5, 0.5]}
    described["calibration"] = None
    file.write_text(json.dumps(described))
    with self.assertRaisesRegex(ValueError, "names 2 heads, a, b, .* 1 outp"):
      scoring.load_network(folder, "float32")

  def test_nothing_to_evaluate_is_an_error(self):
    cfg = config_of("evaluate", models=())
    config = configuration.to_dataclass(evaluate.Config, cfg)
    with self.assertRaisesRegex(ValueError, "must name at least one each"):
      evaluate.run(config, epath.Path(tempfile.mkdtemp()))


class ScoreTest(absltest.TestCase):
  def scored(self, to=lambda path: path, *, folder=None, **changes):
    folder = save_model(4) if folder is None else folder
    rows = [
      {"prompt": "Q:", "responses": [" a", " bb", " ccc"], "id": "three"},
      {"prompt": "Q:", "chosen": " a", "rejected": " dddd"},
    ]
    cfg = config_of(
      "score",
      model=to(folder),
      data__eval_files=(to(write_pairs("mine.jsonl", rows)),),
      batch_size=2,
      **changes,
    )
    workdir = epath.Path(to(tempfile.mkdtemp()))
    score.run(configuration.to_dataclass(score.Config, cfg), workdir)
    lines = (workdir / "scores.jsonl").read_text().splitlines()
    return folder, [json.loads(line) for line in lines]

  def test_every_response_of_every_record(self):
    folder, rows = self.scored()
    self.assertEqual([len(row["rewards"]) for row in rows], [3, 2])
    self.assertEqual(rows[0]["id"], "three")
    for row in rows:
      for response, reward in zip(
        row["responses"], row["rewards"], strict=True
      ):
        self.assertAlmostEqual(
          reward[0], reward_of(folder, "Q:", response), places=5
        )

  def test_buckets_above_the_models_positions_are_dropped(self):
    longer = dict(data__max_length=512, data__buckets=(64, 128, 512))
    with self.assertLogs("jaxalign", "INFO") as logs:
      found = self.scored(**longer)[1]
    self.assertEqual(found, self.scored(data__buckets=(64,))[1])
    dropped = [line for line in logs.output if "exceed the 64 posit" in line]
    self.assertLen(dropped, 1)

  def test_a_reward_that_is_no_number_is_an_error(self):
    folder = save_model(4)
    file = f"{folder}/model.safetensors"
    values = safetensors.numpy.load_file(file)
    values["score.weight"][0, 3] = np.nan
    safetensors.numpy.save_file(values, file, {"format": "pt"})
    with self.assertRaisesRegex(
      ValueError, "gives reward nan for response 0 of pair 0, and 5 such"
    ):
      self.scored(folder=folder)

  def test_a_token_beyond_the_embedding_is_an_error(self):
    folder = save_model(4)
    tokenizer_files.train_tokenizer(["ab cd " * 9], vocab_size=280).save(folder)
    cfg = config_of("score", model=folder, batch_size=2)
    config = configuration.to_dataclass(score.Config, cfg)
    with self.assertRaisesRegex(ValueError, "tokens, .* embeds 259"):
      score.run(config, epath.Path(tempfile.mkdtemp()))

  def test_model_data_and_workdir_may_lie_in_a_store(self):
    store = object_store.install()

    def moved(path):
      store.put(path, f"s3://bucket{path}", recursive=True)
      return f"s3://bucket{path}"

    self.assertEqual(self.scored(moved)[1], self.scored()[1])

  def test_calibrated_rewards(self):
    folder, rows = self.scored(calibrated=True)
    self.assertAlmostEqual(
      rows[0]["rewards"][0][0],
      (reward_of(folder, "Q:", " a") - 1.0) / 2.0,
      places=5,
    )


if __name__ == "__main__":
  absltest.main()
