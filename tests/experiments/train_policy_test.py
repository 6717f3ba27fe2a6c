"""A policy run end to end: what it leaves, resumes, learns, and refuses."""

import dataclasses
import functools
import json
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import models
from jaxalign.algorithms.ppo_batch import PolicyState
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import train_policy
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import prompts as prompt_data
from jaxalign.experiments.datasets import section
from jaxalign.experiments.policy import reward_source
from jaxalign.experiments.policy import rollout as rollouts
from jaxalign.experiments.reports import policy
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact, metric_writer
from jaxalign.runtime.reward_sources import base
from tests import config_reads, shipped
from tests.experiments import interrupted
from tests.runtime.reward_sources import model_test

SHARED = dict(
  critic=dict(kind="shared", init_from=None, coef=0.1, clip=0.2, discount=1.0,
              gae_lambda=0.95),
  critic_optimizer=None,
)  # fmt: skip
ATOMS = dict(clip=None, num_atoms=5, low=-3.0, high=1.0)
LORA = dict(
  model__lora=dict(rank=2, alpha=4.0, targets=("query", "up")),
  critic=SHARED["critic"] | ATOMS,
  critic_optimizer=None,
)


def shares(prompts, responses):
  """Rewards that are easy to raise: the shares of small and capital letters."""
  del prompts
  count = lambda text, first: sum(
    first <= c <= chr(ord(first) + 25) for c in text
  )
  return [[count(r, "a") / 8, count(r, "A") / 8] for r in responses]


def smoke_config(**changes) -> train_policy.Config:
  """The crowd config, smaller still; `a__b` sets `a.b`."""
  cfg = shipped.config("policy_maxmin_crowd", "smoke")
  cfg.mesh.data = 1
  cfg.sampling.max_new_tokens = 8
  cfg.model.architecture.update(embed_dim=16, mlp_dim=16)
  cfg.policy.update(epochs=2, minibatches=2)
  cfg.train.update(num_iterations=4, eval_every=None)
  with cfg.ignore_type():
    for key, value in changes.items():
      section, _, name = key.rpartition("__")
      (cfg[section] if section else cfg)[name] = value
  return configuration.to_dataclass(train_policy.Config, cfg)


