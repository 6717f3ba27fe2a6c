r"""How likely become the answers your people preferred to a pretrained model?

  python -m jaxalign.experiments.sft --config=configs/sft.py \
      --config.model.init_from=FOLDER \
      --config.data.train_files="('train.jsonl',)" \
      --config.data.eval_files="('test.jsonl.gz',)" --workdir=runs/sft

FOLDER is a language model in Hugging Face layout, or the id of one on the hub;
its tokenizer comes with it. Of each record the prompt and the preferred answer
are read, and the loss is over the answer. All weights are trained, in float32;
`:lora` trains adapters in bfloat16, for models of a billion parameters and
more. `:smoke` is small, on the synthetic crowd.

Measured: not yet run at these sizes.
"""

import ml_collections

VARIANTS = ("full", "lora", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("train.jsonl",), eval_files=("test.jsonl.gz",))
  cfg.data.length = 1024
  cfg.model = dict(init_from="HuggingFaceTB/SmolLM2-135M")
  cfg.optimizer = dict(
    learning_rate=2e-5,  # as in TRL 1.16
    warmup_steps=20,
  )
  cfg.train = dict(
    num_steps=500,  # of 32 rows, into which several texts are packed
    eval_every=100,
    checkpoint_every=100,
  )

  if variant == "lora":
    cfg.model.update(dtype="bfloat16", remat="full", lora=dict(rank=16))
    cfg.optimizer.learning_rate = 2e-4
  if variant == "smoke":
    cfg.data = dict(train_files=("synthetic:two_groups:train",))
    cfg.data.update(eval_files=("synthetic:two_groups:test",), length=128)
    cfg.data.tokenizer = "byte"
    cfg.model = dict(
      architecture=dict(num_layers=1, num_heads=4, embed_dim=32, mlp_dim=64)
    )
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(num_steps=20, batch_size=8, eval_every=10)
  return cfg
