r"""Does flipping the weakest tenth of HH make Llama-2-7B a better reward model?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_denoised_llama2_7b.py \
      --workdir=runs/rm_denoised_llama2_7b

"Secrets of RLHF II", section 2: labels of the weakest tenth swapped, and each
pair's strength as its margin. Reads what `configs/denoise_llama2_7b.py` wrote.
From the supervised model in the folder `llama-2-7b-sft` of JAXALIGN_MODELS,
parameters and optimiser split over the 16 chips of a v5e:4x4. `:shape` is the
same from scratch and needs no folder; `:smoke` is small and reads what
`configs/denoise_crowd.py` wrote. A step's cost needs no TPU:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_denoised_llama2_7b.py:shape --topology=v5e:4x4

[S1] is the report (arXiv 2401.06080), [S2] its code, [S5] its figures read off,
[default] a choice where none of them says.

Measured: not yet run. Compiled for v5e:4x4, a step takes 8.34 of 15.75 GiB on
each chip (commit 92eaf5b, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "shape", "smoke"):
    raise ValueError(
      f"variant must be 'full', 'shape' or 'smoke', got {variant!r}"
    )
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.data = dict(
    train_files=("runs/denoise_llama2_7b/train.jsonl.gz",),
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
    dropout=0.0,
    dtype="bfloat16",
    remat="full",
    unroll=1,
  )
  cfg.model.init_from = "$JAXALIGN_MODELS/llama-2-7b-sft"
  cfg.recipe = dict(
    name="denoised",
    policy="flip_margin",  # [S5 Fig 8]
    fraction=0.1,  # of the weakest pairs [S5 Fig 8]
    smoothing=0.2,  # without effect but for the smooth policies
  )
  cfg.loss = dict(
    labels="hard",
    flip_rate=0.0,
    margin=ml_collections.config_dict.placeholder(str),
    centering=0.0,
  )
  cfg.optimizer = dict(
    learning_rate=5e-6,  # [S1 B.2]
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
      train_files=("runs/denoise_crowd/train.jsonl.gz",),
      eval_files=(
        "synthetic:one_taste,temperature=0.05,label_noise=0.4,judge=true,"
        "num_test_annotators=100:test",
      ),
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
