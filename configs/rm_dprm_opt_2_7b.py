r"""What does OPT-2.7B say a crowd would call a response?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_dprm_opt_2_7b.py --workdir=runs/rm_dprm_opt_2_7b

DPRM at a size of its paper (arXiv 2402.09764), from the tuned policy in the
folder `opt-2.7b-sft` of JAXALIGN_MODELS, as the paper starts it, on what
the personas stage leaves of one's own prompts and responses: the paper's data
are not public. It names no settings of its reward model either, so all marked
[default] are this project's; the label set and its utilities are the paper's
[table 1]. Beside it runs `recipe.loss="cross_entropy"`, its DPRM_C; "line" is
the nearest to its DPRM_W, whose details are not public. It is meant for
16 chips; `:shape` is the same from scratch and needs no folder and no data:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_dprm_opt_2_7b.py:shape --topology=v5e:4x4

`:smoke` is small, on the synthetic crowd.

Claimed (version 1, table 2): a policy trained on it is predicted to answer
helpfully and harmlessly in 30.0 % of cases, 28.7 % with cross-entropy, 24.2 %
with a plain reward model, 23.5 % before.
Those are the model's own predictions, so a judge that did not train the policy
is the test.

Measured: not yet run. Compiled for v5e:4x4, a step takes 10.40 of 15.75 GiB on
each chip (commit 6e41560, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
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
    train_files=("runs/personas/train.jsonl",),  # of configs/personas.py
    eval_files=("runs/personas/eval.jsonl",),
    split_by="prompt",
    eval_fraction=ml_collections.config_dict.placeholder(float),
    tokenizer=ml_collections.config_dict.placeholder(str),
    chat_template=ml_collections.config_dict.placeholder(str),
    max_length=512,  # tokens, prompt and response together [default]
    buckets=(256, 512),  # padded lengths, one compilation each
    on_bad_record="error",
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
    remat="dots",
    unroll=1,
  )
  cfg.model.init_from = "$JAXALIGN_MODELS/opt-2.7b-sft"
  cfg.recipe = dict(
    name="dprm",  # with the six labels [table 1]
    loss="transport",  # DPRM_OT
    epsilon=0.2,  # reward units [default]
    num_iters=100,
    cross_entropy_weight=0.1,  # reward units per nat [default]
    prior=ml_collections.config_dict.placeholder(tuple),
    prior_strength=5.0,  # votes [default]; 20 personas vote
    new_votes=(),
    decay=1.0,
    smoothing=0.1,  # [default]; targeted smoothing is the paper's
    risk="mean",  # expected reward
    alpha=ml_collections.config_dict.placeholder(float),
    kappa=ml_collections.config_dict.placeholder(float),
  )
  cfg.loss = dict(  # without effect, as the recipe has its own
    labels="hard",
    flip_rate=0.0,
    margin=ml_collections.config_dict.placeholder(str),
    centering=0.0,
  )
  cfg.optimizer = dict(
    learning_rate=1e-5,  # this and the rest [default]
    schedule="cosine",
    warmup_steps=30,
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  cfg.train = dict(
    num_steps=1000,  # an epoch of 64,000 pairs
    batch_size=64,  # pairs per step over all devices [default]
    accumulation=1,
    parallel="jit",
    eval_every=250,
    checkpoint_every=125,
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
      family="opt",
      num_layers=32,
      num_heads=32,
      num_kv_heads=32,
      embed_dim=2560,
      mlp_dim=10240,
      vocab_size=50272,
    )
  if variant == "smoke":
    cfg.data.update(
      train_files=("synthetic:labels:train",),
      eval_files=("synthetic:labels,label_votes=0:test",),
      tokenizer="byte",
    )
    cfg.model.update(init_from=None, dtype="float32", remat="none")
    cfg.model.architecture = dict(
      family="opt",
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
