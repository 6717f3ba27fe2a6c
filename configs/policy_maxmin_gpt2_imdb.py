r"""Can one GPT-2 be both positive and concise about a film?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_maxmin_gpt2_imdb.py \
      --workdir=runs/policy_maxmin_gpt2_imdb

MaxMin-RLHF's smaller experiment (arXiv 2402.08925): most people want positive
reviews, a minority concise ones. For a v5e-4 slice (`--topology=v5e:2x2`). The
paper's settings are not public; in brackets are those of SharedRep-RLHF
[M8] (arXiv 2509.03672), which runs it as a baseline. `$JAXALIGN_MODELS` holds
gpt2-imdb; `prompts/imdb_starts.jsonl` the first 2 to 8 tokens of reviews of
more than 200 characters [M8], and `imdb_rewards:rewards`, on the Python path,
gives the probability that a text is positive and 1 - tokens / 100 [M8].
`:shape` is for the compile stage and needs no folder; `:smoke` is small, on the
synthetic crowd.

Claimed: a variant of M8 with oracle rewards ends at 0.808 for the minority and
0.848 for the majority.

Measured: not yet run. Compiled for v5e:2x2, learning takes 6.23 of 15.75 GiB on
each chip, 3.00 of them activations, and sampling 0.79; every chip holds all
parameters, as data parallelism has it (commit 89b718f, jax 0.10.2, libtpu
0.0.42; docs/scaling.md).
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "shape", "smoke"):
    raise ValueError(
      f"variant must be 'full', 'shape' or 'smoke', got {variant!r}"
    )
  none = ml_collections.config_dict.placeholder
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.data = dict(
    train_files=("prompts/imdb_starts.jsonl",),
    eval_files=(),
    tokenizer=none(str),  # that of model.init_from
    max_prompt_length=8,  # tokens [M8]
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    prefetch=2,  # batches
  )
  cfg.model = dict(
    init_from=none(str),
    architecture=none(dict),
    dropout=0.0,
    dtype="bfloat16",
    remat="none",
    unroll=1,
  )
  cfg.model.init_from = "$JAXALIGN_MODELS/gpt2-imdb"
  cfg.sampling = dict(
    num_responses=1,
    max_new_tokens=92,  # 100 in all [M8]
    min_new_tokens=0,
    temperature=0.7,  # [M8]
    top_k=none(int),
    top_p=none(float),
    repetition_penalty=1.0,
    end_ids=(),  # beside the ends of the folder
  )
  cfg.source = dict(
    models=(),
    function=none(str),
    url=none(str),
    crowd=none(str),
    names=("sentiment", "conciseness"),
    calibrated=True,
    risk=none(str),  # the model's own
    alpha=none(float),
    kappa=none(float),
    dtype="float32",
    batch_size=64,
    buckets=(64, 128),
    connection=dict(
      key_variable=none(str),
      concurrency=4,
      requests_per_minute=none(float),
      timeout_s=60.0,
      max_attempts=6,
      backoff_s=1.0,  # doubles
      max_backoff_s=60.0,
    ),
  )
  cfg.source.function = "imdb_rewards:rewards"
  cfg.policy = dict(
    kind="ppo",
    clip_eps=0.2,  # TRL
    dual_clip=none(float),
    entropy_coef=none(float),
    whiten=True,  # TRL
    aggregation="token_mean",
    importance_limit=none(float),
    epochs=3,  # [M8]
    minibatches=1,  # TRL
    stop_kl=none(float),
  )
  cfg.critic = dict(
    kind="separate",  # TRL
    init_from=none(str),
    coef=none(float),
    clip=0.2,  # TRL
    discount=1.0,  # TRL
    gae_lambda=0.95,  # TRL
    num_atoms=none(int),  # the mean alone; a law over atoms in place of `clip`
    low=none(float),
    high=none(float),
  )
  cfg.kl = dict(
    place="reward",  # TRL
    estimator="k1",  # TRL
    coef=0.05,  # [M8]
    controller="fixed",  # [M8]
    target=none(float),
    horizon=none(float),
  )
  cfg.reward = dict(
    scale="standardise",  # nearest to the whitened rewards of [M8]
    clip=none(float),
    missing_eos=1.0,  # [M8]
    overlong=none(float),
    overlong_buffer=none(int),
    repetition=none(float),
    repetition_ngram=none(int),
  )
  cfg.welfare = dict(
    kind="maxmin",  # algorithm 1
    shares=none(tuple),
    temperature=none(float),
    step_size=none(float),
    order=none(float),
    alpha=none(float),
    floor=none(float),
    group=none(int),
  )
  cfg.optimizer = dict(
    learning_rate=3e-6,  # [M8]
    schedule="cosine",  # [M8]
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  cfg.critic_optimizer = dict(
    learning_rate=3e-6,  # one optimiser for both in [M8]
    schedule="cosine",
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  cfg.train = dict(
    num_iterations=781,  # 50,000 episodes [M8]
    num_prompts=64,  # [M8]
    accumulation=1,
    parallel="jit",
    eval_every=none(int),
    eval_prompts=none(int),
    checkpoint_every=50,
    keep_last=2,
    max_bad_steps=8,
  )
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant in ("shape", "smoke"):
    cfg.data.tokenizer = "byte"
    cfg.model.init_from = None
  if variant == "shape":
    cfg.model.architecture = dict(
      family="gpt2",
      num_layers=12,
      num_heads=12,
      num_kv_heads=12,
      embed_dim=768,
      mlp_dim=3072,
      vocab_size=50_257,
    )
  if variant == "smoke":
    cfg.data.update(
      train_files=("synthetic:two_groups:train",),
      max_prompt_length=48,
    )
    cfg.model.architecture = dict(
      family="gpt2",
      num_layers=1,
      num_heads=4,
      num_kv_heads=4,
      embed_dim=32,
      mlp_dim=64,
    )
    cfg.model.dtype = "float32"
    cfg.sampling.max_new_tokens = 16
    cfg.source.update(function=None, crowd="two_groups")
    cfg.policy.update(epochs=1, minibatches=1)
    cfg.train.update(num_iterations=2, num_prompts=8, checkpoint_every=2)
    cfg.mesh.update(data=-1, fsdp=1)
  return cfg
