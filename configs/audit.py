r"""What is in these preferences, and what can be learned from so many?

  python -m jaxalign.experiments.audit --config=configs/audit.py \
      --config.data.train_files="('train.jsonl.gz',)" \
      --config.data.eval_files="('test.jsonl.gz',)" --workdir=runs/audit

One page before any training: rows, lengths, tokens, votes and ties, length and
position bias, duplicates, leakage between the splits, pairs per annotator,
whether there is more than one taste, and the smallest differences in accuracy
and ECE that the held-out pairs can show. `:smoke` permutes less.

Measured: whatever it is given; docs/results.md holds audits of real pairs.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0  # of permutations and simulated samples

  cfg.data = dict(
    train_files=("synthetic:two_groups:train",),
    eval_files=("synthetic:two_groups:test",),
    split_by=ml_collections.config_dict.placeholder(str),
    eval_fraction=ml_collections.config_dict.placeholder(float),
    tokenizer=ml_collections.config_dict.placeholder(str),
    chat_template=ml_collections.config_dict.placeholder(str),
    max_length=512,  # tokens, prompt and response together
    buckets=(512,),  # without effect: nothing is padded
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    streaming=False,
    mixing="proportional",  # without effect
    pairs_per_source=ml_collections.config_dict.placeholder(int),
    prefetch=0,  # without effect
  )
  cfg.data.tokenizer = "byte"
  cfg.audit = dict(
    num_samples=999,  # permutations
    num_rows=20_000,  # pairs in the permutation test
    similarity=0.8,  # Jaccard, of word triples
    num_bins=10,
    accuracy=0.7,  # of the models to be compared
    disagreement=0.3,  # pairs on which exactly one of them is right
  )

  if variant == "smoke":
    cfg.audit.update(num_samples=99, num_rows=2_000)
  return cfg
