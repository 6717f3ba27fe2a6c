r"""What does a policy answer to each prompt, k times over?

  python -m jaxalign.experiments.sample --config=configs/sample.py \
      --config.model=runs/sft_crowd/model --workdir=runs/sample

Writes responses.jsonl: one record a line with its prompt and `num_responses`
samples, in no order. It is what `metarm` reads as `recipe.files`; two equal
responses make a record useless there, and such records are dropped with a
count. `:smoke` takes shorter responses.

Measured: whatever it is given.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.files = ("synthetic:two_groups:test",)
  cfg.model = "runs/sft_crowd/model"
  cfg.max_prompt_length = 64
  cfg.max_new_tokens = 16 if variant == "smoke" else 64
  return cfg