class TrainPolicyTest(parameterized.TestCase):
  def run_in(self, config, workdir=None):
    workdir = epath.Path(workdir or tempfile.mkdtemp())
    with mock.patch.object(policy, "write"):  # pictures take seconds
      train_policy.run(config, workdir)
    return workdir

  def test_leaves_a_policy_numbers_and_one_compilation_each(self):
    config = smoke_config(
      train__eval_every=2,
      train__num_iterations=3,
      sampling__num_responses=2,
      seed=4,
    )
    built = []
    original = train_policy.build
    train_policy.build = lambda *args: built.append(original(*args)) or built[0]
    try:
      with config_reads.recorded(config) as unread:
        workdir = self.run_in(config)
    finally:
      train_policy.build = original
    # What is off, and what other kinds of source are asked with, is not read.
    value = lambda name: functools.reduce(getattr, name.split("."), config)
    used = [n for n in unread if value(n) is not None]
    self.assertEmpty(
      [n for n in used if not n.startswith(("source.", "judge."))]
    )
    # Rollouts, minibatches and evaluation: no second compilation of anything.
    self.assertEqual(
      {name: trace.count for name, trace in built[0].traces.items()},
      {"sample": 1, "learn": 1, "compare": 1},
    )
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    train = [row for row in rows if "train/loss" in row]
    self.assertEqual([row["step"] for row in train], [1, 2, 3])
    self.assertEqual(train[0]["train/kl"], 0.0)
    for row in train:
      self.assertLess(row["train/mismatch_mean_abs"], 1e-4)
      self.assertEqual(row["train/updates"], 4)
      worst = min("warm", "brief", key=lambda n: row[f"train/utility/{n}"])
      self.assertEqual(row[f"train/group_weight/{worst}"], 1.0)
    scored = [row["step"] for row in rows if "eval/kl" in row]
    self.assertEqual(scored, [0, 2, 3])
    first, _, last = [row for row in rows if "eval/kl" in row]
    answers = json.loads((workdir / "answers.json").read_text())
    for row, when in ((first, "start"), (last, "end")):
      said = answers[when]["statistics"]
      self.assertAlmostEqual(
        row["eval/perplexity"], said["perplexity"]["mean"], delta=1e-3
      )
      self.assertAlmostEqual(
        row["eval/self_bleu"], said["self_bleu"], delta=1e-6
      )
      self.assertGreater(said["perplexity"]["median"], 1)
      self.assertTrue(said["gaps"]["warm"])
    speed = metric_writer.read_rows(workdir / "speed.jsonl")
    for name in ("sampling", "scoring", "learning"):
      self.assertGreater(speed[-1][f"speed/{name}_seconds"], 0)
    result = json.loads((workdir / "eval.json").read_text())
    self.assertAlmostEqual(result["eval/kl"], rows[-1]["eval/kl"], places=5)
    described = artifact.load_description(workdir / "model")
    self.assertEqual(described.kind, "policy")
    _, params, network = models.load_causal_lm(str(workdir / "model"))
    tokenizer = tokenizer_files.load_tokenizer(str(workdir / "model"))
    prompt = np.array([tokenizer.encode("Q: why?")], np.int32)
    out = models.generate(
      network,
      params,
      prompt,
      prompt >= 0,
      keys=jax.random.split(jax.random.key(0), 1),
      max_new_tokens=5,
      pad_id=tokenizer.pad_id,
    )
    self.assertEqual(out.tokens.shape, (1, 5))

  def test_killed_and_resumed_is_uninterrupted_bit_for_bit(self):
    config = smoke_config(
      kl__controller="adaptive",
      kl__target=0.5,
      kl__horizon=100.0,
      reward__scale="standardise",
      reward__clip=0.8,
      welfare__kind="exponentiated",
      welfare__step_size=0.3,
      critic__clip=None,
      critic__num_atoms=5,
      critic__low=-3.0,
      critic__high=1.0,
    )
    files = ("metrics.jsonl", "model/model.safetensors", "eval.json")
    workdir = interrupted.assert_resumes(
      self,
      lambda workdir: self.run_in(config, workdir),
      self.run_in(config),
      (*files, "answers.json"),
      step=3,
    )
    # A finished run that is started again shows all of it on its page.
    train_policy.run(config, workdir)
    self.assertIn("4 iterations moved", (workdir / "report.html").read_text())
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    coefs = [row["train/kl_coef"] for row in rows if "train/kl_coef" in row]
    self.assertLen(set(coefs), 4)  # carried, and moved every iteration
    # A critic that says nothing yet gives all five atoms the same chance.
    self.assertGreater(rows[1]["train/value_loss"], 0.9 * np.log(5))
    self.assertIn("train/returns_out_of_range", rows[1])

  def test_a_critic_of_labels_and_what_answers_would_be_called(self):
    folder = model_test.described(
      readout="labels",
      utilities=[1.0, -1.0],
      calibration={"mean": [0.5], "std": [2.0]},
      mixture_weights=None,
    )
    critic = dict(clip=None, num_atoms=5, low=-3.0, high=1.0, num_labels=2)
    config = smoke_config(
      source__models=(folder,),
      source__crowd=None,
      source__names=("reward",),
      source__buckets=(64,),
      judge__crowd="labels",
      train__num_iterations=2,
      **{f"critic__{name}": value for name, value in critic.items()},
    )
    workdir = self.run_in(config)
    first, last = [
      row
      for row in metric_writer.read_rows(workdir / "metrics.jsonl")
      if "eval/kl" in row
    ]
    for row in (first, last):
      shares = [row[f"eval/label/{name}"] for name in model_test.NAMES]
      self.assertAlmostEqual(sum(shares), 1.0, places=5)
      # The model's values are 0.25 and -0.75, and their mean is its reward.
      self.assertAlmostEqual(
        row["eval/label_worth"], shares[0] - 0.75, places=5
      )
      self.assertAlmostEqual(
        row["eval/label_worth"], row["eval/utility/reward"], places=5
      )
      known = [v for k, v in row.items() if k.startswith("eval/judge_label/")]
      self.assertLen(known, 6)
      self.assertAlmostEqual(sum(known), 1.0, places=5)
    titles = [
      part.title for part in policy.sections(policy.read(workdir, config),
        metric_writer.read_rows(workdir / "speed.jsonl"), None)
    ]  # fmt: skip
    self.assertIn("Labels of held-out answers, by the reward", titles)
    self.assertIn("Labels of held-out answers, by the judge", titles)
    # A source of plain rewards has none that a critic could learn.
    plain = smoke_config(
      source__crowd="one_taste,groups=warm,tastes=warmth,shares=1.0",
      source__names=("warm",),
      data__eval_files=(),
      **{f"critic__{name}": value for name, value in critic.items()},
    )
    with self.assertRaisesRegex(ValueError, "predicts no labels"):
      self.run_in(plain)

  def test_a_source_that_fails_loses_nothing(self):
    config = smoke_config(
      data__eval_files=(), train__checkpoint_every=100, train__num_iterations=3
    )
    straight = epath.Path(tempfile.mkdtemp())
    train_policy.run(config, straight)
    page = (straight / "report.html").read_text()
    self.assertIn("Warning: no prompts are held out", page)
    workdir = epath.Path(tempfile.mkdtemp())
    original, calls = reward_source.open_source, []

    def flaky(*args, **kwargs):
      source = original(*args, **kwargs)

      def function(prompts, responses):
        calls.append(len(prompts))
        if len(calls) == 3:
          raise OSError("away")
        return source(prompts, responses)

      return base.FunctionSource(function, names=source.names)

    reward_source.open_source = flaky
    try:
      with self.assertRaisesRegex(base.RewardError, "away"):
        self.run_in(config, workdir)
    finally:
      reward_source.open_source = original
    self.assertTrue((workdir / "checkpoints/2").exists())
    self.run_in(config, workdir)
    self.assertEqual(calls, [8, 8, 8])
    for name in ("metrics.jsonl", "model/model.safetensors"):
      self.assertEqual(
        (workdir / name).read_bytes(), (straight / name).read_bytes(), name
      )

  def test_a_function_of_the_users_is_learned_towards(self):
    config = smoke_config(
      source__function=f"{__name__}:shares",
      source__crowd=None,
      source__names=("small", "capital"),
      reward__missing_eos=None,
      data__eval_files=(),
      welfare__kind="single",
      welfare__group=0,
      optimizer__learning_rate=0.03,
      train__num_iterations=12,
      train__num_prompts=32,
      train__checkpoint_every=100,
    )
    workdir = self.run_in(config)
    rows = metric_writer.read_rows(workdir / "metrics.jsonl")
    self.assertLess(rows[0]["train/utility/small"], 0.2)
    self.assertGreater(rows[-1]["train/utility/small"], 0.2)
    self.assertLess(rows[-1]["train/utility/capital"], 0.2)

  @parameterized.named_parameters(
    ("adapters", LORA),
    (
      "grpo",
      dict(
        policy__kind="grpo",
        policy__whiten=False,
        policy__aggregation="sequence_mean",
        critic=dict(kind="none", init_from=None, coef=None, clip=None,
                    discount=None, gae_lambda=None),
        critic_optimizer=None,
        kl__place="loss",
        kl__estimator="k3",
        sampling__num_responses=2,
        sampling__temperature=0.7,
      ),
    ),
  )  # fmt: skip
  def test_other_networks_learn_from_what_they_sampled(self, changes):
    config = smoke_config(
      data__eval_files=(), train__num_iterations=1, policy__entropy_coef=0.01,
      **changes,
    )  # fmt: skip
    mesh = meshes.make_mesh(config.mesh)
    stage = train_policy.build(config, mesh)
    key = jax.random.key(0)
    state, frozen = stage.init(key), stage.init_frozen(key)
    tokenizer = section.open_tokenizer(config.data, None)
    dataset = prompt_data.load_prompts(
      config.data, ("synthetic:two_groups:test",), tokenizer, group_names=()
    )
    source = reward_source.open_source(config.source, mesh)
    batch = prompt_data.make_batches(
      config.data, dataset, tokenizer, 8, seed=0, shuffle=True
    )[0]
    rollout = rollouts.make_rollout(stage, dataset, tokenizer, source)
    found = rollout(state.actor.params, frozen, batch, jax.random.key(1))
    self.assertLen(found.responses, 8 * config.sampling.num_responses)
    before = jax.tree.map(np.asarray, state.actor.params)
    state, metrics = stage.learn(state, frozen, found.batch, jax.random.key(2))
    self.assertLess(float(metrics["train/mismatch_mean_abs"]), 1e-4)
    self.assertEqual(float(metrics["train/kl"]), 0.0)
    moved = jax.tree.map(
      lambda a, b: float(np.abs(a - b).max()), state.actor.params, before
    )
    self.assertGreater(max(jax.tree.leaves(moved)), 0)
    if "model__lora" in changes:
      self.assertEqual({*moved}, {"adapters", "value"})
      self.assertGreater(moved["value"]["kernel"], 0)
    merged = stage.merge(state.actor.params, frozen)
    self.assertEqual(
      jax.tree.structure(merged), jax.tree.structure(stage.frozen)
    )

  def test_rows_are_drawn_by_their_own_keys(self):
    """Not by their batch mates, nor by the devices they lie on."""
    config = smoke_config(sampling__num_responses=2)
    found = []
    for devices in (1, 4):
      mesh = meshes.make_mesh(meshes.MeshConfig(devices, 1, 1))
      stage = train_policy.build(config, mesh)
      key = jax.random.key(0)
      params, frozen = stage.init(key).actor.params, stage.init_frozen(key)
      rng = np.random.default_rng(0)
      batch = {
        "prompts": jnp.array(rng.integers(0, 256, (8, 48)), jnp.int32),
        "prompt_mask": jnp.ones((8, 48), bool),
        "group": jnp.zeros(8, jnp.int32),
        "where": jnp.ones(8, bool),
        "row": jnp.arange(8, dtype=jnp.int32),
        "index": jnp.arange(8, dtype=jnp.int32),
      }
      batch = jax.device_put(batch, meshes.batch_sharding(mesh))
      out = stage.sample(params, frozen, batch, jax.random.key(5))
      found.append(jax.tree.map(np.asarray, out))
    np.testing.assert_array_equal(found[0]["tokens"], found[1]["tokens"])
    first, second = found[0]["tokens"][:, 0, 48:], found[0]["tokens"][:, 1, 48:]
    self.assertTrue((first != second).any(axis=1).all())

  def test_programs_lower_without_arrays(self):
    stage = train_policy.build(
      smoke_config(), meshes.make_mesh(meshes.MeshConfig(1, 1, 1))
    )
    self.assertIsInstance(stage.state, PolicyState)
    names = [program.name for program in stage.programs()]
    self.assertEqual(names, ["sample", "learn"])
    for program in stage.programs():
      self.assertIn("while", program.lower().as_text())

  @parameterized.parameters(
    (dict(train__num_prompts=7), "divisible by data x fsdp x minibatches"),
    (dict(model__dropout=0.1), "model.dropout must be 0"),
    (dict(critic_optimizer=None), "critic_optimizer must be set"),
    (dict(source__names=()), "source.names must name the outputs"),
    (dict(source__names=("all",)), "names must name the 2 outputs"),
    (dict(sampling__temperature=0.0), "temperature must be > 0"),
    (dict(sampling__truncated_loss=True), "truncated_loss needs top_k or top"),
    (
      dict(sampling__truncated_loss=True, sampling__top_k=3,
           sampling__repetition_penalty=1.1),
      "repetition_penalty=1, got 3, None and 1.1",
    ),
    (dict(policy__text_coef=1.0), "texts and policy.text_coef are set toget"),
    (dict(texts=dict(files=("a",))), "text_coef are set together"),
    (
      dict(texts=dict(files=("a",), length=1), policy__text_coef=1.0),
      "length must be >= 2",
    ),
    (
      dict(critic__warmup_iterations=4),
      "warmup_iterations must be < train.num_iterations, got 4 and 4",
    ),
  )  # fmt: skip
  def test_refuses_before_anything_is_compiled(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      self.run_in(smoke_config(**changes))


class LayoutsTest(parameterized.TestCase):
  """The transformer's gradient in float64, in every mode."""

  def learn(self, mesh, parallel, accumulation=1):
    config = smoke_config(
      **SHARED,
      policy__epochs=1,
      policy__minibatches=1,
      model__dtype="float64",
      train__parallel=parallel,
      train__accumulation=accumulation,
    )
    optimizer = dataclasses.replace(
      config.optimizer, b1=0.0, eps=1.0, clip_norm=None, learning_rate=1.0,
      schedule="constant",
    )  # fmt: skip
    config = dataclasses.replace(config, optimizer=optimizer)
    mesh = meshes.make_mesh(meshes.MeshConfig(*mesh))
    original = train_policy.model.decoder_config
    wide = lambda *args, **kwargs: dataclasses.replace(
      original(*args, **kwargs), param_dtype="float64"
    )
    train_policy.model.decoder_config = wide
    try:
      stage = train_policy.build(config, mesh)
    finally:
      train_policy.model.decoder_config = original
    key = jax.random.key(0)
    state, frozen = stage.init(key), stage.init_frozen(key)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, size=(8, 1, 1))
    batch = {
      "tokens": rng.integers(0, 256, (8, 1, 56)).astype(np.int32),
      "mask": np.arange(56) < 48 + lengths,
      "sampler_log_probs": -rng.uniform(4, 6, (8, 1, 8)).astype(np.float32),
      "ended": lengths[..., 0] < 8,
      "scores": rng.normal(size=(8, 1, 2)).astype(np.float32),
      "group": np.zeros(8, np.int32),
      "where": np.arange(8) != 3,
      "row": np.arange(8, dtype=np.int32),
    }
    batch = jax.device_put(batch, meshes.batch_sharding(mesh))
    before = jax.tree.map(np.array, state.actor.params)
    state, _ = stage.learn(state, frozen, batch, jax.random.key(1))
    after = jax.tree.map(np.asarray, state.actor.params)
    return np.concatenate(
      [
        np.ravel(a - b)
        for a, b in zip(
          jax.tree.leaves(after), jax.tree.leaves(before), strict=True
        )
      ]
    )

  def test_every_mode_gives_the_same_step(self):
    self.enter_context(jax.enable_x64(True))
    expected = self.learn((1, 1, 1), "jit")
    self.assertGreater(np.abs(expected).max(), 1e-3)
    for mesh, parallel, accumulation in (
      ((2, 4, 1), "jit", 1),
      ((8, 1, 1), "pmap", 1),
    ):
      found = self.learn(mesh, parallel, accumulation)
      gap = np.linalg.norm(found - expected) / np.linalg.norm(expected)
      self.assertLess(gap, 1e-10, parallel)


if __name__ == "__main__":
  absltest.main()
