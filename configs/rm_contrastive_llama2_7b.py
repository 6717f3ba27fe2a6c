r"""Do contrastive features make Llama-2-7B a better reward model of HH?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_contrastive_llama2_7b.py \
      --workdir=runs/rm_contrastive_llama2_7b

"Secrets of RLHF II", section 3.1: SimCSE on pairs; `:differences`, `:swav` and
`:swav_differences` are its other three variants. From the supervised model in
the folder `llama-2-7b-sft` of JAXALIGN_MODELS, parameters and optimiser split
over the 16 chips of a v5e:4x4. `:shape` is the same from scratch and needs no
folder, `:smoke` is small, on the synthetic crowd; a step's cost needs no TPU:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_contrastive_llama2_7b.py:shape --topology=v5e:4x4

[S1] is the report (arXiv 2401.06080), [S2] its code, [S4] the paper on MetaRM
(arXiv 2405.00438), [default] a choice where none of them says.

Measured: not yet run. Compiled for v5e:4x4, a step takes 9.34 of 15.75 GiB on
each chip, 4.72 of them activations, and nothing is held whole that should be
split (commit 89b718f, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in (
    "full",
    "differences",
    "swav",
    "swav_differences",
    "shape",
    "smoke",
  ):
    raise ValueError(
      "variant must be 'full', 'differences', 'swav', 'swav_differences', "
      f"'shape' or 'smoke', got {variant!r}"
    )
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.data = dict(
    train_files=("hub:Anthropic/hh-rlhf:train",),
    eval_files=("hub:Anthropic/hh-rlhf:test",),
    split_by=ml_collections.config_dict.placeholder(str),
    eval_fraction=ml_collections.config_dict.placeholder(float),
    tokenizer=ml_collections.config_dict.placeholder(str),
    chat_template=ml_collections.config_dict.placeholder(str),
    max_length=512,  # tokens, prompt and response; the report has 2048 [S2]
    buckets=(256, 512),  # padded lengths, one compilation each
    on_bad_record="skip",
    extra_columns=(),
    crowd_seed=0,
    streaming=False,
    mixing="proportional",
    pairs_per_source=ml_collections.config_dict.placeholder(int),
    prefetch=4,  # batches
  )
  cfg.model = dict(
    init_from=ml_collections.config_dict.placeholder(str),
    architecture=ml_collections.config_dict.placeholder(dict),
    dropout=0.05,  # [S1 B.2]; there is no second view without
    dtype="bfloat16",
    remat="full",
    unroll=1,
  )
  cfg.model.init_from = "$JAXALIGN_MODELS/llama-2-7b-sft"
  cfg.recipe = dict(
    name="contrastive",
    loss="simcse",
    instances="pairs",
    weight=1.0,  # [S1 B.2]
    temperature=0.05,  # [default], that of SimCSE
    num_prototypes=ml_collections.config_dict.placeholder(int),
    epsilon=0.05,  # [default], that of SwAV, as are the three below
    num_iters=3,
    prototype_learning_rate=1e-3,  # [default]
    queue_size=0,
  )
  cfg.loss = dict(
    labels="hard",
    flip_rate=0.0,
    margin=ml_collections.config_dict.placeholder(str),
    centering=0.0,
  )
  cfg.optimizer = dict(
    learning_rate=5e-6,  # [S1 B.2] [S4]
    schedule="linear",
    warmup_steps=100,  # [S2]
    b1=0.9,  # [S2]
    b2=0.95,  # [S2]
    eps=1e-6,  # [S2]
    weight_decay=0.0,  # [S2]
    clip_norm=1.0,  # [S2]
  )
  cfg.train = dict(
    num_steps=10050,  # one epoch [S1 B.2]
    batch_size=16,  # pairs per step over all devices [S1 B.2]
    accumulation=1,
    parallel="jit",
    eval_every=1000,
    checkpoint_every=500,
    keep_last=2,
    keep_best=1,
    export="last",
    max_bad_steps=10,
    num_reference=512,  # training pairs that calibrate the exported model
  )
  cfg.mesh = dict(data=-1, fsdp=16, tensor=1, rules=())
  cfg.eval = dict(batch_size=64, num_bins=10, num_samples=1000)

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
  if variant == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.init_from = None
    cfg.model.architecture = dict(
      family="llama",
      num_layers=32,
      num_heads=32,
      num_kv_heads=32,
      embed_dim=4096,
      mlp_dim=11008,
      vocab_size=32000,
    )
  if variant == "smoke":
    cfg.data.update(
      train_files=("synthetic:two_groups:train",),
      eval_files=("synthetic:two_groups:test",),
      tokenizer="byte",
      max_length=128,
      buckets=(96, 128),
    )
    cfg.model.update(init_from=None, dtype="float32", remat="none")
    cfg.model.architecture = dict(
      family="llama",
      num_layers=1,
      num_heads=4,
      num_kv_heads=4,
      embed_dim=32,
      mlp_dim=64,
    )
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.mesh.fsdp = 1
    cfg.eval.num_samples = 100
  return cfg
