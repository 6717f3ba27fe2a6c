r"""What does Pythia-1.4B learn of helpful and harmless on a TPU slice?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_bt_pythia_1_4b.py --workdir=runs/rm_bt_pythia_1_4b

Plain Bradley-Terry on the 160,800 pairs of HH for one epoch, from the folder
`pythia-1.4b` in JAXALIGN_MODELS, parameters and optimiser split over 16 chips.
`:shape` is the same from scratch and needs no folder, for
what a step costs, and `:long` has 8,192 tokens per response, four times what
the checkpoint was made for; `:smoke` is small, on the synthetic crowd. Neither
a TPU nor a checkpoint is needed for

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_bt_pythia_1_4b.py:shape --topology=v5e:4x4

Measured: not yet run; docs/scaling.md has what a step costs.
"""

import ml_collections

VARIANTS = ("full", "shape", "long", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("hub:Anthropic/hh-rlhf:train",))
  cfg.data.update(eval_files=("hub:Anthropic/hh-rlhf:test",))
  cfg.data.update(on_bad_record="skip")
  cfg.model = dict(
    init_from="$JAXALIGN_MODELS/pythia-1.4b", dtype="bfloat16", remat="dots"
  )
  cfg.recipe = dict(name="bradley_terry")
  cfg.optimizer = dict(
    learning_rate=1e-5, warmup_steps=60, b2=0.95, weight_decay=0.01
  )
  cfg.train = dict(
    num_steps=1250,  # one epoch
    batch_size=128,
    eval_every=250,
    checkpoint_every=125,
    export="best",
  )
  cfg.mesh = dict(fsdp=16)
  cfg.eval = dict(batch_size=128)

  if variant in ("shape", "long"):
    cfg.data.tokenizer = "byte"
    cfg.model.shape = "pythia-1.4b"
  if variant == "long":
    cfg.data.update(max_length=8192, buckets=(2048, 8192))
    cfg.model.update(remat="full", attention="splash")
    cfg.train.batch_size = cfg.eval.batch_size = 16
  if variant == "smoke":
    cfg.data.train_files = ("synthetic:two_groups:train",)
    cfg.data.eval_files = ("synthetic:two_groups:test",)
    cfg.data.tokenizer = "byte"
    cfg.model.update(shape="tiny", dtype="float32")
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.mesh.fsdp = 1
    cfg.eval.num_samples = 100
  return cfg
