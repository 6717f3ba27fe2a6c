r"""How good are these reward models on these held-out preferences?

  python -m jaxalign.experiments.evaluate --config=configs/evaluate.py \
      --config.models="('runs/rm_bt_crowd/model',)" \
      --config.data.eval_files="('my.jsonl.gz',)" --workdir=runs/evaluate

Accuracy, NLL, Brier score and ECE with 95 % intervals, over all pairs and per
source, the ECE's noise floor; accuracy per group and annotator and of the worst
group, agreement and drift of several models; a page with reliability diagrams
and reward histograms. Sources that train a bag of words for comparison go into
`data.train_files`. `:smoke` resamples less.

Measured: whatever it is given; docs/results.md holds the runs of this project.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0  # of resampling

  cfg.data = dict(
    train_files=(),
    eval_files=("synthetic:two_groups:test",),
    split_by=ml_collections.config_dict.placeholder(str),
    eval_fraction=ml_collections.config_dict.placeholder(float),
    tokenizer=ml_collections.config_dict.placeholder(str),  # the model's own
    chat_template=ml_collections.config_dict.placeholder(str),
    max_length=512,  # tokens, prompt and response together
    buckets=(64, 128, 256, 512),  # padded lengths, one compilation each
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    streaming=False,
    mixing="proportional",
    pairs_per_source=ml_collections.config_dict.placeholder(int),
    prefetch=4,  # batches
  )
  cfg.models = ("runs/rm_bt_crowd/model",)
  cfg.average = False  # the mean of all models as one more
  cfg.dtype = "float32"
  cfg.eval = dict(batch_size=64, num_bins=10, num_samples=1000)
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant == "smoke":
    cfg.eval.num_samples = 100
  return cfg
