r"""What is in these preferences, and what can be learned from so many?

  python -m jaxalign.experiments.audit --config=configs/audit.py \
      --config.data.train_files="('train.jsonl.gz',)" \
      --config.data.eval_files="('test.jsonl.gz',)" --workdir=runs/audit

One page before any training: rows, lengths, tokens, votes and ties, length and
position bias, duplicates, leakage between the splits, pairs per annotator,
whether there are latent annotator groups, and the smallest differences in
accuracy and ECE that the held-out pairs can show. `:smoke` permutes less.

Measured: whatever it is given; docs/results.md holds audits of real pairs.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("synthetic:two_groups:train",),
    eval_files=("synthetic:two_groups:test",),
    tokenizer="byte",
    buckets=(512,),  # without effect: nothing is padded
    prefetch=0,  # without effect
  )

  if variant == "smoke":
    cfg.audit = dict(num_samples=99, num_rows=2_000)
  return cfg
