r"""How would a crowd of personas label these responses?

  python -m jaxalign.experiments.personas --config=configs/personas.py \
      --config.endpoint.url=http://localhost:8000/v1 \
      --config.endpoint.model=my-model \
      --config.data.train_files="('my.jsonl.gz',)" --workdir=runs/personas

Asks an OpenAI-compatible endpoint for one label per persona and response, and
once for the population's distribution as the prior. The estimate comes first:
the run stops there unless `personas.budget` covers it or, without a budget,
`--yes` is given. Writes train.jsonl and eval.jsonl
with `labels`, votes.jsonl with every vote and its pseudo-counts, and a page
with refusals and malformed answers. Running it again asks only what is missing.
The key is read from the environment variable named by `endpoint.key_variable`.
`:smoke` labels ten pairs of the synthetic crowd.

Measured: whatever it is given.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0  # of the random part of waiting

  cfg.data = dict(
    train_files=("synthetic:two_groups:train",),
    eval_files=(),
    split_by=ml_collections.config_dict.placeholder(str),
    eval_fraction=ml_collections.config_dict.placeholder(float),
    tokenizer=ml_collections.config_dict.placeholder(str),  # without effect
    chat_template=ml_collections.config_dict.placeholder(str),
    max_length=512,  # without effect, as are the buckets
    buckets=(512,),
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    streaming=False,
    mixing="proportional",  # without effect
    pairs_per_source=ml_collections.config_dict.placeholder(int),
    prefetch=0,  # without effect
  )
  cfg.personas = dict(
    file="configs/personas.json",
    prior_strength=5.0,  # votes
    min_votes=10,
    price_prompt=0.15,  # dollars for a million tokens
    price_completion=0.60,
    budget=ml_collections.config_dict.placeholder(float),  # dollars; or --yes
  )
  cfg.endpoint = dict(
    url="http://localhost:8000/v1",
    model="default",
    key_variable=ml_collections.config_dict.placeholder(str),
    temperature=0.7,
    max_tokens=64,  # of an answer
    concurrency=16,
    requests_per_minute=ml_collections.config_dict.placeholder(float),
    timeout_s=60.0,
    max_attempts=6,
    backoff_s=1.0,  # doubles
    max_backoff_s=60.0,
  )

  if variant == "smoke":
    cfg.data.train_files = (
      "synthetic:two_groups,num_annotators=10,pairs_per_annotator=1:train",
    )
    cfg.endpoint.max_attempts = 2
  return cfg
