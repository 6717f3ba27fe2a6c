"""The reward step against torch: GPT-2 sequence classification under AdamW.

The torch half is what a TRL reward trainer runs on a batch: both responses in
one forward, −log σ(chosen − rejected), AdamW that spares biases and LayerNorm,
a learning rate that falls linearly to 0. Same weights, same batches, float64.
"""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest

from jaxalign.algorithms import bradley_terry, train_state
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import update as contract
from jaxalign.models import heads
from jaxalign.models.hf import weights

torch = pytest.importorskip("torch", reason="parity needs torch")
transformers = pytest.importorskip("transformers")

B, T, V, STEPS, RATE, DECAY = 8, 12, 40, 20, 3e-3, 0.1


def batches() -> list[dict[str, np.ndarray]]:
  """Right-padded pairs whose chosen side uses the upper half of the words."""
  rng = np.random.default_rng(0)
  made = []
  for _ in range(STEPS):
    lengths = rng.integers(4, T + 1, size=(B, 2))
    words = rng.integers(1, V // 2, size=(B, 2, T))
    words[:, 0] += V // 2 - 1
    mask = np.arange(T) < lengths[..., None]
    made.append({"tokens": np.where(mask, words, 0), "mask": mask})
  return made


def relative(ours: dict, theirs: dict) -> float:
  """Norm of the difference over the norm, across all tensors."""
  gap = sum(np.sum((ours[k] - theirs[k]) ** 2) for k in theirs)
  size = sum(np.sum(theirs[k] ** 2) for k in theirs)
  return float(np.sqrt(gap / size))


class TorchParityTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    torch.manual_seed(0)
    config = transformers.GPT2Config(
      vocab_size=V,
      n_positions=T,
      n_embd=16,
      n_layer=2,
      n_head=2,
      resid_pdrop=0.0,
      embd_pdrop=0.0,
      attn_pdrop=0.0,
      num_labels=1,
      pad_token_id=0,
      bos_token_id=0,
      eos_token_id=0,
      initializer_range=0.2,
    )
    self.torch_model = transformers.GPT2ForSequenceClassification(config)
    self.torch_model = self.torch_model.double().train()
    self.folder = tempfile.mkdtemp()
    self.torch_model.save_pretrained(self.folder)
    _, self.params, self.network = weights.load_reward_model(
      self.folder, dtype="float64"
    )
    self.batches = batches()

  def as_torch_names(self, params):
    """Our tree under Hugging Face names and layouts, by saving it."""
    with tempfile.TemporaryDirectory() as folder:
      weights.save_pretrained(folder, params, self.network)
      model = transformers.GPT2ForSequenceClassification.from_pretrained(folder)
      return {k: v.detach().numpy() for k, v in model.named_parameters()}

  def torch_loss(self, batch):
    tokens = torch.tensor(batch["tokens"].swapaxes(0, 1).reshape(2 * B, T))
    mask = torch.tensor(batch["mask"].swapaxes(0, 1).reshape(2 * B, T))
    rewards = self.torch_model(tokens, attention_mask=mask.long()).logits
    chosen, rejected = rewards[:, 0].chunk(2)
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()

  def torch_parameters(self):
    return {
      k: v.detach().numpy().copy()
      for k, v in self.torch_model.named_parameters()
    }

  def test_gradients_and_twenty_steps(self):
    spared = lambda name: name.endswith("bias") or ".ln_" in name
    named = list(self.torch_model.named_parameters())
    torch_optimizer = torch.optim.AdamW(
      [
        {"params": [p for n, p in named if not spared(n)]},
        {"params": [p for n, p in named if spared(n)], "weight_decay": 0.0},
      ],
      lr=RATE,
      weight_decay=DECAY,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
      torch_optimizer, lambda step: 1 - step / STEPS
    )
    model = heads.reward_model(self.network)
    optimizer = optimizers.make_optimizer(
      optimizers.OptimizerConfig(
        learning_rate=RATE,
        schedule="linear",
        warmup_steps=0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=DECAY,
        clip_norm=None,
      ),
      num_steps=STEPS,
      axes=model.axes,
    )
    objective = bradley_terry.bradley_terry(
      model.apply,
      bradley_terry.PairLossConfig(
        labels="hard", flip_rate=0.0, margin=None, centering=0.0
      ),
      dropout=False,
    )
    gradient = jax.jit(contract.make_gradient(objective))
    update = jax.jit(contract.make_update(objective, optimizer))
    start = self.torch_parameters()
    state = train_state.init_state(self.params, optimizer)
    ours, theirs = [], []
    for step, batch in enumerate(self.batches):
      rows = {
        "tokens": jnp.array(batch["tokens"], jnp.int32),
        "mask": jnp.array(batch["mask"]),
        "where": jnp.ones(B, bool),
        "margin": jnp.zeros(B),
        "chosen_prob": jnp.ones(B),
        "row": jnp.arange(B, dtype=jnp.int32),
      }
      torch_optimizer.zero_grad()
      loss = self.torch_loss(batch)
      loss.backward()
      if step == 0:
        keys = contract.row_keys(jax.random.key(0), rows["row"])
        grads = gradient(state.params, rows | {"key": keys}, ()).gradient
        expected = {n: p.grad.numpy().copy() for n, p in named}
        self.assertLess(relative(self.as_torch_names(grads), expected), 1e-10)
      torch_optimizer.step()
      schedule.step()
      state, scalars = update(state, rows, jax.random.key(1))
      ours.append(float(scalars["train/loss"]))
      theirs.append(loss.item())
    # optax computes the schedule in float32, hence not 1e-10.
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    self.assertGreater(theirs[0] - theirs[-1], 0.1)
    end = self.torch_parameters()
    travelled = {k: end[k] - start[k] for k in end}
    mine = self.as_torch_names(state.params)
    moved = {k: mine[k] - start[k] for k in end}
    self.assertLess(relative(moved, travelled), 1e-6)


if __name__ == "__main__":
  absltest.main()
