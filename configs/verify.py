r"""Does a local checkpoint compute here what it computes in torch?

  python -m jaxalign.experiments.verify --config=configs/verify.py \
      --config.model=FOLDER --workdir=runs/verify

Compares logits or scores, hidden states, every side of padding, batch mates,
the way to disk and back, and the tokenizer; prints a table, writes verify.json,
and ends with exit status 1 unless everything passes. Needs torch, which
`pip install -e ".[parity]"` brings. `:smoke` takes fewer and shorter rows.

Measured: whatever it is given.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0
  cfg.model = "$JAXALIGN_DATA/stories260k_lm"
  cfg.rows = 8
  cfg.length = 128  # tokens
  cfg.tolerance = 1e-4  # of a logit, score or hidden state, in float32
  cfg.padding_tolerance = 1e-4
  cfg.round_trip = True

  if variant == "smoke":
    cfg.rows = 3
    cfg.length = 16
  return cfg
