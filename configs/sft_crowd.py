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
answers are memorised after that. 160 s a run on two CPU cores, commit
5dd9b4a; `:stories` was run in a test only.
"""

import ml_collections

VARIANTS = ("full", "stories", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("synthetic:two_groups:train",))
  cfg.data.update(eval_files=("synthetic:two_groups:test",), tokenizer="byte")
  cfg.data.update(length=128)
  cfg.model = dict(
    architecture=dict(num_layers=2, num_heads=4, embed_dim=64, mlp_dim=172),
    unroll=2,  # all layers: faster than their scan on a CPU
  )
  cfg.optimizer = dict(learning_rate=3e-3, warmup_steps=20, weight_decay=0.01)
  cfg.train = dict(num_steps=400, eval_every=100, checkpoint_every=100)

  if variant == "stories":
    stories = "$JAXALIGN_DATA/stories260k_lm"
    cfg.data.train_files = (f"{stories}/story_prompts.jsonl.gz",)
    cfg.data.update(eval_files=(), tokenizer=stories)
    cfg.model.init_from = stories
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
