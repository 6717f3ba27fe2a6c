"""Folders as they lie on hubs, edited by hand: read as transformers reads them.

Each case changes the config.json of a saved model, and both sides load that.
"""

import json
import pathlib
import tempfile
import warnings

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models.hf import config_map
from jaxalign.models.hf.config_map import FAMILIES
from jaxalign.models.hf.family import Required

pytest.importorskip("torch", reason="parity needs torch")
import transformers  # noqa: E402

from tests.models import parity_test  # noqa: E402

ABSENT = object()
YARN = {"rope_type": "yarn", "factor": 4.0}
NEWER = {"rope_type": "default", "rope_theta": 500.0}


class RealFoldersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enter_context(tempfile.TemporaryDirectory())
    self.file = pathlib.Path(self.folder, "config.json")
    self.tokens, self.mask = parity_test.padded()

  def edit(self, changes):
    theirs = json.loads(self.file.read_text()) | changes
    kept = {k: v for k, v in theirs.items() if v is not ABSENT}
    self.file.write_text(json.dumps(kept))

  def torch_outputs(self, config):
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # of markers outside the vocabulary
      model = parity_test.auto(self.folder, config)
    return parity_test.torch_outputs(model, self.tokens, self.mask)[0]

  @parameterized.named_parameters(
    (
      "both_places",
      "qwen2",
      {},
      dict(
        rope_parameters=NEWER,
        rope_theta=500.0,
        rope_scaling=YARN | dict(original_max_position_embeddings=16),
      ),
    ),
    (
      "both_places_neox",
      "gpt_neox",
      dict(rotary_pct=0.5),
      dict(
        rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5},
        rotary_pct=0.5,
        rope_scaling={"type": "linear", "factor": 2.0},
      ),
    ),
    ("empty_older_place", "llama", {}, dict(rope_scaling={})),
    ("yarn_factor_alone", "qwen2", {}, dict(rope_scaling=YARN)),
    (
      "yarn_of_its_authors",
      "llama",
      {},
      dict(
        rope_scaling={
          "type": "yarn",
          "factor": 4.0,
          "original_max_position_embeddings": 16,
          "attn_factor": 1.7,
          "finetuned": True,
        }
      ),
    ),
    (
      "yarn_mscale",
      "llama",
      {},
      dict(
        rope_scaling=YARN
        | dict(
          original_max_position_embeddings=16, mscale=1.5, mscale_all_dim=0.7
        )
      ),
    ),
    (
      "yarn_without_factor",
      "llama",
      {},
      dict(
        rope_scaling={
          "rope_type": "yarn",
          "factor": None,
          "original_max_position_embeddings": 8,
          "beta_fast": 0,
          "truncate": None,
        }
      ),
    ),
    (
      "llama3_of_the_whole_context",
      "llama",
      {},
      dict(
        rope_scaling={
          "rope_type": "llama3",
          "factor": 8.0,
          "low_freq_factor": 1.0,
          "high_freq_factor": 4.0,
        }
      ),
    ),
    (
      "smollm2",
      "llama",
      {},
      {
        "is_llama_config": True,
        "rope_interleaved": False,
        "transformers.js_config": {"dtype": "q4"},
        "max_sequence_length": 2048,
      },
    ),
    ("no_padding", "llama", {}, dict(pad_token_id=-1, architectures=None)),
    (
      "gpt2_markers",
      "gpt2",
      {},
      dict(bos_token_id=50256, eos_token_id=50256, _num_labels=1),
    ),
    ("no_architecture", "gpt2", {}, dict(architectures=None)),
    (
      "no_architecture_but_a_score",
      "llama",
      dict(num_labels=3),
      dict(architectures=None),
    ),
    (
      "training_fields",
      "qwen2",
      dict(num_labels=2),
      dict(
        keys_to_ignore_at_inference=["past_key_values"],
        classifier_dropout=0.0,
        attn_implementation="eager",
      ),
    ),
  )
  def test_equals_torch(self, family, fields, changes):
    parity_test.build(family, fields).save_pretrained(self.folder)
    self.edit(changes)
    config = models.load_config(self.folder)
    self.assertEqual(config.num_outputs, fields.get("num_labels"))
    apply, params, config = parity_test.ours(config)(self.folder)
    expected = self.torch_outputs(config)
    got = np.asarray(apply(params, self.tokens, self.mask))
    if config.num_outputs is None:
      got, expected = got[self.mask], expected[self.mask]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)
    back = pathlib.Path(self.folder, "back")
    if config.num_outputs is None:
      models.save_pretrained(back, params, config)
      self.assertEqual(models.load_config(back), config)

  def test_markers_outside_the_vocabulary_are_none(self):
    parity_test.build("gpt2", {}).save_pretrained(self.folder)
    self.edit(dict(bos_token_id=50256, eos_token_id=[2, 50256]))
    config = models.load_config(self.folder)
    self.assertIsNone(config.bos_id)
    self.assertEqual(config.eos_id, (2,))
    self.edit(dict(eos_token_id=-1, pad_token_id=61))
    config = models.load_config(self.folder)
    self.assertEqual((config.eos_id, config.pad_id), (None, None))

  @parameterized.parameters(*FAMILIES)
  def test_what_is_left_out_is_the_default_of_transformers(self, family):
    theirs = transformers.AutoConfig.for_model(family)
    default = theirs.to_dict()
    for field in FAMILIES[family].fields:
      ours = field.default
      if field.theirs == "sliding_window" and callable(ours):
        ours = ours({})
      elif ours is Required or ours is None or callable(ours):
        continue
      if not field.optional:
        self.assertEqual(ours, default[field.theirs], field.theirs)

  def test_a_base_that_would_be_lost_is_refused(self):
    parity_test.build("qwen2", {}).save_pretrained(self.folder)
    theta = {"rope_type": "default", "rope_theta": 500.0}
    self.edit(dict(rope_parameters=theta, rope_scaling=YARN))
    with self.assertRaisesRegex(
      ValueError, "rope_theta is 500.0 in rope_parameters, .*10000.0 without it"
    ):
      models.load_config(self.folder)
    config = transformers.AutoConfig.from_pretrained(self.folder)
    self.assertEqual(config.rope_parameters["rope_theta"], 10_000.0)

  def test_interleaved_pairs_are_refused(self):
    parity_test.build("llama", {}).save_pretrained(self.folder)
    self.edit(dict(rope_interleaved=True))
    with self.assertRaisesRegex(ValueError, "rope_interleaved must be False"):
      models.load_config(self.folder)

  def test_a_window_is_there_unless_null(self):
    parity_test.build("mistral", {}).save_pretrained(self.folder)
    self.edit(dict(sliding_window=ABSENT))
    self.assertEqual(models.load_config(self.folder).sliding_window, 4096)
    self.edit(dict(sliding_window=None))
    self.assertIsNone(models.load_config(self.folder).sliding_window)

  def test_a_scratch_model_keeps_its_defaults(self):
    self.assertNotIn("sliding_window", config_map.family_defaults("mistral"))


if __name__ == "__main__":
  absltest.main()
