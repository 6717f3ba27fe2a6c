r"""Whose answers do the groups, a held-out model and a judge prefer?

  python -m jaxalign.experiments.win_rates --config=configs/win_rates.py \
      --config.first="('runs/a/best.jsonl',)" \
      --config.second="('runs/b/best.jsonl',)" --workdir=runs/win_rates

Both files answer the same prompts in the same order, with the first response of
each record. `source` compares by reward, per output: the crowd's true utilities
here, or a reward model that neither policy was trained on. `:judge` asks an
OpenAI-compatible endpoint as well, in both orders; what it says of one order
and not of the other is a tie. It states the cost first and stops there unless
`judge.budget` covers it or, without a budget, `--yes` is given. `:groups` has
it compare by the instruction of each of two groups, as MaxMin-RLHF judges pair
P1: on a group's own prompts where records name it, else on all. `:hh` asks what
is more helpful and what is less harmful, each by itself, as MORE does. `:smoke`
compares the crowd's own choices with themselves.

Measured: whatever it is given. MaxMin against one reward, policies of
`configs/pipeline_crowd.py` over five seeds, by true utility: a score of 0.910 ±
0.031 in the eyes of the minority and 0.200 ± 0.069 in those of the majority;
the rest is in docs/results.md.
"""

import ml_collections

VARIANTS = ("full", "judge", "groups", "hh", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.first = ("runs/a/best.jsonl",)
  cfg.second = ("runs/b/best.jsonl",)
  cfg.source = dict(
    crowd="two_groups", batch_size=32, buckets=(64, 128, 256, 512)
  )

  if variant in ("judge", "groups", "hh"):
    cfg.judge = dict(temperature=0.0, max_tokens=256)
  if variant == "groups":
    cfg.instructions = (
      "elementary=Can an elementary school student easily understand it?",
      "phd=Could only a PhD student of that very field understand it?",
    )
  if variant == "hh":
    cfg.instructions = ("helpful", "harmless")
  if variant == "smoke":
    cfg.first = ("synthetic:two_groups,num_annotators=4:train",)
    cfg.second = cfg.first
    cfg.num_resamples = 50
  return cfg
