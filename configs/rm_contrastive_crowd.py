r"""Does contrasting two dropout views help a reward model of the crowd?

  python -m jaxalign.experiments.train_reward \
      --config=configs/rm_contrastive_crowd.py \
      --workdir=runs/rm_contrastive_crowd

The twin of configs/rm_contrastive_llama2_7b.py that a CPU can run: SimCSE on
pairs with the weight and temperature of the report, dropout 0.05. `:swav` has
prototypes and a queue in its place, `:masking` and `:deletion` change texts in
place of activations; `:smoke` runs 20 steps of a smaller model.

Claimed before the first run: a mean effect on held-out accuracy over plain
training on the same two views, which is `--config.recipe.weight=0.0`. Over
three paired seeds a difference below 0.015 is not significant, as 4.3 standard
errors of a difference whose deviation is 0.006 between seeds.

Measured: over three seeds SimCSE changes the accuracy by -0.033 ± 0.024, to
0.722 ± 0.006 from 0.755 ± 0.006: it harms here. `:swav` is not yet run.
docs/results.md has the table.
"""

import ml_collections

VARIANTS = ("full", "swav", "masking", "deletion", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("synthetic:two_groups:train",))
  cfg.data.update(eval_files=("synthetic:two_groups:test",), tokenizer="byte")
  cfg.data.update(max_length=128, buckets=(96, 128))
  cfg.model = dict(
    architecture=dict(num_layers=2, num_heads=4, embed_dim=64, mlp_dim=172),
    dropout=0.05,
    unroll=2,  # all layers: faster than their scan on a CPU
  )
  cfg.recipe = dict(name="contrastive")
  cfg.optimizer = dict(learning_rate=3e-3, warmup_steps=20, weight_decay=0.01)
  cfg.train = dict(
    num_steps=200, eval_every=200, checkpoint_every=200, num_reference=256
  )

  if variant == "swav":
    cfg.recipe.update(loss="swav", weight=0.1, temperature=0.1)
    cfg.recipe.update(num_prototypes=50, queue_size=128)
  if variant in ("masking", "deletion"):
    cfg.model.dropout = 0.0
    cfg.recipe.augmentation = variant
  if variant == "masking":
    cfg.recipe.mask_token = 256  # the byte tokenizer's padding
  if variant == "smoke":
    cfg.model.architecture.update(num_layers=1, embed_dim=32, mlp_dim=64)
    cfg.model.unroll = 1
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.eval = dict(num_samples=100)
  return cfg
