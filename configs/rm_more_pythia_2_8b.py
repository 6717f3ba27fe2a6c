r"""What does Pythia-2.8B learn of five sources when none is overruled?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_more_pythia_2_8b.py \
      --workdir=runs/rm_more_pythia_2_8b

MORE at the size of its paper: 80 pairs per step, 16 of each of five sources,
each source resampled to 40,000 pairs, one epoch, AdamW at 1e-6 (arXiv
2312.07401, appendix C and table 3). The head's gradients are taken over the
whole batch, where the authors' program has one pair per source and device; they
are normalised and averaged as its README says (momentum 0.99, decay 0.01 here).
The baseline that shares everything but λ is `recipe.weights="uniform"` with
`recipe.normalise` and `recipe.decay` None; docs/recipes.md has the others.
`:shape` is the same from scratch and needs no folder and no data; it is for

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_more_pythia_2_8b.py:shape --topology=v5e:4x4

`:smoke` is small, on the synthetic crowd.

Claimed (table 2): an ECE of 0.0456 by sharing everything, 0.0366 by MORE, means
over five test sets, and an accuracy of 64.0 and 64.0 %. A test set of 2,000
pairs has an ECE noise floor near 0.02 and an accuracy error of 1.1 points, so
several seeds and the report's noise floor are what to read. Control: five
copies of one source, where λ may be anything and the loss is that of plain
training.

Measured: not yet run. Compiled for v5e:4x4, a step takes 11.22 of 15.75 GiB on
each chip, 9.36 of them activations, and nothing is held whole that should be
split (commit 89b718f, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
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
    train_files=(
      "hub:Anthropic/hh-rlhf:helpful-base:train",
      "hub:Anthropic/hh-rlhf:harmless-base:train",
      "hub:OpenAssistant/oasst1:train",
      "hub:openai/webgpt_comparisons:train",
      "hub:openai/summarize_from_feedback:comparisons:train",
    ),
    eval_files=(
      "hub:Anthropic/hh-rlhf:helpful-base:test",
      "hub:Anthropic/hh-rlhf:harmless-base:test",
      "hub:OpenAssistant/oasst1:validation",
      "hub:openai/summarize_from_feedback:comparisons:validation",
    ),
    split_by=ml_collections.config_dict.placeholder(str),
    eval_fraction=ml_collections.config_dict.placeholder(float),
    tokenizer=ml_collections.config_dict.placeholder(str),
    chat_template=ml_collections.config_dict.placeholder(str),
    max_length=512,  # tokens, prompt and response together
    buckets=(256, 512),  # padded lengths, one compilation each
    on_bad_record="skip",
    extra_columns=(),
    crowd_seed=0,
    streaming=False,
    mixing="stratified",
    pairs_per_source=40_000,  # [table 3]
    prefetch=4,  # batches
  )
  cfg.model = dict(
    init_from=ml_collections.config_dict.placeholder(str),
    architecture=ml_collections.config_dict.placeholder(dict),
    dropout=0.0,
    dtype="bfloat16",
    remat="dots",
    unroll=1,
  )
  cfg.model.init_from = "$JAXALIGN_MODELS/pythia-2.8b"
  cfg.recipe = dict(
    name="more",
    num_sources=5,
    weights="min_norm",
    normalise="l2",  # [authors' README]
    decay=0.01,  # momentum 0.99 [authors' README]
    parts=1,  # one λ per batch; the authors' program has one per device
  )
  cfg.loss = dict(
    labels="hard",
    flip_rate=0.0,
    margin=ml_collections.config_dict.placeholder(str),
    centering=0.0,
  )
  cfg.optimizer = dict(
    learning_rate=1e-6,  # [appendix C]
    schedule="linear",  # this and the rest: the authors' trainer
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  cfg.train = dict(
    num_steps=2500,  # 40,000 pairs of each source, 16 a step: one epoch
    batch_size=80,  # pairs per step over all devices [appendix C]
    accumulation=1,
    parallel="jit",
    eval_every=500,
    checkpoint_every=250,
    keep_last=2,
    keep_best=1,
    export="last",
    max_bad_steps=10,
    num_reference=512,  # training pairs that calibrate the exported model
  )
  cfg.mesh = dict(data=-1, fsdp=16, tensor=1, rules=())
  cfg.eval = dict(batch_size=80, num_bins=10, num_samples=1000)

  if variant == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.init_from = None
    cfg.model.architecture = dict(
      family="gpt_neox",
      num_layers=32,
      num_heads=32,
      num_kv_heads=32,
      embed_dim=2560,
      mlp_dim=10240,
      vocab_size=50304,
    )
  if variant == "smoke":
    cfg.data.update(
      train_files=("synthetic:two_groups:train",),
      eval_files=("synthetic:two_groups:test",),
      tokenizer="byte",
      pairs_per_source=200,
    )
    cfg.recipe.num_sources = 2
    cfg.model.update(init_from=None, dtype="float32")
    cfg.model.architecture = dict(
      family="gpt2",
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
