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

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("synthetic:two_groups:train",),
    buckets=(512,),  # without effect, as is prefetch
    prefetch=0,
  )
  cfg.personas = dict(
    file="configs/personas.json",
    price_prompt=0.15,  # dollars for a million tokens
    price_completion=0.60,
  )

  if variant == "smoke":
    cfg.data.train_files = (
      "synthetic:two_groups,num_annotators=10,pairs_per_annotator=1:train",
    )
    cfg.endpoint = dict(max_attempts=2)
  return cfg
