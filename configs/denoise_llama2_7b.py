r"""What do ten Llama-2-7B reward models say of each pair of HH?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.denoise \
      --config=configs/denoise_llama2_7b.py --workdir=runs/denoise_llama2_7b

"Secrets of RLHF II", section 2.2: ten models that differ in the order of their
data and in their head, and the mean and spread of their gaps on every pair, for
`configs/rm_denoised_llama2_7b.py`. All ten train as one program: 81 GB of
parameters and moments each, split over the 64 chips of a v5e:8x8. `:shape` is
the same from scratch and needs no folder, `:smoke` is small, on the synthetic
crowd; a step's cost needs no TPU:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile --stage=denoise \
      --config=configs/denoise_llama2_7b.py:shape --topology=v5e:8x8

[S1] is the report (arXiv 2401.06080), [S2] its code, [default] a choice where
neither says.

Measured: not yet run. Compiled for v5e:8x8, a step takes 12.79 of 15.75 GiB on
each chip, 1.23 of them activations (commit 92eaf5b, jax 0.10.2, libtpu 0.0.42;
docs/scaling.md).
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
    dropout=0.0,
    dtype="bfloat16",
    remat="full",
    unroll=1,
  )
  cfg.model.init_from = "$JAXALIGN_MODELS/llama-2-7b-sft"
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
    batch_size=16,  # pairs per member and step over all devices [S1 B.2]
    accumulation=1,
    eval_every=1000,
    checkpoint_every=500,
    keep_last=2,
    max_bad_steps=10,
  )
  cfg.ensemble = dict(
    num_members=10,  # [S1 2.2]
    batch_size=16,  # pairs that all members score at once
    fraction=0.1,  # of the weakest pairs, where there is a judge
    num_shown=50,  # pairs of each kind on the page
    at_once=1,  # beside each other ten need ten times the activations
  )
  cfg.mesh = dict(data=-1, fsdp=16, tensor=4, rules=())

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
      train_files=(
        "synthetic:one_taste,temperature=0.05,label_noise=0.4,judge=true:train",
      ),
      eval_files=(
        "synthetic:one_taste,temperature=0.05,label_noise=0.4,judge=true:test",
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
    cfg.ensemble.update(num_members=3, num_shown=5)
    cfg.mesh.update(fsdp=1, tensor=1)
  return cfg
