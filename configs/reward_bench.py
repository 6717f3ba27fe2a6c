r"""What would RewardBench, version 1 or 2, say of this reward model?

  python -m jaxalign.experiments.reward_bench --config=configs/reward_bench.py \
      --config.source.models="('runs/rm/model',)" --workdir=runs/reward_bench

Rewards are raw: a comparison needs no calibration. `:v2` is version 2, best of
four and ties. Both read their rows from the hub; files in the same columns are
`files=('allenai/reward-bench:my.jsonl',)`. `:smoke` judges a synthetic crowd by
its own pairs.

Measured: not yet run on the rows of the hub.
"""

import ml_collections

VARIANTS = ("full", "v2", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.files = ("hub:allenai/reward-bench::filtered",)
  cfg.source = dict(models=("runs/rm/model",), calibrated=False, batch_size=32)
  cfg.source.update(buckets=(128, 256, 512, 1024))

  if variant == "v2":
    cfg.files = ("hub:allenai/reward-bench-2::test",)
  if variant == "smoke":
    cfg.files = ("synthetic:two_groups:test",)
    cfg.source.update(models=(), crowd="two_groups")
  return cfg
