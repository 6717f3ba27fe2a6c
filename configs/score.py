r"""What reward does each response get?

  python -m jaxalign.experiments.score --config=configs/score.py \
      --config.model=runs/rm_bt_crowd/model \
      --config.data.eval_files="('my.jsonl.gz',)" --workdir=runs/score

Writes scores.jsonl: the records as read, each with `rewards`, one row per
response and one column per output of the model. `:smoke` is the same on the
synthetic crowd.

Measured: whatever it is given.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()

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
  cfg.model = "runs/rm_bt_crowd/model"
  cfg.dtype = "float32"
  cfg.calibrated = False
  cfg.batch_size = 64  # responses per forward over all devices
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())
  return cfg
