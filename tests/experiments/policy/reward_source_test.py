"""One section opens every kind of source, or says what is wrong with it."""

import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.algorithms import dprm
from jaxalign.data.llm_labels.prompts import ConnectionConfig
from jaxalign.data.synthetic import crowd
from jaxalign.experiments.policy import reward_source
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.reward_sources import labels as source_labels
from tests import config_reads
from tests.runtime.reward_sources import http_test, judge_test, model_test

PROMPTS, RESPONSES = model_test.PROMPTS, model_test.RESPONSES
CONNECTION = ConnectionConfig(
  key_variable=None,
  concurrency=2,
  requests_per_minute=None,
  timeout_s=60.0,
  max_attempts=2,
  backoff_s=0.01,
  max_backoff_s=0.1,
)


def config_of(**changes):
  options = dict(
    models=(),
    function=None,
    url=None,
    crowd=None,
    names=(),
    calibrated=True,
    risk=None,
    alpha=None,
    kappa=None,
    dtype="float32",
    batch_size=4,
    buckets=(32, 64),
    connection=CONNECTION,
  )
  return reward_source.RewardSourceConfig(**options | changes)


def lengths_and_ones(prompts, responses):
  return [[len(response), 1.0] for response in responses]


def _file():
  path = epath.Path(tempfile.mkdtemp()) / "seen.jsonl"
  rows = [
    {"prompt": "p", "chosen": "aaaa", "rejected": "aa"},
    {"prompt": "p", "chosen": "aaaaaa", "rejected": ""},
    {"prompt": "beyond the limit", "chosen": "a" * 50, "rejected": "b"},
  ]
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return str(path)


def only_lengths(prompts, responses):
  return [len(response) for response in responses]


def open_source(**changes):
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1))
  return reward_source.open_source(config_of(**changes), mesh)


