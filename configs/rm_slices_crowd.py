r"""What does a reward model learn from one tenth of the pairs by strength?

  python -m jaxalign.experiments.train_reward \
      --config=configs/rm_slices_crowd.py --workdir=runs/rm_slices_crowd \
      --config.recipe.low=0.1 --config.recipe.high=0.2

The decile study of Wang et al., "Secrets of RLHF in large language models part
II", 2024, section 2.3, on a crowd. Reads what `configs/denoise_crowd.py` wrote;
so does `:smoke`, 20 steps. The same tenth with its labels swapped is

  --config.recipe.policy=flip --config.recipe.fraction=0.2

Claimed before any run, on 2,000 held-out pairs of the noise-free judge
(`labels:judge`): the weakest two tenths, whose labels the noise swapped, teach
less than chance, and swapped as much as the middle; the middle teaches at least
as much as the strongest tenth.

Measured, seeds 0 and 1, accuracy by tenth from the weakest: 0.13 and 0.12, 0.20
and 0.23, 0.52 and 0.50, 0.64 and 0.68, 0.85 and 0.87, 0.93 and 0.94, 0.92 and
0.91, 0.92 and 0.93, 0.92 and 0.92, 0.90 and 0.90. Swapped, the weakest two
teach 0.92 and 0.91, 0.81 and 0.80. About a minute a run on a loaded machine;
docs/results.md has the table.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  crowd = "one_taste,temperature=0.05,label_noise=0.4,judge=true"
  cfg.data = dict(
    train_files=("runs/denoise_crowd/train.jsonl.gz",),
    eval_files=(f"synthetic:{crowd},num_test_annotators=100:test",),
    tokenizer="byte",
    max_length=128,
    buckets=(96, 128),
  )
  cfg.model = dict(
    architecture=dict(num_layers=1, num_heads=4, embed_dim=32, mlp_dim=64)
  )
  cfg.recipe = dict(name="denoised", policy="keep", low=0.0, high=0.1)
  cfg.optimizer = dict(learning_rate=3e-3, warmup_steps=10, weight_decay=0.01)
  cfg.train = dict(
    num_steps=60,  # ten epochs of a tenth
    eval_every=60,
    checkpoint_every=60,
    num_reference=200,
  )
  cfg.eval = dict(num_samples=200)

  if variant == "smoke":
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.eval = dict(num_samples=100)
  return cfg
