"""A folder as a reward source against rewards computed by hand."""

import functools
import json
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.records.chat import Turn
from jaxalign.data.tokenization import chat_templates, tokenizer_files
from jaxalign.data.tokenization.turns import Rendered
from jaxalign.models import heads
from jaxalign.models.hf import config_map, weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact
from jaxalign.runtime.reward_sources import model

NAMES = ("warm", "brief")
CALIBRATION = {"mean": [1.0, -2.0], "std": [2.0, 0.5]}
CHAT = (Turn("user", "How?"), Turn("assistant", "So."), Turn("user", "Why?"))
PROMPTS = ["Q: a\nA:", "Q: bb\nA:", CHAT, "", "Q: é\nA:"]
RESPONSES = [" yes" * (1 + i % 4) for i in range(len(PROMPTS))]

ALONE = {
  "heads": ["one"],
  "calibration": {"mean": [0.0], "std": [1.0]},
  "mixture_weights": None,
}


@functools.cache
def folder() -> str:
  """A saved reward model of two outputs on bytes, random but fixed."""
  tokenizer = tokenizer_files.byte_tokenizer()
  network = config_map.scratch_config(
    "llama",
    vocab_size=tokenizer.vocab_size,
    num_layers=1,
    num_heads=2,
    embed_dim=8,
    mlp_dim=16,
    max_positions=96,
    tie_embeddings=True,
    num_outputs=len(NAMES),
    pad_id=tokenizer.pad_id,
    bos_id=tokenizer.bos_id,
    eos_id=tokenizer.eos_id,
  )
  token = jnp.zeros((1, 1), jnp.int32)
  params = heads.reward_model(network).init(jax.random.key(3), token, token > 0)
  path = tempfile.mkdtemp()
  description = dict(
    kind="reward",
    heads=NAMES,
    max_length=64,
    calibration=CALIBRATION,
    utilities=None,
    mixture_weights=(0.75, 0.25),
    provenance={},
  )
  artifact.save(
    path,
    params,
    network,
    tokenizer,
    artifact.Description(**description),
  )
  return path


def described(**changes) -> str:
  """The same folder with another `jaxalign.json`."""
  path = epath.Path(tempfile.mkdtemp())
  for file in epath.Path(folder()).iterdir():
    file.copy(path / file.name)
  content = json.loads((path / artifact.DESCRIPTION).read_text())
  (path / artifact.DESCRIPTION).write_text(json.dumps(content | changes))
  return str(path)


def open_source(path=None, *, devices=1, **changes):
  options = dict(batch_size=4, buckets=(32, 64), calibrated=True)
  path = folder() if path is None else path
  return model.load_source(
    path,
    weights.load_config(path),
    mesh=meshes.make_mesh(meshes.MeshConfig(devices, 1, 1)),
    **options | changes,
  )


@functools.cache
def loaded():
  apply, params, _ = weights.load_reward_model(folder())
  return jax.jit(apply), params


@functools.cache
def by_hand(prompt, response, max_length=64) -> np.ndarray:
  """Raw rewards of one text, without padding or batch, [2]."""
  apply, params = loaded()
  tokenizer = tokenizer_files.load_tokenizer(folder())
  if not isinstance(prompt, str):
    prompt = chat_templates.dialogue((*prompt, Turn("assistant", response)))
    response = ""
  ids = tokenizer.encode(prompt + response)[-(max_length - 2) :]
  row = np.array([[tokenizer.bos_id, *ids, tokenizer.eos_id]], np.int32)
  return np.asarray(apply(params, row, np.ones_like(row, bool))[0])


def raw_rewards() -> np.ndarray:
  """Outputs of the model for all texts, [B, 2]."""
  texts = zip(PROMPTS, RESPONSES, strict=True)
  return np.array([by_hand(*text) for text in texts])