class OpenSourceTest(parameterized.TestCase):
  def test_one_model(self):
    source = open_source(models=(model_test.folder(),))
    self.assertEqual(source.names, ("warm", "brief"))
    self.assertEqual(source.mixture_weights, (0.75, 0.25))
    expected = model_test.open_source()(PROMPTS, RESPONSES)
    np.testing.assert_array_equal(source(PROMPTS, RESPONSES), expected)

  def test_two_models_need_names(self):
    folder = model_test.folder()
    with self.assertRaisesRegex(ValueError, "different names, got warm, brie"):
      open_source(models=(folder, folder))
    source = open_source(
      models=(folder, folder), names=("a", "b", "c", "d"), calibrated=False
    )
    self.assertIsNone(source.mixture_weights)
    rewards = source(PROMPTS[:2], RESPONSES[:2])
    self.assertEqual(rewards.shape, (2, 4))
    np.testing.assert_array_equal(rewards[:, :2], rewards[:, 2:])

  def test_a_distribution_over_labels_as_its_mean_its_tail_or_its_spread(self):
    folder = model_test.described(
      readout="labels",
      utilities=[1.0, -1.0],
      calibration={"mean": [0.5], "std": [2.0]},
      mixture_weights=None,
    )
    logits = model_test.raw_rewards()
    first = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))  # of utility 1
    mean = 2 * first - 1
    tail = -1 + 2 * np.maximum(0, first - 0.25) / 0.75
    spread = 2 * np.sqrt(first * (1 - first))
    for options, expected in (
      ({}, mean),
      ({"risk": "cvar", "alpha": 0.75}, tail),
      ({"risk": "mean_std", "kappa": 0.5}, mean - 0.5 * spread),
    ):
      source = open_source(models=(folder,), buckets=(64,), **options)
      self.assertEqual(source.names, ("reward",))
      np.testing.assert_allclose(
        source(PROMPTS, RESPONSES)[:, 0], (expected - 0.5) / 2.0, atol=1e-5
      )

  def test_label_shares_of_a_model_that_predicts_them(self):
    folder = model_test.described(
      readout="labels",
      utilities=[1.0, -1.0],
      calibration={"mean": [0.5], "std": [2.0]},
      mixture_weights=None,
    )
    source = open_source(models=(folder,), buckets=(64,))
    self.assertEqual(
      source.labels, source_labels.Labels(model_test.NAMES, (0.25, -0.75))
    )
    logits = model_test.raw_rewards()
    first = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))
    found = source_labels.score(source, PROMPTS, RESPONSES)
    expected = np.stack([first, 1 - first], axis=1)
    np.testing.assert_allclose(found.label_probs, expected, atol=1e-6)
    np.testing.assert_array_equal(found.rewards, source(PROMPTS, RESPONSES))
    np.testing.assert_allclose(
      found.label_probs @ [0.25, -0.75], found.rewards[:, 0], atol=1e-6
    )
    plain = open_source(models=(model_test.folder(),))
    self.assertIsNone(plain.labels)

  def test_a_crowd_that_labels_knows_its_shares(self):
    texts = ["Q: How do I fix bowls?\nA:"], [" Glue the bowls. Enjoy!"]
    source = open_source(crowd="labels", calibrated=False)
    found = source_labels.score(source, *texts)
    self.assertEqual(found.rewards.shape, (1, 2))
    people = crowd.crowd_of("labels", seed=0)
    np.testing.assert_allclose(
      found.label_probs[0],
      crowd.label_shares(people, texts[0][0], texts[1][0]),
      rtol=1e-6,
    )
    values = dprm.LabelsConfig().label_set().utilities
    np.testing.assert_array_equal(source.labels.values, values)
    self.assertIsNone(open_source(crowd="two_groups").labels)

  def test_a_model_is_read_at_the_risk_it_was_trained_with(self):
    options = dict(
      readout="labels",
      utilities=[1.0, -1.0],
      calibration={"mean": [0.5], "std": [2.0]},
      mixture_weights=None,
    )
    tail = model_test.described(**options, risk="cvar", alpha=0.75)
    mean = model_test.described(**options)
    of = lambda folder, **risk: open_source(
      models=(folder,), buckets=(64,), **risk
    )(PROMPTS, RESPONSES)
    found = of(tail)
    np.testing.assert_array_equal(found, of(mean, risk="cvar", alpha=0.75))
    np.testing.assert_array_equal(of(tail, risk="mean"), of(mean))
    self.assertGreater(np.abs(found - of(mean)).max(), 1e-3)
    with self.assertRaisesRegex(ValueError, "alpha and kappa go with a risk"):
      open_source(models=(tail,), alpha=0.5)

  def test_a_plain_reward_has_no_tail(self):
    with self.assertRaisesRegex(ValueError, "a plain reward has no distri"):
      open_source(models=(model_test.folder(),), risk="cvar", alpha=0.5)

  def test_a_function(self):
    source = open_source(
      function=f"{__name__}:lengths_and_ones", names=("long", "one")
    )
    rewards = source(PROMPTS, RESPONSES)
    np.testing.assert_array_equal(rewards[:, 1], 1)
    np.testing.assert_array_equal(rewards[:, 0], [len(r) for r in RESPONSES])

  def test_a_server(self):
    with http_test.serving() as server:
      source = open_source(url=server.url)
      self.assertEqual(source.mixture_weights, (0.75, 0.25))
      rewards = source(PROMPTS, RESPONSES)
    np.testing.assert_array_equal(rewards[:, 0], [len(r) for r in RESPONSES])

  def test_rewards_of_any_source_are_measured_on_a_file(self):
    seen = dict(calibrate_on=(_file(),), calibrate_limit=2)
    source = open_source(
      function=f"{__name__}:only_lengths", names=("long",), **seen
    )
    rewards = source(["p", "p"], ["aaa", "aaaaaaaa"])
    # Of lengths 4, 2, 6 and 0: mean 3, variance 5.
    np.testing.assert_allclose(rewards[:, 0], [0.0, 5 / np.sqrt(5)], atol=1e-6)
    with self.assertRaisesRegex(ValueError, "one has standard deviation 0.0"):
      open_source(
        function=f"{__name__}:lengths_and_ones", names=("long", "one"), **seen
      )
    model = open_source(models=(model_test.folder(),), **seen)
    texts = ["p"] * 4, ["aaaa", "aa", "aaaaaa", ""]
    np.testing.assert_allclose(model(*texts).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(model(*texts).std(0), 1, atol=1e-5)
    self.assertEqual(model.mixture_weights, (0.75, 0.25))

  def test_a_chat_model_rates(self):
    config = judge_test.CONFIG
    with judge_test.serving(lambda asked: "Fine.\n7") as server:
      judge = dataclasses.replace(config, url=server.url, budget=0.0)
      source = open_source(judge=judge, names=("kind",))
      self.assertEqual(source.names, ("kind",))
      self.assertEqual(source(["p"], ["r"]).tolist(), [[7.0]])

  def test_a_crowd(self):
    source = open_source(
      crowd="two_groups,overlap=0.5,shares=0.9/0.1", calibrated=False
    )
    self.assertEqual(source.names, ("warm", "brief"))
    self.assertEqual(source.mixture_weights, (0.9, 0.1))
    people = crowd.crowd_of("two_groups,overlap=0.5", seed=0)
    prompt, response = "Q: How do I fix bowls?\nA:", " Glue the bowls. Enjoy!"
    np.testing.assert_allclose(
      source([prompt], [response])[0],
      crowd.utilities(people, prompt, response),
      rtol=1e-6,
    )

  def test_several_models_as_a_pessimistic_ensemble(self):
    bare = dict(mixture_weights=None)
    other = {"mean": [0.0, 1.0], "std": [1.0, 3.0]}
    folders = (
      model_test.described(**bare),
      model_test.described(**bare, calibration=other),
    )
    of = lambda **options: open_source(
      models=folders, buckets=(64,), names=("a", "b"), **options
    )
    raw = model_test.raw_rewards()
    each = np.stack(
      [
        (raw - fit["mean"]) / fit["std"]
        for fit in (model_test.CALIBRATION, other)
      ]
    )
    gap = np.abs(each[0] - each[1])  # √2 deviations of two
    for k in (0.0, 1.5):
      source = of(pessimism=k)
      self.assertEqual(source.names, ("a", "b"))
      np.testing.assert_allclose(
        source(PROMPTS, RESPONSES),
        each.mean(axis=0) - k * gap / np.sqrt(2),
        atol=1e-5,
      )
    # Measured on one file, two models of the same weights agree.
    seen = dict(calibrate_on=(_file(),), calibrate_limit=2)
    same = of(pessimism=1.5, **seen)(PROMPTS, RESPONSES)
    np.testing.assert_allclose(
      same,
      open_source(models=folders[:1], buckets=(64,), **seen)(
        PROMPTS, RESPONSES
      ),
      atol=1e-5,
    )

  def test_every_key_is_read(self):
    config = config_of(
      models=(model_test.folder(),), calibrate_on=(_file(),), calibrate_limit=2
    )
    mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1))
    with config_reads.recorded(config) as unread:
      reward_source.open_source(config, mesh)
    self.assertEqual(
      {key for key in unread if not key.startswith("connection.")}, set()
    )

  @parameterized.parameters(
    ({}, "exactly one of .* got none"),
    ({"crowd": "two_groups", "url": "http://a/v1"}, "got url, crowd"),
    ({"url": "a"}, "url must begin with http"),
    ({"crowd": "two_groups", "batch_size": 0}, "batch_size must be >= 1"),
    ({"crowd": "nobody"}, "'nobody'"),
    ({"models": ("a",), "pessimism": 1.0}, "or more `models`, got 1"),
    ({"crowd": "two_groups", "pessimism": 1.0}, "or more `models`, got 0"),
    (
      {"models": ("a", "b"), "pessimism": 1.0, "calibrated": False},
      "raw rewards have no common unit",
    ),
    ({"models": ("a", "b"), "pessimism": -1.0}, "pessimism must be >= 0"),
    ({"judge": judge_test.CONFIG}, "judge.budget must be the dollars"),
    ({"function": "no_such_module:f"}, "no reward function"),
    ({"crowd": "two_groups", "names": ("a",)}, "name the 2 outputs warm, br"),
  )
  def test_errors(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      open_source(**changes)


if __name__ == "__main__":
  absltest.main()
