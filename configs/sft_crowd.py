r"""Does tuning on the answers that a crowd chose teach its words and lengths?

  python -m jaxalign.experiments.sft --config=configs/sft_crowd.py \
      --workdir=runs/sft_crowd

The loss is over the tokens of the preferred answers alone; texts share rows of
128 tokens and see only themselves. `:stories` goes on from the small story
model on openings that it wrote itself, where `JAXALIGN_DATA` is set; `:smoke`
runs 20 steps of a smaller model.

Measured over seeds 0, 1, 2 (mean ± sample standard deviation): 0.703 ± 0.013
nats per held-out byte of an answer at the end, from 5.55 at the start. The
lowest of each run came at step 100 or 200 (0.664, 0.666, 0.642): four thousand
answers are learned by heart after that. 160 s a run on two CPU cores, commit
5dd9b4a; `:stories` was run in a test only.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "stories", "smoke"):
    raise ValueError(
      f"variant must be 'full', 'stories' or 'smoke', got {variant!r}"
    )
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.data = dict(
    train_files=("synthetic:two_groups:train",),
    eval_files=("synthetic:two_groups:test",),
    tokenizer=ml_collections.config_dict.placeholder(str),
    length=128,  # tokens per packed row
    layout="best_fit",
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
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
    batch_size=32,  # rows per step over all devices
    accumulation=1,
    eval_every=100,
    checkpoint_every=100,
    keep_last=2,
    max_bad_steps=10,
  )
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant == "stories":
    stories = "$JAXALIGN_DATA/stories260k_lm"
    cfg.data.update(
      train_files=(f"{stories}/story_prompts.jsonl.gz",), eval_files=()
    )
    cfg.data.tokenizer = stories
    cfg.model.init_from = stories
    cfg.model.architecture = None
    cfg.optimizer.learning_rate = 3e-4
    cfg.train.num_steps = 50
  if variant == "smoke":
    cfg.model.architecture.update(num_layers=1, embed_dim=32, mlp_dim=64)
    cfg.model.unroll = 1
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
  return cfg
