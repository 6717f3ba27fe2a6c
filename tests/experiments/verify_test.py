"""verify passes on good checkpoints and fails on each kind of bad one."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import models
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import verify
from jaxalign.experiments.reports import parity
from jaxalign.models import attention
from tests import checkout
from tests.models.hf import families_test
from tests.models.samples import start

CONFIG = verify.Config(
  seed=0,
  model="",
  rows=3,
  length=12,
  tolerance=1e-4,
  padding_tolerance=1e-4,
  round_trip=True,
)


class VerifyTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enter_context(tempfile.TemporaryDirectory())

  def save(self, family="llama", **changes):
    config = families_test.tiny(
      family, vocab_size=259, max_positions=256, pad_id=256, **changes
    )
    _, params = start(config)
    models.save_pretrained(self.folder, params, config)
    tokenizer_files.byte_tokenizer().save(self.folder)

  def compare(self, **changes):
    pytest.importorskip("torch", reason="verify needs torch")
    config = dataclasses.replace(CONFIG, **changes)
    return {c.name: c for c in verify.compare(config, self.folder)}

  @parameterized.parameters(
    ("llama", dict(), "logits"),
    ("gpt_neox", dict(num_outputs=2), "scores"),
    ("opt", dict(num_outputs=1), "scores"),
  )
  def test_passes(self, family, changes, name):
    self.save(family, **changes)
    checks = self.compare()
    self.assertContainsSubset(
      {
        name,
        "hidden states",
        "padding: left",
        "padding: both",
        "padding: wide",
        "batch mates",
        "round trip",
        "tokenizer: texts that differ",
        "texts",
      },
      checks,
    )
    failed = [check for check in checks.values() if not check.passed]
    self.assertEmpty(failed)

  def test_a_classifier_that_names_no_padding_passes(self):
    self.save(num_outputs=1)
    file = pathlib.Path(self.folder, "config.json")
    file.write_text(
      json.dumps(json.loads(file.read_text()) | {"pad_token_id": -1})
    )
    checks = self.compare()
    self.assertIn("round trip", checks)
    self.assertEmpty([c for c in checks.values() if not c.passed])

  def test_large_logits_are_compared_at_their_own_scale(self):
    config = families_test.tiny(
      "llama", vocab_size=259, max_positions=256, pad_id=256
    )
    _, params = start(config)
    params["final_norm"]["scale"] = 3000 * params["final_norm"]["scale"]
    models.save_pretrained(self.folder, params, config)
    with mock.patch.object(
      parity, "relative_gap", lambda a, b: parity.largest_gap(a, b)
    ):
      absolute = self.compare(round_trip=False)
    checks = self.compare(round_trip=False)
    self.assertFalse(absolute["logits"].passed)
    self.assertEmpty([c for c in checks.values() if not c.passed])

  def test_other_weights_fail(self):
    self.save()
    loaded = verify.weights.load_params

    def wrong(path, config, **options):
      params = loaded(path, config, **options)
      return params | {
        "final_norm": {"scale": params["final_norm"]["scale"] * 1.1}
      }

    with mock.patch.object(verify.weights, "load_params", wrong):
      checks = self.compare(round_trip=False)
    self.assertFalse(checks["logits"].passed)
    self.assertFalse(checks["hidden states"].passed)
    self.assertTrue(checks["padding: left"].passed)

  def test_a_model_whose_positions_count_padding_fails(self):
    self.save("gpt2")
    slots = lambda mask, *_: jnp.broadcast_to(
      jnp.arange(mask.shape[1], dtype=jnp.int32)[None], mask.shape
    )
    with mock.patch.object(attention, "positions_of", slots):
      checks = self.compare(round_trip=False)
    self.assertTrue(checks["logits"].passed)
    self.assertFalse(checks["padding: left"].passed)

  def test_weights_that_are_not_numbers_fail(self):
    self.save()
    file = pathlib.Path(self.folder, "model.safetensors")
    tensors = safetensors.numpy.load_file(str(file))
    tensors["model.norm.weight"][0] = np.nan
    safetensors.numpy.save_file(tensors, str(file), metadata={"format": "pt"})
    checks = self.compare(round_trip=False)
    self.assertFalse(checks["logits"].passed)

  def test_a_tokenizer_beyond_the_embedding_fails(self):
    self.save()
    tokenizer_files.byte_tokenizer().save(self.folder)
    config = families_test.tiny("llama", vocab_size=100, max_positions=64)
    _, params = start(config)
    models.save_pretrained(self.folder, params, config)
    checks = self.compare()
    self.assertFalse(checks["tokenizer: ids beyond the embedding"].passed)

  def test_writes_the_result_and_fails_by_exit_status(self):
    pytest.importorskip("torch", reason="verify needs torch")
    self.save()
    workdir = epath.Path(self.folder) / "out"
    workdir.mkdir()
    config = dataclasses.replace(CONFIG, model=self.folder)
    verify.run(config, workdir)
    result = json.loads((workdir / "verify.json").read_text())
    self.assertTrue(result["passed"])
    with self.assertRaises(SystemExit) as raised:
      verify.run(dataclasses.replace(config, tolerance=1e-12), workdir)
    self.assertEqual(raised.exception.code, 1)
    result = json.loads((workdir / "verify.json").read_text())
    self.assertFalse(result["passed"])

  def test_without_torch_it_says_what_to_install(self):
    self.save()
    with (
      mock.patch.dict(sys.modules, torch=None),
      self.assertRaisesRegex(RuntimeError, r"pip install 'jaxalign\[parity\]'"),
    ):
      verify.compare(CONFIG, self.folder)

  def test_importing_the_stage_does_not_load_torch(self):
    code = (
      "import jaxalign.experiments.verify, sys; print('torch' in sys.modules)"
    )
    done = subprocess.run(
      [sys.executable, "-c", code],
      cwd=checkout.ROOT,
      env=os.environ | {"USE_TORCH": "0"},
      check=True,
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.stdout.strip(), "False")

  @parameterized.parameters(
    (dict(rows=1), "rows must be >= 2, got 1"),
    (dict(tolerance=0.0), "tolerance must be > 0, got 0.0"),
  )
  def test_errors(self, changes, regex):
    with self.assertRaisesRegex(ValueError, regex):
      dataclasses.replace(CONFIG, **changes)


if __name__ == "__main__":
  absltest.main()
