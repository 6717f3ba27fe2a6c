r"""Does MetaRM keep Llama-2-7B apart on responses of a policy that moved?

  JAXALIGN_MODELS=... RUNS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_metarm_llama2_7b.py --workdir=runs/rm_metarm_llama2_7b

"Secrets of RLHF II", section 3.2: 16 prompts of 5 responses of the current
policy, unlabelled, beside 16 pairs; configs/sample.py writes them to
`$RUNS/responses.jsonl`, at temperature 0.8, nucleus 0.9 and repetition penalty
1.1 [S1 B.2]. The reward model starts anew from the supervised one in each round
[default], the folder `llama-2-7b-sft` of JAXALIGN_MODELS, split with its
optimiser over the 16 chips of a v5e:4x4. `:shape` is the same from scratch and
needs no folder, `:smoke` is small, on the synthetic crowd; a step's cost needs
no TPU:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_metarm_llama2_7b.py:shape --topology=v5e:4x4

[S1] is the report (arXiv 2401.06080), [S2] its code, [S4] the paper on MetaRM
(arXiv 2405.00438), [default] a choice where none of them says.

Measured: not yet run. Compiled for v5e:4x4, a step takes 10.07 of 15.75 GiB on
each chip, 5.45 of them activations, and nothing is held whole that should be
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
  cfg.recipe = dict(
    name="metarm",
    files=("$RUNS/responses.jsonl",),
    num_prompts=16,  # per step over all devices [S4]
    num_responses=5,  # [S4]
    step_size=5e-6,  # [S4]
    inner="adam",  # [default]
    second_order=False,  # [S1 algorithm 1]
    measure=False,  # saves a forward pass of everything
  )
  cfg.loss = dict(
    labels="hard",
    flip_rate=0.0,
    margin=ml_collections.config_dict.placeholder(str),
    centering=0.0,
  )
  cfg.optimizer = dict(
    learning_rate=5e-6,  # [S1 B.2], [S4]
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
    batch_size=16,  # pairs per step over all devices [S4]
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
    cfg.recipe.update(
      files=("synthetic:two_groups:test_candidates",), num_prompts=8
    )
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.mesh.fsdp = 1
    cfg.eval.num_samples = 100
  return cfg
