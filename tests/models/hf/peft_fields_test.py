"""Every field of PEFT's own config is read, known to be idle, or refused."""

import dataclasses
import json
import pathlib
import tempfile
import warnings

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models import lora
from jaxalign.models.hf import peft as peft_files
from jaxalign.models.hf import peft_fields
from tests.models.hf import families_test, peft_test
from tests.models.samples import start

BASE = families_test.tiny(
  "llama", num_kv_heads=2, max_positions=16, num_outputs=2, embed_dim=8
)
MINIMAL = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": []}


class ReadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def read(self, **changes):
    file = self.folder / peft_fields.CONFIG
    file.write_text(json.dumps(MINIMAL | changes))
    return peft_fields.read(self.folder)

  def test_every_field_of_peft_has_a_place(self):
    peft = pytest.importorskip("peft", reason="the fields are those of peft")
    fields = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q"])
    fields.save_pretrained(str(self.folder))
    known = {*peft_fields.ALLOWED, *peft_fields.IGNORED, *peft_fields.READ}
    written = json.loads((self.folder / peft_fields.CONFIG).read_text())
    self.assertContainsSubset(set(written), known)
    self.assertEqual(peft_fields.read(self.folder).targets, ["q"])
    # A variant of PEFT computes something else wherever it is set.
    for field in dataclasses.fields(peft.LoraConfig):
      if field.metadata.get("is_lora_variant"):
        self.assertNotIn(field.name, peft_fields.IGNORED)
        self.assertNotIn(True, peft_fields.ALLOWED[field.name])

  @parameterized.parameters(
    (dict(init_lora_weights="pissa"), "init_lora_weights must be .*'pissa'"),
    (dict(init_lora_weights="pissa_niter_4"), "got 'pissa_niter_4'; let PEFT"),
    (dict(init_lora_weights="olora"), "got 'olora'"),
    (dict(init_lora_weights="corda"), "got 'corda'"),
    (dict(init_lora_weights="loftq"), "got 'loftq'"),
    (dict(init_lora_weights="lora_ga"), "got 'lora_ga'"),
    (
      dict(alora_invocation_tokens=[3]),
      "alora_invocation_tokens must be empty",
    ),
    (dict(kasa_config={"beta": 1.0}), "kasa_config must be empty"),
    (dict(next_year=1), "unknown field next_year = 1"),
    (dict(use_rslora=True), "use_rslora must be False, got True"),
    (dict(task_type="TOKEN_CLS"), "task_type must be 'SEQ_CLS' or"),
    (dict(peft_type=None), "peft_type must be 'LORA', got None"),
    (dict(r="8"), "r must be an int >= 1, got '8'"),
    (dict(r=True), "r must be an int >= 1, got True"),
    (dict(lora_alpha=float("nan")), "lora_alpha must be a number > 0, got nan"),
    (dict(lora_alpha=None), "lora_alpha must be a number > 0, got None"),
    (dict(target_modules=None), "target_modules must be a list of .*got None"),
    (dict(target_modules=[1]), "target_modules must be a list"),
    (
      dict(target_modules="q_proj("),
      "target_modules is not a regular expression",
    ),
  )
  def test_what_would_compute_something_else_is_refused(self, changes, regex):
    with self.assertRaisesRegex(ValueError, f"{peft_fields.CONFIG}: .*{regex}"):
      self.read(**changes)

  @parameterized.parameters(b"", b'{"peft_type": "LO', b"[]", b"\xff{}", b"7")
  def test_a_damaged_file_is_one_line(self, content):
    file = self.folder / peft_fields.CONFIG
    file.write_bytes(content)
    with self.assertRaisesRegex(ValueError, f"^{file}: [^\n]*$"):
      peft_fields.read(self.folder)

  def test_what_is_idle_is_not_read(self):
    idle = dict(
      next_year=None,
      lora_dropout=0.1,
      loftq_config={},
      init_lora_weights="gaussian",
      eva_config={"rho": 2.0},
      fan_in_fan_out=True,
    )
    self.assertEqual(self.read(**idle), self.read())


