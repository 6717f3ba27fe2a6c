r"""How few tokens does the synthetic crowd need?

  python -m jaxalign.experiments.train_tokenizer \
      --config=configs/tokenizer_crowd.py --workdir=runs/tokenizer_crowd

Byte-level BPE of the training texts, for models that start from scratch; a
training answer becomes 10 tokens in the mean. `:smoke` learns 41 merges alone.

Measured: 512 tokens, 3.25 bytes each over prompts and answers; crowd seed 0.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("synthetic:two_groups:train",))
  cfg.vocab_size = 300 if variant == "smoke" else 512
  return cfg
