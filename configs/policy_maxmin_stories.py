r"""Can one story teller please those who want it happy and who want it short?

  JAXALIGN_DATA=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_maxmin_stories.py \
      --workdir=runs/policy_maxmin_stories

MaxMin-RLHF's smaller experiment (arXiv 2402.08925), sentiment against
conciseness, with what a CPU holds: the pretrained story model of 260 thousand
weights ends the sentence that one of its own openings has begun, and two
functions of `jaxalign.data.synthetic.text_rewards` judge what it adds: VADER's
lexicon, and minus its characters, both in deviations from the mean of sentences
that people wrote. A fifth of the 902 openings is held out. The full config
moves towards the worst-off group, `:mean` towards a crowd of whom four in five
want it happy, as a single pooled reward would, `:single` towards these alone.
`:smoke` runs three iterations.

Claimed: MaxMin brings the worse-off group up where one reward leaves the
minority behind. All held-out openings answered once have a standard error of
0.05 deviations per group before training and 0.02 after; three seeds show a
difference of 0.1. Control: `:single`, which nothing keeps from length.

Measured: after 40 iterations the worse of the two stands at 1.27 (full),
1.29 (`:mean`) and 1.16 (`:single`), from −0.05 before, means of three
seeds at 11 to 13 nats: better than sentiment alone; against the mean not
significant. 66 s of one core, commit ceac5ae; docs/results.md has the table.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "mean", "single", "smoke"):
    raise ValueError(
      f"variant must be 'full', 'mean', 'single' or 'smoke', got {variant!r}"
    )
  none = ml_collections.config_dict.placeholder
  stories = "$JAXALIGN_DATA/stories260k_lm"
  openings = f"{stories}/story_prompts.jsonl.gz"
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.data = dict(
    train_files=(f"stories260k_lm/prompts_train:{openings}",),
    eval_files=(f"stories260k_lm/prompts_test:{openings}",),
    tokenizer=none(str),  # that of model.init_from
    max_prompt_length=32,  # tokens, the longest opening
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    prefetch=2,  # batches
  )
  cfg.model = dict(
    init_from=none(str),
    architecture=none(dict),
    dropout=0.0,
    dtype="float32",
    remat="none",
    unroll=1,
  )
  cfg.model.init_from = stories
  cfg.sampling = dict(
    num_responses=1,
    max_new_tokens=32,  # about 90 characters
    min_new_tokens=0,
    temperature=1.0,
    top_k=none(int),
    top_p=none(float),
    repetition_penalty=1.0,
    end_ids=(426, 443, 450, 49, 36, 66),  # . ! ? as pieces and as bytes
  )
  cfg.source = dict(
    models=(),
    function="jaxalign.data.synthetic.text_rewards:sentiment_and_conciseness",
    url=none(str),
    crowd=none(str),
    names=("sentiment", "conciseness"),
    calibrated=True,  # of models alone; the function's are by itself
    risk=none(str),  # the model's own
    alpha=none(float),
    kappa=none(float),
    dtype="float32",
    batch_size=64,  # texts per forward pass or request, of models and servers
    buckets=(64, 128),  # tokens, of models
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
    clip_eps=0.2,  # TRL, verl, OpenRLHF, Secrets I
    dual_clip=none(float),
    entropy_coef=none(float),
    whiten=True,  # TRL, tunix, EasyDeL, lm-human-preference-details
    aggregation="token_mean",
    importance_limit=none(float),
    epochs=2,  # TRL and lm-human-preference-details have 4
    minibatches=1,  # TRL
    stop_kl=none(float),
  )
  cfg.critic = dict(
    kind="separate",
    init_from=none(str),  # the policy's folder
    coef=none(float),
    clip=0.2,  # TRL, tunix, EasyDeL, Secrets I
    discount=1.0,  # everywhere
    gae_lambda=0.95,  # TRL, tunix, EasyDeL, Secrets I
    num_atoms=none(int),  # the mean alone; a law over atoms in place of `clip`
    low=none(float),
    high=none(float),
  )
  cfg.kl = dict(
    place="reward",  # TRL, OpenRLHF, MaxMin-RLHF's code
    estimator="k1",
    coef=0.05,  # TRL, EasyDeL, the meta setting of Secrets II
    controller="fixed",
    target=none(float),
    horizon=none(float),
  )
  cfg.reward = dict(
    scale="none",  # calibrated already
    clip=none(float),
    missing_eos=none(float),  # length is what one group judges
    overlong=none(float),
    overlong_buffer=none(int),
    repetition=none(float),
    repetition_ngram=none(int),
  )
  cfg.welfare = dict(
    kind="maxmin",  # algorithm 1 of MaxMin-RLHF
    shares=none(tuple),
    temperature=none(float),
    step_size=none(float),
    order=none(float),
    alpha=none(float),
    floor=none(float),
    group=none(int),
  )
  cfg.optimizer = dict(
    learning_rate=1e-3,  # a model of 260k weights; 7B configs have 100x less
    schedule="linear",
    warmup_steps=0,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  cfg.critic_optimizer = dict(
    learning_rate=1e-3,  # three times the policy's, as Secrets II has it
    schedule="constant",
    warmup_steps=0,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  cfg.train = dict(
    num_iterations=40,
    num_prompts=32,  # per iteration over all devices
    accumulation=1,
    parallel="jit",
    eval_every=10,
    eval_prompts=none(int),  # all that are held out
    checkpoint_every=20,
    keep_last=2,
    max_bad_steps=8,
  )
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant == "mean":
    cfg.welfare.update(kind="mean", shares=(0.8, 0.2))
  if variant == "single":
    cfg.welfare.update(kind="single", group=0)
  if variant == "smoke":
    cfg.sampling.max_new_tokens = 24
    cfg.train.update(
      num_iterations=3,
      num_prompts=8,
      eval_every=2,
      eval_prompts=8,
      checkpoint_every=2,
    )
  return cfg
