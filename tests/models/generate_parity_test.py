"""Greedy decoding against transformers in every family, and on a real model."""

import json
import os
import pathlib
import tempfile

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign import models

torch = pytest.importorskip("torch", reason="parity needs torch")
import transformers  # noqa: E402

from tests.models import parity_test  # noqa: E402
from tests.models.parity_test import BASES, PAD, VOCAB  # noqa: E402

FIELDS = {
  "gpt_neox": dict(rotary_pct=0.5),
  "mistral": dict(sliding_window=4),
  "llama": dict(rope_parameters=parity_test.LLAMA3_ROPE),
}
NEW = 9


def prompts():
  rng = np.random.default_rng(0)
  tokens = rng.integers(3, VOCAB, (4, 10)).astype(np.int32)
  mask = np.ones(tokens.shape, bool)
  # On the left, where transformers wants it.
  mask[1, :6] = mask[2, :1] = mask[3, :9] = False
  return np.where(mask, tokens, PAD), mask


def padding_is_penalised() -> bool:
  """Whether this release counts the padding of a prompt as a repetition."""
  try:
    transformers.RepetitionPenaltyLogitsProcessor(
      1.4, prompt_ignore_length=torch.zeros(1, dtype=torch.long)
    )
  except ValueError:
    return True
  return False


class GenerateParityTest(parameterized.TestCase):
  @parameterized.product(
    family=sorted(BASES),
    options=(dict(), dict(repetition_penalty=1.4, min_new_tokens=4)),
  )
  def test_greedy(self, family, options):
    if options and padding_is_penalised():
      self.skipTest(
        f"transformers {transformers.__version__} penalises padding"
      )
    torch_model = parity_test.build(family, FIELDS.get(family, {}))
    tokens, mask = prompts()
    # A third of the vocabulary ends a row, so that some end early.
    ends = list(range(2, VOCAB, 3))
    out = torch_model.generate(
      torch.tensor(tokens).long(),
      attention_mask=torch.tensor(mask).long(),
      do_sample=False,
      max_new_tokens=NEW,
      pad_token_id=PAD,
      eos_token_id=ends,
      output_logits=True,
      return_dict_in_generate=True,
      **options,
    )
    theirs = out.sequences[:, tokens.shape[1] :].numpy()
    logits = torch.stack(out.logits, 1)
    chosen = torch.log_softmax(logits, -1).gather(
      -1, torch.tensor(theirs)[..., None]
    )
    with tempfile.TemporaryDirectory() as folder:
      torch_model.save_pretrained(folder)
      _, params, config = models.load_causal_lm(folder)
    got = models.generate(
      config,
      params,
      tokens,
      mask,
      keys=jax.random.split(jax.random.key(0), 4),
      max_new_tokens=NEW,
      temperature=0.0,
      eos_ids=ends,
      pad_id=PAD,
      **options,
    )
    width = theirs.shape[1]
    np.testing.assert_array_equal(got.tokens[:, :width], theirs)
    self.assertFalse(np.any(got.mask[:, width:]))
    where = np.asarray(got.mask[:, :width])
    np.testing.assert_allclose(
      np.asarray(got.log_probs)[:, :width][where],
      chosen[..., 0].numpy()[where],
      atol=1e-4,
    )

  def test_a_trained_model_tells_its_story(self):
    if "JAXALIGN_DATA" not in os.environ:
      self.skipTest("JAXALIGN_DATA is not set")
    folder = pathlib.Path(os.environ["JAXALIGN_DATA"], "stories260k_lm")
    _, params, config = models.load_causal_lm(folder)
    golden = json.loads((folder / "golden.json").read_text())["greedy"]
    self.assertNotEmpty(golden)
    for story in golden[:3]:
      prompt = np.array([story["prompt_ids"]], np.int32)
      expected = story["ids"][prompt.shape[1] :][:80]
      got = models.generate(
        config,
        params,
        prompt,
        prompt >= 0,
        keys=jax.random.split(jax.random.key(0), 1),
        max_new_tokens=len(expected),
        temperature=0.0,
        pad_id=0,
      )
      np.testing.assert_array_equal(got.tokens[0], expected)


if __name__ == "__main__":
  absltest.main()
