r"""Which latent groups are among your people, and what does each reward?

  python -m jaxalign.experiments.train_reward --config=configs/mixture.py \
      --config.model.init_from=FOLDER \
      --config.data.train_files="('train.jsonl',)" \
      --config.data.eval_files="('test.jsonl.gz',)" --workdir=runs/mixture

`reward.py` with a head per group, found by EM over `annotator`; known groups
are not needed, and serve scoring alone. `--config.recipe.num_components` is
their number, which the stage `mixture_sizes` compares. New people are judged
fairly where held-out files have none of those who train, which
`--config.data.split_by=annotator` checks. All weights are trained, in float32;
`:lora` trains adapters in bfloat16, `:head` the heads alone on features that
are computed once, `:smoke` is small, on the synthetic crowd.

Measured: not yet run at these sizes; `rm_mixture_crowd.py` and docs/results.md
have a crowd whose groups are known.
"""

import ml_collections

VARIANTS = ("full", "lora", "head", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("train.jsonl",), eval_files=("test.jsonl.gz",))
  cfg.model = dict(init_from="HuggingFaceTB/SmolLM2-135M-Instruct")
  cfg.recipe = dict(name="mixture", num_components=2, restarts=2)
  cfg.recipe.steps_per_round = 100  # five rounds
  cfg.optimizer = dict(learning_rate=1e-5, warmup_steps=20)
  cfg.train = dict(num_steps=500, eval_every=100, checkpoint_every=100)

  if variant == "lora":
    cfg.model.update(dtype="bfloat16", remat="full", lora=dict(rank=16))
    cfg.optimizer.learning_rate = 1e-4
  if variant == "head":
    cfg.model.trainable = "head"
    cfg.optimizer.learning_rate = 1e-3
  if variant == "smoke":
    cfg.data = dict(
      train_files=("synthetic:two_groups:train",),
      eval_files=("synthetic:two_groups:test",),
      buckets=(128,),
    )
    cfg.model = dict(
      architecture=dict(num_layers=1, num_heads=4, embed_dim=32, mlp_dim=64)
    )
    cfg.data.update(tokenizer="byte", max_length=128)
    cfg.recipe.steps_per_round = 5
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(num_steps=20, batch_size=8, eval_every=10)
    cfg.eval = dict(num_samples=100)
  return cfg
