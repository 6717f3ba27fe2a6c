r"""How likely are people's answers to a policy before and after tuning?

  python -m jaxalign.experiments.perplexity --config=configs/perplexity.py \
      --config.models="('runs/sft_crowd/model','runs/policy/model')" \
      --config.data.eval_files="('test.jsonl.gz',)" --workdir=runs/perplexity

Of each record the first response is read: the preferred one of held-out pairs,
as MORE evaluates the models that it has tuned (arXiv 2312.07401, table 1), or
what a policy has answered, in the file of `sample`, under the model that it
started from. All models are compared with the first. `:smoke` is small.

Measured: whatever it is given.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.models = ("runs/sft_crowd/model",)
  cfg.data = dict(train_files=(), eval_files=("synthetic:two_groups:test",))

  if variant == "smoke":
    cfg.num_samples = 20
  return cfg
