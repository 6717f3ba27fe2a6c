r"""How much do groups gain from the best of n samples, and when too much?

  python -m jaxalign.experiments.best_of_n --config=configs/best_of_n.py \
      --config.policy=runs/sft_crowd/model \
      --config.source.models="('runs/rm_bt_crowd/model',)" \
      --workdir=runs/best_of_n

MORE's protocol: 4 samples per prompt, the reward model picks one, and
best.jsonl is what the `sft` stage tunes on next. eval.json and the page hold
proxy and oracle reward against KL = log n - (n - 1) / n, per group; with more
samples the curve goes further. `:candidates` picks among the 11 rated answers
per prompt of a file instead, and has its judge as the oracle. `:smoke` picks
among the crowd's own responses by one group's utility.

Measured as a step of configs/best_of_n_crowd.py over three seeds, commit
dc88440: the best of four by one reward takes the majority's true utility from
-0.15 ± 0.13 to 0.70 ± 0.14 and the minority's from -0.72 ± 0.14 to -1.01 ±
0.14.
"""

import ml_collections

VARIANTS = ("full", "candidates", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(files=("synthetic:two_groups:train",), limit=1000)
  cfg.policy = "runs/sft_crowd/model"
  cfg.sampling = dict(max_prompt_length=48, max_new_tokens=64)
  cfg.source = dict(models=("runs/rm_bt_crowd/model",), batch_size=32)
  cfg.oracle = dict(crowd="two_groups", batch_size=32)

  if variant == "candidates":
    cfg.data.files = ("$JAXALIGN_DATA/bon_tulu16_NC/candidates.jsonl.gz",)
    cfg.policy = cfg.oracle = None
    cfg.num_samples = 11  # those that the judge has rated
    cfg.source.buckets = (512,)
  if variant == "smoke":
    cfg.policy = None
    cfg.data.files = ("synthetic:two_groups,num_annotators=10:train",)
    cfg.data.limit = 40
    cfg.num_samples = 2
    cfg.source.update(models=(), crowd="two_groups")
    cfg.pick_by = "warm"
    cfg.chunk = 16
    cfg.num_resamples = 50
  return cfg
