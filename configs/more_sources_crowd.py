r"""Does the calibration of two sources improve with the number of others?

  for seed in 0 1 2; do
    python -m jaxalign.experiments.pipeline \
        --config=configs/more_sources_crowd.py --config.seed=$seed \
        --config.crowd_seed=$seed --workdir=runs/more_sources_$seed
  done
  python docs/tabulate_ece.py runs/more_sources_*

Reward models of the first K = 2, 3, 4, 5 sources of a crowd, as many pairs of
each in every batch, by MORE and by equal weights, which share all but λ. The
table is of the first two sources, which are in all of them, as figure 6 of the
paper is (arXiv 2312.07401). With K = 2 both methods are the same, as two
gradients of one length weigh one half each. `:smoke` runs every stage at its
smallest.

Claimed by the paper: their ECE falls with K, and below that of a model per
source. The alternative is that a source more is a taste more, with which two
others are learned less well. A difference of two ECE below 0.05 on 1,000 pairs
is within noise, so it takes seeds.

Measured: not yet run.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  brief = variant == "smoke"
  sources = ("warm", "brief", "friends", "fans", "critics")
  few = ",num_annotators=40,num_test_annotators=16" if brief else ""
  files = (f"data.train_files=('synthetic:eight_groups{few}:train',)",)
  files += (f"data.eval_files=('synthetic:eight_groups{few}:test',)",)
  if not brief:  # 60 pairs fall into 2, 3, 4 and 5 sources
    files += ("train.batch_size=60",)
  even = ("weights=uniform", "normalise=None", "decay=None")
  steps = []
  for k in (2, 3) if brief else (2, 3, 4, 5):
    chosen = (f"data.only_sources={sources[:k]}", f"recipe.num_sources={k}")
    for name, weights in {"more": (), "even": even}.items():
      changes = (*files, *chosen, *(f"recipe.{key}" for key in weights))
      steps.append((f"{name}_{k}", changes))
  cfg = ml_collections.ConfigDict()
  file = "configs/rm_more_crowd.py" + (":smoke" if brief else "")
  cfg.steps = tuple(
    dict(name=name, stage="train_reward", config=file, changes=changes)
    for name, changes in steps
  )
  return cfg
