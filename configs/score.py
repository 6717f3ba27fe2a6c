r"""What reward does each response get?

  python -m jaxalign.experiments.score --config=configs/score.py \
      --config.model=runs/rm_bt_crowd/model \
      --config.data.eval_files="('my.jsonl.gz',)" --workdir=runs/score

Writes scores.jsonl: the records as read, each with `rewards`, one row per
response and one column per output of the model. `:smoke` is the same on the
synthetic crowd.

Measured: whatever it is given.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=(), eval_files=("synthetic:two_groups:test",))
  cfg.data.update(buckets=(64, 128, 256, 512))
  cfg.model = "runs/rm_bt_crowd/model"
  return cfg
