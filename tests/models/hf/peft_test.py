"""Adapter folders against PEFT itself, both ways, and damaged ones."""

import dataclasses
import json
import pathlib
import tempfile
import warnings

import jax
import numpy as np
import pytest
import safetensors.numpy
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models import lora
from jaxalign.models.hf import peft as peft_files
from tests.models import lora_test
from tests.models.hf import families_test
from tests.models.samples import start

TINY = {
  "llama": families_test.tiny("llama", num_kv_heads=1, max_positions=16),
  "gpt2": families_test.tiny("gpt2", max_positions=16, activation="gelu"),
  "gpt_neox": families_test.tiny(
    "gpt_neox", max_positions=16, qkv_bias=True, out_bias=True
  ),
}
LORA = lora.LoraConfig(rank=2, alpha=3.0, targets=("key", "out", "up"))


def rows():
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, 12, (3, 8)).astype(np.int32)
  mask = np.ones(tokens.shape, bool)
  mask[1, 5:] = False
  return np.where(mask, tokens, 0), mask


class PeftTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.base, self.folder = folder / "base", folder / "adapters"

  def torch_base(self, config):
    transformers = pytest.importorskip("transformers")
    name = (
      "CausalLM" if config.num_outputs is None else "SequenceClassification"
    )
    auto = getattr(transformers, f"AutoModelFor{name}")
    return auto.from_pretrained(self.base).eval()

  def torch_logits(self, model):
    torch = pytest.importorskip("torch")
    tokens, mask = rows()
    with torch.no_grad():
      return model(
        input_ids=torch.tensor(tokens).long(),
        attention_mask=torch.tensor(mask).long(),
      ).logits.numpy()

  def our_logits(self, config, params):
    out = models.model_of(config).apply(params, *rows())
    return out.logits if config.num_outputs is None else out.rewards

  @parameterized.product(family=sorted(TINY), num_outputs=(None, 2))
  def test_there_and_back(self, family, num_outputs):
    peft = pytest.importorskip("peft", reason="parity needs peft")
    config = dataclasses.replace(TINY[family], num_outputs=num_outputs)
    _, params = start(config)
    models.save_pretrained(self.base, params, config)
    adapters = lora_test.drawn(config, LORA)
    peft_files.save_adapters(
      self.folder, adapters, params, config, LORA, base=str(self.base)
    )
    with warnings.catch_warnings():
      # PEFT asks transformers something under its older name.
      warnings.simplefilter("ignore", FutureWarning)
      model = peft.PeftModel.from_pretrained(
        self.torch_base(config), self.folder
      )
    expected = self.torch_logits(model.eval())
    merged = lora.merge(params, adapters, config, LORA)
    got = self.our_logits(config, merged)
    where = rows()[1] if num_outputs is None else slice(None)
    np.testing.assert_allclose(
      np.asarray(got)[where], expected[where], atol=1e-5
    )
    # What PEFT writes of it reads back as what we had.
    model.save_pretrained(self.folder)
    loaded, low_rank = peft_files.load_adapters(self.folder, params, config)
    self.assertEqual(set(loaded), set(adapters))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), loaded, adapters
    )
    again = lora.merge(params, loaded, config, low_rank)
    np.testing.assert_allclose(self.our_logits(config, again), got, atol=1e-6)

  def test_the_head_does_not_depend_on_that_of_the_backbone(self):
    config = dataclasses.replace(TINY["llama"], num_outputs=1)
    _, params = start(config)
    adapters = lora_test.drawn(config, LORA)
    peft_files.save_adapters(
      self.folder, adapters, params, config, LORA, base="base"
    )
    other = params | {"score": {"kernel": params["score"]["kernel"] + 1.0}}
    loaded, low_rank = peft_files.load_adapters(self.folder, other, config)
    np.testing.assert_allclose(
      self.our_logits(config, lora.merge(other, loaded, config, low_rank)),
      self.our_logits(config, lora.merge(params, adapters, config, LORA)),
      atol=1e-5,
    )

  def test_damaged_folders_are_named(self):
    config = dataclasses.replace(TINY["llama"], num_outputs=1)
    _, params = start(config)
    load = lambda: peft_files.load_adapters(self.folder, params, config)
    with self.assertRaisesRegex(
      FileNotFoundError, "adapter_config.json is mis"
    ):
      load()
    peft_files.save_adapters(
      self.folder,
      lora_test.drawn(config, LORA),
      params,
      config,
      LORA,
      base="base",
    )
    described = self.folder / "adapter_config.json"
    text = described.read_text()
    for changes, regex in (
      (dict(use_dora=True), "use_dora must be False, got True"),
      (dict(bias="all"), "bias must be 'none', got 'all'"),
      (dict(rank_pattern={"q_proj": 4}), "rank_pattern must be"),
      (dict(modules_to_save=["lm_head"]), "modules_to_save must be"),
      (dict(peft_type="IA3"), "peft_type must be 'LORA', got 'IA3'"),
    ):
      described.write_text(json.dumps(json.loads(text) | changes))
      with self.assertRaisesRegex(ValueError, regex):
        load()
    described.write_text(text)
    file = self.folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    key = "base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight"
    for change, regex in (
      (lambda t: t.pop(key), f"tensor {key} is missing"),
      (lambda t: t.update({key: t[key].T.copy()}), rf"{key} must have shape"),
      (lambda t: t.update(odd=t[key]), "tensor odd does not belong"),
      (lambda t: t.pop("base_model.model.score.weight"), "score.weight is mis"),
    ):
      tensors = safetensors.numpy.load_file(str(file))
      change(tensors)
      safetensors.numpy.save_file(tensors, str(file))
      with self.assertRaisesRegex(ValueError, regex):
        load()
      file.write_bytes(whole)
    file.unlink()
    with self.assertRaisesRegex(FileNotFoundError, "adapter_model.safetensors"):
      load()
    (self.folder / "adapter_model.bin").write_bytes(b"")
    with self.assertRaisesRegex(
      ValueError, "refused to read adapter_model.bin"
    ):
      load()


if __name__ == "__main__":
  absltest.main()