class ModelSourceTest(parameterized.TestCase):
  @parameterized.parameters(1, 2)
  def test_rewards_as_by_hand(self, devices):
    source = open_source(devices=devices)
    self.assertEqual(source.names, NAMES)
    self.assertEqual(source.mixture_weights, (0.75, 0.25))
    raw = raw_rewards()
    expected = (raw - CALIBRATION["mean"]) / CALIBRATION["std"]
    rewards = source(PROMPTS, RESPONSES)
    self.assertEqual(rewards.dtype, np.float32)
    np.testing.assert_allclose(rewards, expected, atol=2e-6)
    self.assertGreater(np.ptp(rewards, axis=0).min(), 0.1)
    raw_source = open_source(calibrated=False, devices=devices)
    np.testing.assert_allclose(raw_source(PROMPTS, RESPONSES), raw, atol=1e-6)

  def test_a_response_of_turns_is_read_by_the_template(self):
    source = open_source(calibrated=False)
    one = (Turn("assistant", " yes"),)
    call = (Turn("assistant", "f?"), Turn("tool", "4"), Turn("assistant", "4"))
    rewards = source([CHAT, CHAT, CHAT], [" yes", one, call])
    np.testing.assert_allclose(rewards[0], by_hand(CHAT, " yes"), atol=1e-6)
    np.testing.assert_array_equal(rewards[0], rewards[1])
    np.testing.assert_allclose(
      rewards[2], by_hand((*CHAT, *call[:2]), "4"), atol=1e-6
    )

  @parameterized.parameters(
    ("Q: a\nA:", " yes"),
    ("Q: a\nA:", " yes{eos}"),
    ("{bos}Q: a\nA:", " yes"),
    ("", "{bos}Q: a\nA: yes{eos}"),
  )
  def test_rendered_text_has_its_markers_once(self, prompt, response):
    tokenizer = tokenizer_files.load_tokenizer(folder())
    marks = dict(bos=tokenizer.fast.bos_token, eos=tokenizer.fast.eos_token)
    source = open_source(calibrated=False)
    rewards = source(
      [prompt.format(**marks)], [Rendered(response.format(**marks))]
    )
    np.testing.assert_allclose(
      rewards[0], by_hand("Q: a\nA:", " yes"), atol=1e-6
    )

  def test_company_and_order_change_nothing(self):
    source = open_source()
    rewards = source(PROMPTS, RESPONSES)
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    shuffled = source(
      [PROMPTS[i] for i in order], [RESPONSES[i] for i in order]
    )
    np.testing.assert_allclose(shuffled, rewards[order], atol=2e-6)
    alone = source(PROMPTS[2:3], RESPONSES[2:3])
    np.testing.assert_allclose(alone, rewards[2:3], atol=2e-6)
    self.assertEqual(source([], []).shape, (0, 2))

  def test_one_compilation_per_bucket(self):
    source = open_source()
    for number in (1, 5, 3):
      source(PROMPTS[:number], RESPONSES[:number])
    self.assertEqual(source.traces.count, 2)

  def test_long_prompts_are_cut_as_in_training_and_counted(self):
    source = open_source(calibrated=False, buckets=(32, 96))
    long = "Q: " + "abc" * 40
    np.testing.assert_allclose(
      source([long], [" yes"])[0], by_hand(long, " yes"), atol=1e-6
    )
    self.assertEqual(
      source.counts, {"truncated_prompts": 1, "truncated_responses": 0}
    )
    shorter = open_source(calibrated=False, buckets=(32,))
    np.testing.assert_allclose(
      shorter([long], [" yes"])[0], by_hand(long, " yes", 32), atol=1e-6
    )

  def test_buckets_above_the_models_positions_are_dropped(self):
    path = described(max_length=96)
    with self.assertLogs("jaxalign", "INFO") as logs:
      source = open_source(path, calibrated=False, buckets=(32, 128, 512))
    self.assertIn("(128, 512) exceed the 96 positions of", logs.output[0])
    long = "Q: " + "abc" * 40
    np.testing.assert_allclose(
      source([long], [" yes"])[0], by_hand(long, " yes", 96), atol=1e-6
    )

  @parameterized.parameters(
    (dict(buckets=()), r"positive lengths, got \(\)"),
    (dict(batch_size=3, devices=2), "divisible by data x fsdp .* got 3 and 2"),
  )
  def test_what_does_not_fit_is_said_before_compiling(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      open_source(**changes)

  @parameterized.parameters(
    (dict(calibration=None), "has no calibration; calibrated=False gives"),
    (
      dict(calibration={"mean": [0.0, 0.0], "std": [1.0, 0.0]}),
      "brief has standard deviation 0.0 .* constant reward",
    ),
    (
      dict(calibration={"mean": [0.0], "std": [1.0]}),
      "must hold 2 numbers for the heads warm, brief, got 1",
    ),
    (ALONE, "gives 2 rewards, 1 are named: one"),
    (dict(kind="policy"), "holds a policy, a reward source needs"),
    (
      ALONE
      | dict(
        heads=["x", "y", "z"], readout="labels", utilities=[1.0, 2.0, 3.0]
      ),
      "'labels' must have 3 outputs, got 2",
    ),
  )
  def test_a_description_that_does_not_fit(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      open_source(described(**changes))

  def test_outputs_have_the_names_that_another_program_gave_them(self):
    # As of a regression of several attributes, such as ArmoRM's.
    path = epath.Path(described())
    (path / artifact.DESCRIPTION).unlink()
    file = path / "config.json"
    content = json.loads(file.read_text())
    source = open_source(str(path), calibrated=False)
    self.assertEqual(source.names, ("output_0", "output_1"))
    content["id2label"] = {"0": "helpful", "1": "harmless"}
    file.write_text(json.dumps(content))
    source = open_source(str(path), calibrated=False)
    self.assertEqual(source.names, ("helpful", "harmless"))
    np.testing.assert_allclose(
      source(PROMPTS, RESPONSES)[0],
      by_hand(PROMPTS[0], RESPONSES[0], 96),
      atol=1e-6,
    )
    content["id2label"]["1"] = "helpful"
    file.write_text(json.dumps(content))
    source = open_source(str(path), calibrated=False)
    self.assertEqual(source.names, ("output_0", "output_1"))

  def test_an_unfinished_folder_is_refused(self):
    path = epath.Path(described())
    (path / artifact.DESCRIPTION).unlink()
    with self.assertRaisesRegex(ValueError, "not written by a finished stage"):
      open_source(str(path))


if __name__ == "__main__":
  absltest.main()
