r"""Do min-norm weights serve a crowd of three groups better than equal ones?

  python -m jaxalign.experiments.train_reward \
      --config=configs/rm_more_crowd.py --workdir=runs/rm_more_crowd

Three sources, the groups of a synthetic crowd that want warmth, brevity and the
topic, as many pairs of each in every batch. Two would not do: two gradients of
one length always weigh one half each. The baseline shares all but λ: equal
weights (`:uniform`). `:control` and `:control_uniform` draw all three sources
from one taste, where λ must change nothing. `:smoke` runs 20 steps of a smaller
model.

Claimed by the paper: lower ECE at the same accuracy. Detectable here, by
`jaxalign.metrics` at 80 % power and 5 %, on 1,000 held-out pairs: accuracies
that differ by 0.04 where two models disagree on a fifth of the pairs, and ECE
that differs by 0.054 at an accuracy of 0.75, more than the paper claims. Seeds
tell the spread of training, not of pairs.

Measured over seeds 0, 1, 2 (mean ± sample standard deviation), tree of 62c7fc6:
ECE 0.025 ± 0.006 against 0.050 ± 0.019 with equal weights, accuracy 0.608 ±
0.015 against 0.593 ± 0.007; in the control ECE 0.011 ± 0.007 against 0.022 ±
0.010, accuracy 0.817 ± 0.008 against 0.813 ± 0.003. The paper's direction, but
not significant, and the control moves the same way.
"""

import ml_collections

VARIANTS = ("full", "uniform", "control", "control_uniform", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("synthetic:three_groups:train",))
  cfg.data.update(eval_files=("synthetic:three_groups:test",))
  cfg.data.update(mixing="stratified", tokenizer="byte", max_length=128)
  cfg.data.update(buckets=(96, 128))
  cfg.model = dict(
    architecture=dict(num_layers=2, num_heads=4, embed_dim=64, mlp_dim=172),
    unroll=2,  # all layers: faster than their scan on a CPU
  )
  cfg.recipe = dict(name="more", num_sources=3)
  cfg.optimizer = dict(learning_rate=3e-3, warmup_steps=20, weight_decay=0.01)
  cfg.train = dict(num_steps=400, batch_size=48, eval_every=100)
  cfg.train.update(checkpoint_every=100, num_reference=256)

  if variant in ("uniform", "control_uniform"):
    cfg.recipe.update(weights="uniform", normalise=None, decay=None)
  if variant in ("control", "control_uniform"):
    crowd = "three_groups,tastes=warmth/warmth/warmth"
    cfg.data.train_files = (f"synthetic:{crowd}:train",)
    cfg.data.eval_files = (f"synthetic:{crowd}:test",)
  if variant == "smoke":
    cfg.model.architecture.update(num_layers=1, embed_dim=32, mlp_dim=64)
    cfg.model.unroll = 1
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(
      num_steps=20, batch_size=12, eval_every=10, checkpoint_every=10
    )
    cfg.eval = dict(num_samples=100)
  return cfg
