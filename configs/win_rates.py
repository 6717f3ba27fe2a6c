r"""Whose answers do the groups, a held-out model and a judge prefer?

  python -m jaxalign.experiments.win_rates --config=configs/win_rates.py \
      --config.first="('runs/a/best.jsonl',)" \
      --config.second="('runs/b/best.jsonl',)" --workdir=runs/win_rates

Both files answer the same prompts in the same order, with the first response of
each record. `source` compares by reward, per output: the crowd's true utilities
here, or a reward model that neither policy was trained on. `:judge` asks an
OpenAI-compatible endpoint as well, in both orders; what it says of one order
and not of the other is a tie. It states the cost first and stops there unless
`judge.budget` covers it or, without a budget, `--yes` is given. `:smoke`
compares the crowd's own choices with themselves.

Measured: whatever it is given. MaxMin against one reward, policies of
`configs/pipeline_crowd.py` over five seeds, by true utility: a score of 0.910 ±
0.031 in the eyes of the minority and 0.200 ± 0.069 in those of the majority;
the rest is in docs/results.md.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "judge", "smoke"):
    raise ValueError(
      f"variant must be 'full', 'judge' or 'smoke', got {variant!r}"
    )
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0  # of resampling

  cfg.first = ("runs/a/best.jsonl",)
  cfg.second = ("runs/b/best.jsonl",)
  cfg.source = dict(
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
    buckets=(64, 128, 256, 512),  # padded lengths, one compilation each
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
  cfg.crowd_seed = 0  # of the crowd that the answers are for
  cfg.margin = 0.0  # of rewards that count as a tie
  cfg.judge = None
  cfg.num_resamples = 1000
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant == "judge":
    cfg.judge = dict(
      url="http://localhost:8000/v1",
      model="default",
      key_variable=ml_collections.config_dict.placeholder(str),
      temperature=0.0,
      max_tokens=256,  # of an answer
      price_prompt=0.0,  # dollars for a million tokens
      price_completion=0.0,
      budget=ml_collections.config_dict.placeholder(float),  # dollars; or --yes
      concurrency=16,
      requests_per_minute=ml_collections.config_dict.placeholder(float),
      timeout_s=60.0,
      max_attempts=6,
      backoff_s=1.0,  # doubles
      max_backoff_s=60.0,
    )
  if variant == "smoke":
    cfg.first = ("synthetic:two_groups,num_annotators=4:train",)
    cfg.second = cfg.first
    cfg.num_resamples = 50
  return cfg
