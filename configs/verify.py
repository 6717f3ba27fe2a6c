r"""Does a local checkpoint compute here what it computes in torch?

  python -m jaxalign.experiments.verify --config=configs/verify.py \
      --config.model=FOLDER --workdir=runs/verify

Compares logits or scores, hidden states, every side of padding, batch mates,
the way to disk and back, and the tokenizer; prints a table, writes verify.json,
and ends with exit status 1 unless everything passes. Needs torch, which
`pip install -e ".[parity]"` brings. Limits are shares of the largest value.
`:smoke` takes fewer and shorter rows.

Measured: whatever it is given.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.model = "$JAXALIGN_DATA/stories260k_lm"

  if variant == "smoke":
    cfg.rows = 3
    cfg.length = 16
  return cfg
