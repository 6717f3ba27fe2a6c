r"""What does a single pooled reward model learn from two groups?

  python -m jaxalign.experiments.train_reward \
      --config=configs/rm_bt_crowd.py --workdir=runs/rm_bt_crowd

The synthetic crowd has a majority that likes warm answers and a minority that
likes short ones. Plain Bradley-Terry fits their average, so it should come near
the best accuracy that any single ranking can reach and stay below the ceiling
of a model that knows each annotator's group; `jaxalign.data.synthetic.oracle`
gives both. `:smoke` runs 20 steps of a smaller model.

Measured over seeds 0, 1, 2 on one crowd (mean ± sample standard deviation):
accuracy 0.750 ± 0.004 over all, 0.848 ± 0.006 for the majority and 0.355 ±
0.005 for the minority, against 0.789 for the best single ranking and 0.878 for
a model that knows the group. 82 to 240 s a run beside other work on two CPU
cores, commit e29738f; docs/results.md has the rest.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("synthetic:two_groups:train",))
  cfg.data.update(eval_files=("synthetic:two_groups:test",), tokenizer="byte")
  cfg.data.update(max_length=128, buckets=(96, 128))
  cfg.model = dict(
    architecture=dict(num_layers=2, num_heads=4, embed_dim=64, mlp_dim=172),
    unroll=2,  # all layers: faster than their scan on a CPU
  )
  cfg.recipe = dict(name="bradley_terry")
  cfg.optimizer = dict(learning_rate=3e-3, warmup_steps=20, weight_decay=0.01)
  cfg.train = dict(
    num_steps=400, eval_every=100, checkpoint_every=100, num_reference=256
  )

  if variant == "smoke":
    cfg.model.architecture.update(num_layers=1, embed_dim=32, mlp_dim=64)
    cfg.model.unroll = 1
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.eval = dict(num_samples=100)
  return cfg
