r"""Whom does this reward model serve?

  python -m jaxalign.experiments.people --config=configs/people.py \
      --config.model=FOLDER \
      --config.data.eval_files="('bowling-green.american-assembly',)" \
      --workdir=runs/people

FOLDER is any reward model or language model in Hugging Face layout; the votes
are a folder that Polis exported, any other file of votes on single items, or
pairs with annotators. The page shows each person as a dot, accuracy with and
without five of their own pairs, the groups found, statements that unite and
divide, and the tenth of people who are served worst. Texts pass the model once
and their features are kept in the workdir. `:smoke` fits less, on the synthetic
crowd.

Measured on Polis' bowling-green (23,634 pairs, 20 of a person), by
SmolLM2-135M-Instruct read at layer 18, one seed: 833 people scored on other
statements than those that place them, 0.695 [0.682, 0.707] without own pairs,
0.713 [0.699, 0.724] after five; two groups; worst tenth 0.330 and 0.345. 40
CPU-seconds with cached features, commit c1f56b5. docs/results.md has nested
runs.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=(), eval_files=("synthetic:two_groups:test",))
  cfg.data.update(buckets=(64, 128, 256, 512))
  cfg.model = "runs/rm_bt_crowd/model"

  if variant == "smoke":
    cfg.groups = dict(components=(1, 2), ridges=(0.01,), folds=2, restarts=1)
    cfg.people = dict(num_samples=50)
  return cfg
