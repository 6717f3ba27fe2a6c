r"""How much do groups gain from the best of n samples, and when too much?

  python -m jaxalign.experiments.best_of_n --config=configs/best_of_n.py \
      --config.policy=runs/sft_crowd/model \
      --config.source.models="('runs/rm_bt_crowd/model',)" \
      --workdir=runs/best_of_n

MORE's protocol: 4 samples per prompt, the reward model picks one, and
best.jsonl is what the `sft` stage tunes on next. eval.json and the page hold
proxy and oracle reward against KL = log n - (n - 1) / n, per group; with more
samples the curve goes further. `:candidates` picks among the 11 rated answers
per prompt of a file instead, and has its judge as the oracle. `:smoke` picks
among the crowd's own responses by one group's utility.

Measured as a step of configs/best_of_n_crowd.py over three seeds, commit
dc88440: the best of four by one reward takes the majority's true utility from
-0.15 ± 0.13 to 0.70 ± 0.14 and the minority's from -0.72 ± 0.14 to -1.01 ±
0.14.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "candidates", "smoke"):
    raise ValueError(
      f"variant must be 'full', 'candidates' or 'smoke', got {variant!r}"
    )
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.data = dict(
    files=("synthetic:two_groups:train",),
    limit=1000,  # prompts
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
  )
  cfg.policy = ml_collections.config_dict.placeholder(str)
  cfg.policy = "runs/sft_crowd/model"
  cfg.num_samples = 4
  cfg.sampling = dict(
    max_prompt_length=48,  # tokens
    max_new_tokens=64,
    temperature=1.0,
    top_k=ml_collections.config_dict.placeholder(int),
    top_p=ml_collections.config_dict.placeholder(float),
    batch_size=64,  # answers at a time
    dtype="float32",
    end_ids=(),  # beside the ends of the folder
  )
  cfg.source = dict(
    models=("runs/rm_bt_crowd/model",),
    function=ml_collections.config_dict.placeholder(str),  # "module:function"
    url=ml_collections.config_dict.placeholder(str),
    crowd=ml_collections.config_dict.placeholder(str),
    names=(),  # the models' own
    calibrated=True,
    risk=ml_collections.config_dict.placeholder(str),  # the model's own
    alpha=ml_collections.config_dict.placeholder(float),
    kappa=ml_collections.config_dict.placeholder(float),
    dtype="float32",
    batch_size=32,  # texts per forward over all devices
    buckets=(64, 128),  # padded lengths, one compilation each
    connection=dict(
      key_variable=ml_collections.config_dict.placeholder(str),
      concurrency=4,
      requests_per_minute=ml_collections.config_dict.placeholder(float),
      timeout_s=60.0,
      max_attempts=6,
      backoff_s=1.0,  # doubles
      max_backoff_s=60.0,
    ),
  )
  cfg.pick_by = "mean"  # over outputs, "min", or the name of one
  cfg.oracle = dict(
    models=(),
    function=ml_collections.config_dict.placeholder(str),  # "module:function"
    url=ml_collections.config_dict.placeholder(str),
    crowd="two_groups",
    names=(),
    calibrated=True,
    risk=ml_collections.config_dict.placeholder(str),  # the model's own
    alpha=ml_collections.config_dict.placeholder(float),
    kappa=ml_collections.config_dict.placeholder(float),
    dtype="float32",
    batch_size=32,  # texts per forward over all devices
    buckets=(64, 128),  # padded lengths, one compilation each
    connection=dict(
      key_variable=ml_collections.config_dict.placeholder(str),
      concurrency=4,
      requests_per_minute=ml_collections.config_dict.placeholder(float),
      timeout_s=60.0,
      max_attempts=6,
      backoff_s=1.0,  # doubles
      max_backoff_s=60.0,
    ),
  )
  cfg.chunk = 64  # prompts between two writes
  cfg.num_resamples = 1000
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant == "candidates":
    cfg.data.files = ("$JAXALIGN_DATA/bon_tulu16_NC/candidates.jsonl.gz",)
    cfg.policy = None
    cfg.num_samples = 11  # those that the judge has rated
    cfg.source.buckets = (512,)
    cfg.oracle = None
  if variant == "smoke":
    cfg.policy = None
    cfg.data.files = ("synthetic:two_groups,num_annotators=10:train",)
    cfg.data.limit = 40
    cfg.num_samples = 2
    cfg.source.update(models=(), crowd="two_groups")
    cfg.pick_by = "warm"
    cfg.chunk = 16
    cfg.num_resamples = 50
  return cfg
