r"""What does a pretrained model learn of which answer your people prefer?

  python -m jaxalign.experiments.train_reward --config=configs/reward.py \
      --config.model.init_from=FOLDER \
      --config.data.train_files="('train.jsonl',)" \
      --config.data.eval_files="('test.jsonl.gz',)" --workdir=runs/reward

FOLDER is a language model in Hugging Face layout, or the id of one on the hub;
its tokenizer comes with it. The files are pairs of your own, see docs/data.md;
without a held-out file say `--config.data.eval_files="()"`,
`--config.data.split_by=prompt` and `--config.data.eval_fraction=0.1`. All
weights are trained, in float32. `:lora` trains adapters in bfloat16, for models
of a billion parameters and more; `:head` passes each unique text once and
trains a head alone, which a laptop can do. `:smoke` is small, on the synthetic
crowd.

Measured: not yet run at these sizes; docs/results.md has runs on data.
"""

import ml_collections

VARIANTS = ("full", "lora", "head", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("train.jsonl",), eval_files=("test.jsonl.gz",))
  cfg.model = dict(init_from="HuggingFaceTB/SmolLM2-135M-Instruct")
  cfg.recipe = dict(name="bradley_terry")
  cfg.optimizer = dict(learning_rate=1e-5, warmup_steps=20)
  cfg.train = dict(
    num_steps=500,  # 16,000 pairs: one epoch, or two, of what you have
    eval_every=100,
    checkpoint_every=100,
  )

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
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(num_steps=20, batch_size=8, eval_every=10)
    cfg.eval = dict(num_samples=100)
  return cfg
