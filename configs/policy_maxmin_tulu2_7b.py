r"""Does a 7B policy answer a child and a scholar equally well?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_maxmin_tulu2_7b.py \
      --workdir=runs/policy_maxmin_tulu2_7b

MaxMin-RLHF's larger experiment (arXiv 2402.08925), pair P1: answers for an
elementary student against answers at the level of a PhD, one reward model per
group. For a v5e-16 slice (`--topology=v5e:4x4`), the base split over all of it.
`$JAXALIGN_MODELS` holds tulu-2-7b and the two reward models that `train_reward`
leaves; `prompts/alpaca_gpt4_10k.jsonl` holds the instructions as records.
Numbers in brackets: [code] the authors' program and SLURM script, [RLPHF] the
program that theirs comes from, [TRL] its defaults of that time. Where they
sampled with the end of text switched off, here it may come, and one that does
not come costs one deviation. The authors' own reward is
`welfare.kind="sample_min"`. `:shape` is for the compile stage and needs no
folder; `:smoke` is small, on the synthetic crowd.

Claimed (table 2, as transcribed by others): win rates of 57.8 and 55.6 %, about
45 prompts each, so a standard error of 7 points.

Measured: not yet run.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "shape", "smoke"):
    raise ValueError(
      f"variant must be 'full', 'shape' or 'smoke', got {variant!r}"
    )
  none = ml_collections.config_dict.placeholder
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0  # [code]

  cfg.data = dict(
    train_files=("prompts/alpaca_gpt4_10k.jsonl",),  # [code]
    eval_files=(),
    tokenizer=none(str),  # that of model.init_from
    max_prompt_length=512,  # tokens
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    prefetch=2,  # batches
  )
  cfg.model = dict(
    init_from=none(str),
    architecture=none(dict),
    dropout=0.0,  # [code] has 0.05 in its adapters
    dtype="bfloat16",
    remat="full",
    unroll=1,
    lora=dict(rank=16, alpha=32.0, targets=("query", "value")),  # [code]
  )
  cfg.model.init_from = "$JAXALIGN_MODELS/tulu-2-7b"
  cfg.sampling = dict(
    num_responses=1,
    max_new_tokens=512,  # [code] draws 32 to 512
    min_new_tokens=32,  # [code]
    temperature=1.0,  # [code]
    top_k=none(int),  # [code]
    top_p=none(float),  # [code]
    repetition_penalty=1.0,
    end_ids=(),  # beside the ends of the folder
  )
  cfg.source = dict(
    models=("$JAXALIGN_MODELS/rm_p1a", "$JAXALIGN_MODELS/rm_p1b"),
    function=none(str),
    url=none(str),
    crowd=none(str),
    names=("elementary", "phd"),
    calibrated=True,  # raw in [code], where the smallest unit is the least
    risk=none(str),  # the model's own
    alpha=none(float),
    kappa=none(float),
    dtype="bfloat16",
    batch_size=64,  # texts per forward pass
    buckets=(256, 512),  # tokens; [code] cuts at 512
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
  cfg.policy = dict(
    kind="ppo",
    clip_eps=0.2,  # [TRL]
    dual_clip=none(float),
    entropy_coef=none(float),
    whiten=True,  # [TRL]
    aggregation="token_mean",
    importance_limit=none(float),
    epochs=8,  # [code]
    minibatches=4,
    stop_kl=0.15,  # 1.5 times a target of 0.1, as TRL reads it [code]
  )
  cfg.critic = dict(
    kind="shared",  # a value head on the policy [code]
    init_from=none(str),
    coef=0.1,  # [TRL]
    clip=0.2,  # [TRL]
    discount=1.0,  # [TRL]
    gae_lambda=0.95,  # [TRL]
    num_atoms=none(int),  # the mean alone; a law over atoms in place of `clip`
    low=none(float),
    high=none(float),
  )
  cfg.kl = dict(
    place="reward",  # [TRL]
    estimator="k1",  # [TRL]
    coef=0.2,  # [TRL]
    controller="adaptive",  # [TRL]
    target=6.0,  # nats per response [TRL]
    horizon=10_000.0,  # responses [TRL]
  )
  cfg.reward = dict(
    scale="standardise",  # score scaling and norm [code]
    clip=none(float),
    missing_eos=1.0,
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
    learning_rate=1.4e-5,  # [code]
    schedule="constant",
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  cfg.critic_optimizer = none(dict)
  cfg.train = dict(
    num_iterations=190,  # the step that [code] generates from
    num_prompts=128,  # 16 times 8 accumulated [RLPHF]; 1 in [code]
    accumulation=1,
    parallel="jit",
    eval_every=none(int),
    eval_prompts=none(int),
    checkpoint_every=10,  # [code]
    keep_last=2,
    max_bad_steps=8,
  )
  cfg.mesh = dict(data=1, fsdp=4, tensor=4, rules=())

  if variant in ("shape", "smoke"):
    cfg.data.tokenizer = "byte"
    cfg.model.init_from = None
  if variant == "shape":
    cfg.model.architecture = dict(
      family="llama",
      num_layers=32,
      num_heads=32,
      num_kv_heads=32,
      embed_dim=4096,
      mlp_dim=11008,
      vocab_size=32_000,
      tie_embeddings=False,
    )
  if variant == "smoke":
    cfg.data.update(
      train_files=("synthetic:two_groups:train",),
      max_prompt_length=48,
    )
    cfg.model.architecture = dict(
      family="llama",
      num_layers=1,
      num_heads=4,
      num_kv_heads=4,
      embed_dim=32,
      mlp_dim=64,
    )
    cfg.model.dtype = "float32"
    cfg.model.lora.update(rank=2, alpha=4.0)
    cfg.sampling.min_new_tokens = 0
    cfg.sampling.max_new_tokens = 16
    cfg.source.update(models=(), crowd="two_groups", buckets=(64,))
    cfg.policy.update(epochs=1, minibatches=1)
    cfg.train.update(num_iterations=2, num_prompts=8, checkpoint_every=2)
    cfg.mesh.update(data=-1, fsdp=1, tensor=1)
  return cfg