class TargetsTest(parameterized.TestCase):
  """What PEFT makes of a folder, and what we make of it."""

  def setUp(self):
    super().setUp()
    self.peft = pytest.importorskip("peft", reason="parity needs peft")
    self.helper = peft_test.PeftTest()
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.helper.base, self.folder = folder / "base", folder / "adapters"
    _, self.params = start(BASE)
    models.save_pretrained(self.helper.base, self.params, BASE)
    self.enter_context(warnings.catch_warnings())
    # PEFT asks transformers something under its older name.
    warnings.simplefilter("ignore")

  def write(self, **fields):
    """A folder of PEFT whose factors are all at work."""
    torch = pytest.importorskip("torch")
    config = self.peft.LoraConfig(
      task_type="SEQ_CLS", r=2, lora_alpha=4, **fields
    )
    model = self.peft.get_peft_model(self.helper.torch_base(BASE), config)
    torch.manual_seed(0)
    with torch.no_grad():
      for name, parameter in model.named_parameters():
        if "lora_" in name:
          parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(self.folder)

  def theirs(self):
    model = self.peft.PeftModel.from_pretrained(
      self.helper.torch_base(BASE), self.folder
    )
    return self.helper.torch_logits(model.eval())

  def ours(self):
    adapters, low_rank = peft_files.load_adapters(
      self.folder, self.params, BASE
    )
    merged = lora.merge(self.params, adapters, BASE, low_rank)
    return self.helper.our_logits(BASE, merged)

  def test_initial_values_are_idle_or_refused(self):
    for init in (True, False, "gaussian", "orthogonal", "mica", "eva"):
      with self.subTest(init=init):
        self.write(target_modules=["k_proj"], init_lora_weights=init)
        np.testing.assert_allclose(self.ours(), self.theirs(), atol=1e-5)
    for init in ("pissa", "olora"):
      with self.subTest(init=init):
        self.write(target_modules=["k_proj"], init_lora_weights=init)
        with self.assertRaisesRegex(ValueError, f"got '{init}'"):
          self.ours()
        # The reason: what PEFT gives is not what the tensors alone say.
        plain = json.loads((self.folder / peft_fields.CONFIG).read_text())
        plain["init_lora_weights"] = True
        (self.folder / peft_fields.CONFIG).write_text(json.dumps(plain))
        as_plain = self.ours()
        plain["init_lora_weights"] = init
        (self.folder / peft_fields.CONFIG).write_text(json.dumps(plain))
        self.assertGreater(np.abs(as_plain - self.theirs()).max(), 1e-3)

  @parameterized.parameters(
    dict(target_modules="all-linear"),
    dict(target_modules=r".*\.(k_proj|up_proj)"),
    dict(target_modules=["self_attn.v_proj", "down_proj"]),
    dict(target_modules="all-linear", exclude_modules=["o_proj"]),
    dict(target_modules=["k_proj", "up_proj"], exclude_modules=r".*\.up_proj"),
  )
  def test_modules_are_chosen_as_peft_chooses(self, **fields):
    self.write(**fields)
    np.testing.assert_allclose(self.ours(), self.theirs(), atol=1e-5)
    # The words of the file, not what PEFT made of them when it was written.
    file = self.folder / peft_fields.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    np.testing.assert_allclose(self.ours(), self.theirs(), atol=1e-5)

  def test_tensors_that_peft_would_leave_are_refused(self):
    self.write(target_modules=["k_proj", "up_proj"])
    file = self.folder / peft_fields.CONFIG
    text = json.loads(file.read_text())
    for targets, regex in (
      (["k_proj"], "up_proj.lora_A.weight does not belong .*target_modules"),
      (["k_proj", "up_proj", "v_proj"], "v_proj.lora_A.weight is missing"),
      (r".*\.0\.self_attn\.k_proj", "in all layers, got model.layers.0"),
      (["lm_head"], "is not a projection of a Llama"),
    ):
      file.write_text(json.dumps(text | {"target_modules": targets}))
      with self.assertRaisesRegex(ValueError, regex):
        self.ours()


if __name__ == "__main__":
  absltest.main()
