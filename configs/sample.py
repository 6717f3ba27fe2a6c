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


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0

  cfg.files = ("synthetic:two_groups:test",)
  cfg.limit = ml_collections.config_dict.placeholder(int)  # prompts
  cfg.on_bad_record = "error"
  cfg.extra_columns = ()
  cfg.crowd_seed = 0
  cfg.model = "runs/sft_crowd/model"
  cfg.dtype = "float32"
  cfg.num_responses = 5
  cfg.batch_size = 80  # responses at once over all devices
  cfg.max_prompt_length = 64  # tokens
  cfg.max_new_tokens = 64
  cfg.temperature = 0.8  # [S1 B.2] of "Secrets of RLHF II", as the two below
  cfg.top_p = 0.9
  cfg.repetition_penalty = 1.1
  cfg.end_ids = ()  # beside the ends of the folder
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant == "smoke":
    cfg.max_new_tokens = 16
  return cfg
