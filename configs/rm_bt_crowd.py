r"""What does one reward model learn from a crowd of two tastes?

  python -m jaxalign.experiments.train_reward \
      --config=configs/rm_bt_crowd.py --workdir=runs/rm_bt_crowd

The synthetic crowd has a majority that likes warm answers and a minority that
likes short ones. Plain Bradley-Terry fits their average, so it should come near
the best accuracy that any single ranking can reach and stay below the ceiling
of a model that knows each annotator's group; `jaxalign.data.synthetic.oracle`
gives both. `:smoke` runs 20 steps of a smaller model.

Measured over seeds 0, 1, 2 on one crowd (mean ± sample standard deviation):
accuracy 0.750 ± 0.004 over all, 0.848 ± 0.006 for the majority and 0.355 ±
0.005 for the minority, against 0.789 for the best single ranking and 0.878 for
a model that knows the group. 82 to 240 s a run beside other work on two CPU
cores, commit e29738f;
docs/results.md has the rest.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.data = dict(
    train_files=("synthetic:two_groups:train",),
    eval_files=("synthetic:two_groups:test",),
    split_by=ml_collections.config_dict.placeholder(str),
    eval_fraction=ml_collections.config_dict.placeholder(float),
    tokenizer=ml_collections.config_dict.placeholder(str),
    chat_template=ml_collections.config_dict.placeholder(str),
    max_length=128,  # tokens, prompt and response together
    buckets=(96, 128),  # padded lengths, one compilation each
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    streaming=False,
    mixing="proportional",
    pairs_per_source=ml_collections.config_dict.placeholder(int),
    prefetch=4,  # batches
  )
  cfg.data.tokenizer = "byte"
  cfg.model = dict(
    init_from=ml_collections.config_dict.placeholder(str),
    architecture=dict(
      family="llama",
      num_layers=2,
      num_heads=4,
      num_kv_heads=4,
      embed_dim=64,
      mlp_dim=172,
    ),
    dropout=0.0,
    dtype="float32",
    remat="none",
    unroll=2,  # all layers: faster than their scan on a CPU
  )
  cfg.recipe = dict(name="bradley_terry")
  cfg.loss = dict(
    labels="hard",
    flip_rate=0.0,
    margin=ml_collections.config_dict.placeholder(str),
    centering=0.0,
  )
  cfg.optimizer = dict(
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=20,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.01,
    clip_norm=1.0,
  )
  cfg.train = dict(
    num_steps=400,
    batch_size=32,  # pairs per step over all devices
    accumulation=1,
    parallel="jit",
    eval_every=100,
    checkpoint_every=100,
    keep_last=2,
    keep_best=1,
    export="last",
    max_bad_steps=10,
    num_reference=256,  # training pairs that calibrate the exported model
  )
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())
  cfg.eval = dict(batch_size=64, num_bins=10, num_samples=1000)

  if variant == "smoke":
    cfg.model.architecture.update(num_layers=1, embed_dim=32, mlp_dim=64)
    cfg.model.unroll = 1
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.eval.num_samples = 100
  return cfg
