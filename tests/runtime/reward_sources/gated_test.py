"""A folder of ArmoRM's layout against its formula, written in torch.

The folder is a random one of the published layout: a Llama with a linear head
of several rewards, a gate that reads the prompt, and a matrix that takes length
out of the rewards.
"""

import json
import pathlib
import tempfile

import numpy as np
import pytest
from absl.testing import absltest

from jaxalign.data.records.chat import Turn
from jaxalign.experiments.policy import reward_source
from jaxalign.models.hf import gated
from jaxalign.runtime.distributed import mesh as meshes

torch = pytest.importorskip("torch", reason="parity needs torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
safetensors = pytest.importorskip("safetensors.torch")

HEADS = 3
MARKS = ("<|begin|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
TEMPLATE = (
  "{{ '<|begin|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role']"
  " + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}{% endfor %}"
)
ASKED = ("Why?", "How long is it?", "When?")
SAID = ("so", "no, never", "a while")


def tokenizer_in(folder):
  """A byte-level tokenizer with the marks of Llama 3 and its template."""
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  names = [*MARKS, *alphabet]
  fast = tokenizers.Tokenizer(
    tokenizers.models.BPE({name: i for i, name in enumerate(names)}, [])
  )
  fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  fast.decoder = tokenizers.decoders.ByteLevel()
  fast.add_special_tokens([*MARKS])
  made = transformers.PreTrainedTokenizerFast(
    tokenizer_object=fast,
    bos_token="<|begin|>",
    eos_token="<|eot_id|>",
    pad_token="<|begin|>",
    chat_template=TEMPLATE,
  )
  made.save_pretrained(folder)
  return made


def gated_folder(temperature=2.0):
  """The folder, its tokenizer, and the torch modules that it was made of."""
  folder = tempfile.mkdtemp()
  tokenizer = tokenizer_in(folder)
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=128,
    pad_token_id=tokenizer.pad_token_id,
    bos_token_id=tokenizer.bos_token_id,
    eos_token_id=tokenizer.eos_token_id,
    initializer_range=0.3,
  )
  body = transformers.LlamaModel(config).eval()
  head = torch.nn.Linear(16, HEADS, bias=False)
  layers = [torch.nn.Linear(16, 8), torch.nn.Linear(8, HEADS)]
  transform = torch.eye(HEADS) + 0.2 * torch.randn(HEADS, HEADS)
  tensors = {f"model.{k}": v for k, v in body.state_dict().items()}
  tensors[gated.HEAD] = head.weight
  tensors[gated.TRANSFORM] = transform
  tensors["gating.logit_scale"] = torch.tensor([1.5])
  for number, layer in enumerate(layers):
    for name, value in layer.state_dict().items():
      tensors[f"gating.layers.{number}.{name}"] = value
  safetensors.save_file(
    {k: v.detach().clone() for k, v in tensors.items()},
    f"{folder}/model.safetensors",
    metadata={"format": "pt"},
  )
  described = config.to_dict() | {
    "architectures": [gated.ARCHITECTURE],
    "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.X"},
    "gating_temperature": temperature,
    "gating_hidden_dim": 8,
    "gating_n_hidden": 1,
    "id2label": {str(i): f"LABEL_{i}" for i in range(HEADS)},
  }
  pathlib.Path(folder, "config.json").write_text(json.dumps(described))
  return folder, tokenizer, (body, head, layers, transform, temperature)


def by_formula(tokenizer, parts, asked, said) -> np.ndarray:
  """The score and the heads' rewards of one chat, [1 + HEADS]."""
  body, head, layers, transform, temperature = parts
  turns = [
    {"role": "user", "content": asked},
    {"role": "assistant", "content": said},
  ]
  text = tokenizer.apply_chat_template(turns, tokenize=False)
  ids = tokenizer(text, add_special_tokens=False)["input_ids"]
  begin = len(
    tokenizer(
      text[: text.rindex(gated.TURN)], add_special_tokens=False
    )["input_ids"]
  )  # fmt: skip
  with torch.no_grad():
    hidden = body(input_ids=torch.tensor([ids])).last_hidden_state[0]
    rewards = head(hidden[-1])
    gate = layers[1](torch.relu(layers[0](hidden[begin])))
    weights = 1.5 * torch.softmax(gate / temperature, -1)
    score = (weights * (rewards @ transform)).sum()
  return np.array([score, *rewards])


def opened(folder, **changes):
  config = reward_source.RewardSourceConfig(
    models=(folder,), calibrated=False, batch_size=2, buckets=(64,), **changes
  )
  mesh = meshes.make_mesh(meshes.MeshConfig(1))
  return reward_source.open_source(config, mesh)


class GatedSourceTest(absltest.TestCase):
  def test_the_score_is_that_of_the_formula_beside_the_heads(self):
    folder, tokenizer, parts = gated_folder()
    source = opened(folder)
    self.assertEqual(
      source.names, ("score", "output_0", "output_1", "output_2")
    )
    found = source([(Turn("user", asked),) for asked in ASKED], SAID)
    wanted = [
      by_formula(tokenizer, parts, *texts)
      for texts in zip(ASKED, SAID, strict=True)
    ]
    self.assertGreater(np.ptp(wanted, axis=0).min(), 0.05)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)

  def test_the_gate_reads_the_prompt_and_not_the_answer(self):
    folder, _, parts = gated_folder()
    source = opened(folder)
    one, two = source([(Turn("user", "Why?"),)] * 2, ["so", "no, never"])
    transform = parts[3].numpy()
    gate = gated.load(folder, {"gating_temperature": 2.0})
    self.assertAlmostEqual(gate.scale, 1.5)
    # Two texts, one set of weights: three unknowns would need a third text.
    three = source([(Turn("user", "Why?"),)], ["a while"])[0]
    rows = np.array([one, two, three], np.float64)
    weights = np.linalg.solve(rows[:, 1:] @ transform, rows[:, 0])
    self.assertAlmostEqual(weights.sum(), 1.5, places=3)

  def test_text_without_a_turn_is_refused(self):
    folder, _, _ = gated_folder()
    source = opened(folder)
    source([""], [""])  # as a server tries it
    with self.assertRaisesRegex(ValueError, "prompts must be chat turns"):
      source(["Why?"], ["so"])

  def test_a_gate_that_does_not_fit_is_named(self):
    folder, _, _ = gated_folder()
    file = f"{folder}/model.safetensors"
    tensors = safetensors.load_file(file)
    del tensors["gating.layers.1.weight"]
    safetensors.save_file(tensors, file, metadata={"format": "pt"})
    with self.assertRaisesRegex(ValueError, "the gate must end in 3 weights"):
      opened(folder)
    del tensors["reward_transform_matrix"]
    safetensors.save_file(tensors, file, metadata={"format": "pt"})
    with self.assertRaisesRegex(ValueError, "reward_transform_matrix is miss"):
      opened(folder)


if __name__ == "__main__":
  absltest.main()
