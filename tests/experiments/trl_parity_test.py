"""DPO, IPO, robust DPO and KTO against the trainers of TRL, step by step.

TRL tokenises words, of which each is a token, and the ids that it made are our
batches too. Same weights, AdamW at a constant rate, float64 but for the head of
TRL's models, which is float32.
"""

import dataclasses
import tempfile
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign.algorithms import (
  bradley_terry,
  row_loss,
  train_state,
  unpaired_preference,
)
from jaxalign.algorithms import direct_preference as direct
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import update as contract
from jaxalign.experiments.policy import pair_likelihood
from jaxalign.models import heads
from jaxalign.models.hf import weights

torch = pytest.importorskip("torch", reason="parity needs torch")
trl = pytest.importorskip("trl", reason="parity needs trl")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")

B, T, V, STEPS, RATE, BETA = 4, 16, 40, 10, 1e-3, 0.3
PLAIN = bradley_terry.PLAIN
CASES = (
  ("sigmoid", 0.0, direct.DpoConfig("dpo", BETA), PLAIN),
  ("sigmoid_norm", 0.0, direct.DpoConfig("dpo", BETA, average=True), PLAIN),
  ("ipo", 0.0, direct.IpoConfig("ipo", BETA, average=True), PLAIN),
  (
    "robust",
    0.1,
    direct.RobustDpoConfig("robust_dpo", BETA),
    dataclasses.replace(PLAIN, flip_rate=0.1),
  ),
)


def word_tokenizer():
  """A fast tokenizer of the words w3, w4, ..., each a token."""
  names = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(3, V))]
  model = tokenizers.models.WordLevel(
    {name: i for i, name in enumerate(names)}, unk_token="<unk>"
  )
  fast = tokenizers.Tokenizer(model)
  fast.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=fast,
    pad_token="<pad>",
    eos_token="<eos>",
    unk_token="<unk>",
  )


def texts(seed):
  """Rows of prompt, chosen and rejected; chosen ones take the later words."""
  rng = np.random.default_rng(seed)
  words = lambda low, high: " ".join(
    f"w{i}" for i in rng.integers(low, high, rng.integers(2, 6))
  )
  return [
    {
      "prompt": words(3, V),
      "chosen": f" {words(20, V)} <eos>",
      "rejected": f" {words(3, 20)} <eos>",
    }
    for _ in range(B * STEPS)
  ]


def relative(ours, theirs):
  """Norm of the difference over the norm, across all tensors."""
  gap = sum(np.sum((ours[k] - theirs[k]) ** 2) for k in theirs)
  size = sum(np.sum(theirs[k] ** 2) for k in theirs)
  return float(np.sqrt(gap / size))


class TrlParityTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    # Those of the peers are theirs to mend.
    self.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
      vocab_size=V,
      hidden_size=16,
      intermediate_size=24,
      num_hidden_layers=2,
      num_attention_heads=2,
      max_position_embeddings=T,
      pad_token_id=0,
      eos_token_id=1,
      bos_token_id=1,
      initializer_range=0.3,
      tie_word_embeddings=False,
    )
    self.folder = tempfile.mkdtemp()
    transformers.LlamaForCausalLM(config).save_pretrained(self.folder)

  def trainer(self, loss_type, smoothing):
    """TRL's trainer of the model in double precision, and its batches."""
    load = lambda: transformers.LlamaForCausalLM.from_pretrained(
      self.folder, dtype=torch.float64
    )
    made = trl.DPOTrainer(
      model=load(),
      ref_model=load(),
      args=trl.DPOConfig(
        output_dir=tempfile.mkdtemp(),
        beta=BETA,
        loss_type=[loss_type],
        label_smoothing=smoothing,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        per_device_train_batch_size=B,
        disable_dropout=True,
        report_to=[],
      ),
      train_dataset=datasets.Dataset.from_list(texts(0)),
      processing_class=word_tokenizer(),
    )
    made.model.train()
    rows = [made.train_dataset[i] for i in range(B * STEPS)]
    return made, [rows[i : i + B] for i in range(0, len(rows), B)]

  def batch(self, rows):
    """Our batch of TRL's ids."""
    tokens = np.zeros((B, 2, T), np.int32)
    mask, response = np.zeros((2, B, 2, T), bool)
    for i, row in enumerate(rows):
      prompt = row["prompt_ids"]
      for side, name in enumerate(("chosen_ids", "rejected_ids")):
        ids = [*prompt, *row[name]]
        tokens[i, side, : len(ids)] = ids
        mask[i, side, : len(ids)] = True
        response[i, side, len(prompt) : len(ids)] = True
    return {
      "tokens": jnp.array(tokens),
      "mask": jnp.array(mask),
      "response": jnp.array(response),
      "where": jnp.ones(B, bool),
      "margin": jnp.zeros(B),
      "chosen_prob": jnp.ones(B),
      "row": jnp.arange(B, dtype=jnp.int32),
    }

  def kto_trainer(self):
    """TRL's KTOTrainer, wanted responses at the even places."""
    rows = [
      {"prompt": row["prompt"], "completion": row[name], "label": label}
      for i, row in enumerate(texts(1))
      for name, label in ((("chosen", True), ("rejected", False))[i % 2],)
    ]
    load = lambda: transformers.LlamaForCausalLM.from_pretrained(
      self.folder, dtype=torch.float64
    )
    made = trl.KTOTrainer(
      model=load(),
      ref_model=load(),
      args=trl.KTOConfig(
        output_dir=tempfile.mkdtemp(),
        beta=BETA,
        desirable_weight=1.3,
        undesirable_weight=0.8,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=B,
        disable_dropout=True,
        train_sampling_strategy="sequential",
        report_to=[],
      ),
      train_dataset=datasets.Dataset.from_list(rows),
      processing_class=word_tokenizer(),
    )
    made.model.train()
    rows = [made.train_dataset[i] for i in range(B * STEPS)]
    return made, [rows[i : i + B] for i in range(0, len(rows), B)]

  def test_kto(self):
    theirs, batches = self.kto_trainer()
    renamed = [
      [
        row
        | {
          "chosen_ids": row["completion_ids"],
          "rejected_ids": row["KL_completion_ids"],
        }
        for row in rows
      ]
      for rows in batches
    ]
    config = unpaired_preference.KtoConfig(
      "kto", BETA, desirable_weight=1.3, undesirable_weight=0.8
    )
    self.compare(
      theirs,
      batches,
      [
        self.batch(rows)
        | {"chosen_prob": jnp.array([float(row["label"]) for row in rows])}
        for rows in renamed
      ],
      lambda read: unpaired_preference.kto(
        direct.pair_forward(read, config.reward), config
      ),
    )

  def as_torch_names(self, params, network):
    with tempfile.TemporaryDirectory() as folder:
      weights.save_pretrained(folder, params, network)
      model = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float64
      )
      return {k: v.detach().numpy() for k, v in model.named_parameters()}

  @parameterized.parameters(*CASES)
  def test_loss_gradient_and_steps(self, loss_type, smoothing, config, loss):
    theirs, batches = self.trainer(loss_type, smoothing)
    rows = config.rows(loss)
    self.compare(
      theirs,
      batches,
      [self.batch(given) for given in batches],
      lambda read: row_loss.couple(
        direct.pair_forward(read, config.reward), rows, row_loss.mean(rows)
      ),
    )

  def compare(self, theirs, batches, ours_of, make_objective):
    """Ten steps of both, from the same weights on the same ids."""
    named = list(theirs.model.named_parameters())
    torch_optimizer = torch.optim.AdamW(
      [p for _, p in named], lr=RATE, weight_decay=0.0
    )
    _, start, network = weights.load_causal_lm(self.folder, dtype="float64")
    model = heads.causal_lm(network)
    start = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), start)
    read = pair_likelihood.reader(network, model, dropout=False)
    objective = make_objective(read)
    optimizer = optimizers.make_optimizer(
      optimizers.OptimizerConfig(
        learning_rate=RATE,
        schedule="constant",
        warmup_steps=0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        clip_norm=None,
      ),
      num_steps=STEPS,
      axes=model.axes,
    )
    update = jax.jit(contract.make_update(objective, optimizer))
    gradient = jax.jit(contract.make_gradient(objective))
    reference = jax.jit(lambda batch: read(start, batch).log_probs[..., 0])
    state = train_state.init_state(start, optimizer)
    found, expected = [], []
    for step, (given, batch) in enumerate(zip(batches, ours_of, strict=True)):
      batch["ref_log_probs"] = reference(batch)
      torch_optimizer.zero_grad()
      value = theirs.compute_loss(theirs.model, theirs.data_collator(given))
      value.backward()
      if step == 0:
        keys = contract.row_keys(jax.random.key(0), batch["row"])
        ours = gradient(state.params, batch | {"key": keys}, ()).gradient
        difference = relative(
          self.as_torch_names(ours, network),
          {n: p.grad.numpy().copy() for n, p in named},
        )
        self.assertLess(difference, 1e-6)
      torch_optimizer.step()
      state, scalars = update(state, batch, jax.random.key(1))
      found.append(float(scalars["train/loss"]))
      expected.append(value.item())
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    self.assertGreater(abs(expected[0] - expected[-1]), 1e-3)
    difference = relative(
      self.as_torch_names(state.params, network),
      {n: p.detach().numpy() for n, p in named},
    )
    self.assertLess(difference, 1e-6)


if __name__ == "__main__":
  absltest.main()
