r"""Do contrastive features make Llama-2-7B a better reward model of HH?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_contrastive_llama2_7b.py \
      --workdir=runs/rm_contrastive_llama2_7b

"Secrets of RLHF II", section 3.1: SimCSE on pairs; `:differences`, `:swav` and
`:swav_differences` are its other three variants, and `:translated` has views
that a chat endpoint at localhost makes in place of dropout. From the
supervised model in the folder `llama-2-7b-sft` of JAXALIGN_MODELS, parameters
and optimiser split over the 16 chips of a v5e:4x4. `:shape` is the same from
scratch and needs no folder, `:smoke` is small, on the synthetic crowd; a step's
cost needs no TPU:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_contrastive_llama2_7b.py:shape --topology=v5e:4x4

[S1] is the report (arXiv 2401.06080), [S2] its code, [S4] the paper on MetaRM
(arXiv 2405.00438), [default] a choice where none of them says.

Measured: not yet run. Compiled for v5e:4x4, a step takes 9.34 of 15.75 GiB on
each chip, 4.72 of them activations, and nothing is held whole that should be
split (commit 89b718f, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
"""

import ml_collections

VARIANTS = (
  "full", "differences", "swav", "swav_differences", "translated", "shape",
  "smoke",
)  # fmt: skip


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("hub:Anthropic/hh-rlhf:train",),
    eval_files=("hub:Anthropic/hh-rlhf:test",),
    on_bad_record="skip",
  )  # 512 tokens; the report has 2048 [S2]
  cfg.model = dict(
    init_from="$JAXALIGN_MODELS/llama-2-7b-sft",
    dtype="bfloat16",
    remat="full",
    dropout=0.05,  # [S1 B.2]; there is no second view without
  )
  cfg.recipe = dict(name="contrastive")  # as [S1 B.2]; τ 0.05 is SimCSE's
  cfg.optimizer = dict(learning_rate=5e-6, schedule="linear")  # [S1 B.2]
  cfg.optimizer.update(warmup_steps=100, b2=0.95, eps=1e-6)  # [S2]
  cfg.train = dict(
    num_steps=10050,  # one epoch [S1 B.2]
    batch_size=16,  # [S1 B.2]
    eval_every=1000,
  )
  cfg.mesh = dict(fsdp=16)

  if variant in ("differences", "swav_differences"):
    cfg.recipe.instances = "differences"
  if variant in ("swav", "swav_differences"):
    cfg.recipe.update(
      loss="swav",
      temperature=0.1,  # [default]
      weight=0.1 if variant == "swav" else 0.5,  # [S1 B.2]
      num_prototypes=50 if variant == "swav" else 20,  # [S1 B.2]
      queue_size=128,  # [default]: 32 instances a batch do not fill 50
    )
  if variant == "translated":
    cfg.model.dropout = 0.0
    cfg.recipe.augmentation = "back_translation"
    cfg.recipe.translator = dict(file="runs/translated.jsonl", budget=0.0)
  if variant == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = "llama-2-7b"
  if variant == "smoke":
    cfg.data.train_files = ("synthetic:two_groups:train",)
    cfg.data.eval_files = ("synthetic:two_groups:test",)
    cfg.data.update(tokenizer="byte", max_length=128, buckets=(96, 128))
    cfg.model.update(shape="tiny", dtype="float32", remat="none")
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.mesh.fsdp = 1
    cfg.eval = dict(num_samples=100)
  return cfg
