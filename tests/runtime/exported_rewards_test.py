"""A reward model's folder gives in transformers the rewards it gives here."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.models import heads
from jaxalign.models.hf import config_map, weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact
from jaxalign.runtime.reward_sources import model as model_rewards
from tests.data.tokenization import older_tokenizers_test as older
from tests.data.tokenization import tokenizer_files_test as folders

torch = pytest.importorskip("torch", reason="parity needs torch")
transformers = pytest.importorskip("transformers")

PAIRS = [
  ("Q: why?", " <eos> so"),
  ("there was", " a little girl."),
  ("", "é ☕"),
]
CHATS = [
  ((folders.CHAT[0],), folders.CHAT[1].content),
  ((Turn("system", "be fair"), *folders.CHAT, folders.CHAT[0]), "no <eos>"),
]


def pretrained(make, **declared):
  folder = tempfile.mkdtemp()
  make(folder, **declared)
  return tokenizer_files.load_tokenizer(folder)


def older_neox():
  """The end of a text is the padding, which transformers does not read."""
  folder = pathlib.Path(tempfile.mkdtemp())
  older.pretrained(folders.neox).save_pretrained(str(folder))
  (folder / "jaxalign.json").write_text("{}")
  return tokenizer_files.load_tokenizer(str(folder))


TOKENIZERS = {
  "byte": tokenizer_files.byte_tokenizer,
  "own": lambda: tokenizer_files.train_tokenizer(folders.TEXTS, vocab_size=280),
  "llama": lambda: pretrained(folders.llama),
  "llama_template": lambda: pretrained(
    folders.llama, chat_template=folders.LLAMA, pad_token="</s>"
  ),
  "neox": lambda: pretrained(folders.neox),
  "older_neox": older_neox,
}


def saved(tokenizer, *, rows=None, family="llama") -> str:
  """A random reward model with this tokenizer, by `artifact.save`."""
  network = config_map.scratch_config(
    family,
    vocab_size=tokenizer.vocab_size if rows is None else rows,
    num_layers=1,
    num_heads=2,
    embed_dim=8,
    mlp_dim=16,
    max_positions=128,
    num_outputs=1,
    pad_id=tokenizer.pad_id,
  )
  token = jnp.zeros((1, 1), jnp.int32)
  params = heads.reward_model(network).init(jax.random.key(3), token, token > 0)
  params = jax.tree.map(lambda x: 2 * x, params)  # far from all alike
  folder = tempfile.mkdtemp()
  description = artifact.Description(
    kind="reward",
    heads=("reward",),
    max_length=128,
    calibration=None,
    utilities=None,
    mixture_weights=None,
    provenance={},
  )
  artifact.save(folder, params, network, tokenizer, description)
  return folder


def opened(folder, **changes):
  options = dict(batch_size=4, buckets=(128,), calibrated=False)
  return model_rewards.load_source(
    folder,
    weights.load_config(folder),
    mesh=meshes.make_mesh(meshes.MeshConfig(1, 1, 1)),
    **options | changes,
  )


def rewards(folder, texts) -> np.ndarray:
  prompts, responses = zip(*texts, strict=True)
  return opened(folder)(prompts, responses)[:, 0]


def of_template(folder, chats) -> np.ndarray:
  """Scores of `apply_chat_template` by the classifier, [B]."""
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  kind = transformers.AutoModelForSequenceClassification
  model = kind.from_pretrained(folder)
  found = []
  for prompt, response in chats:
    turns = [turn._asdict() for turn in (*prompt, Turn("assistant", response))]
    ids = tokenizer.apply_chat_template(turns, return_tensors="pt")
    found.append(model(**ids).logits[0, 0].item())
  return np.array(found)


def foreign(make, name) -> str:
  """A random classifier as transformers saves it."""
  folder = tempfile.mkdtemp()
  make(folder)
  sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
  sizes |= (
    dict(ffn_dim=16, word_embed_proj_dim=16)
    if make is folders.opt
    else dict(intermediate_size=16)
  )
  kind = getattr(transformers, name)
  torch.manual_seed(0)
  rows = tokenizer_files.load_tokenizer(folder).vocab_size
  config = kind.config_class(
    vocab_size=rows, pad_token_id=1, num_labels=1, **sizes
  )
  kind(config).save_pretrained(folder)
  return folder


class ExportedRewardsTest(parameterized.TestCase):
  def check_export(self, kind):
    folder = saved(TOKENIZERS[kind]())
    pipe = transformers.pipeline("text-classification", model=folder)
    texts = [prompt + response for prompt, response in PAIRS]
    ours = rewards(folder, PAIRS + CHATS)
    self.assertGreater(np.ptp(ours), 0.1)
    near = 1e-5 * max(1.0, np.max(np.abs(ours)))  # of float32 at that size
    for batch_size in (1, len(texts)):  # alone, and with padding
      found = pipe(texts, function_to_apply="none", batch_size=batch_size)
      np.testing.assert_allclose(
        [one["score"] for one in found], ours[: len(PAIRS)], atol=near
      )
    np.testing.assert_allclose(
      of_template(folder, CHATS), ours[len(PAIRS) :], atol=near
    )

  @parameterized.parameters("byte", "llama_template")
  def test_pipelines_and_templates_give_our_rewards(self, kind):
    self.check_export(kind)

  @parameterized.parameters(*sorted({*TOKENIZERS} - {"byte", "llama_template"}))
  @pytest.mark.slow
  def test_so_with_every_tokenizer(self, kind):
    self.check_export(kind)

  def check_foreign(self, make, name):
    folder = foreign(make, name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
      folder
    )
    given = lambda text: tokenizer(
      text, return_tensors="pt", return_token_type_ids=False
    )
    expected = [model(**given(p + r)).logits[0, 0].item() for p, r in PAIRS]
    texts = PAIRS
    if tokenizer.chat_template is not None:
      texts = PAIRS + CHATS
      expected = [*expected, *of_template(folder, CHATS)]
    np.testing.assert_allclose(rewards(folder, texts), expected, atol=1e-5)
    with self.assertRaisesRegex(
      ValueError, "raw rewards with calibrated=False"
    ):
      opened(folder, calibrated=True)

  def test_a_folder_of_others_is_served_as_they_read_it(self):
    self.check_foreign(folders.neox, "GPTNeoXForSequenceClassification")

  @parameterized.parameters(
    (folders.with_eos, "LlamaForSequenceClassification"),
    (folders.opt, "OPTForSequenceClassification"),
  )
  @pytest.mark.slow
  def test_so_are_those_of_other_families(self, make, name):
    self.check_foreign(make, name)

  def test_a_token_that_no_row_embeds_is_found_at_load(self):
    folder = saved(tokenizer_files.byte_tokenizer(), rows=258)
    with self.assertRaisesRegex(
      ValueError, r"has 259 tokens, the reward model embeds 258: .* = 258"
    ):
      opened(folder)


if __name__ == "__main__":
  absltest.main()
