r"""How good are these reward models on these held-out preferences?

  python -m jaxalign.experiments.evaluate --config=configs/evaluate.py \
      --config.models="('runs/rm_bt_crowd/model',)" \
      --config.data.eval_files="('my.jsonl.gz',)" --workdir=runs/evaluate

Accuracy, NLL, Brier score and ECE with 95 % intervals, over all pairs and per
source, the ECE's noise floor; accuracy per group and annotator and of the worst
group, agreement and drift of several models; a page with reliability diagrams
and reward histograms. Sources that train a bag of words for comparison go into
`data.train_files`. `:prism` judges them person by person, on the rankings of
PRISM's 1,500 people; `:dices` rater by rater and by their groups, on which of
two conversations with a chatbot ends in a safe reply, from a CSV file of DICES
in this folder. `:smoke` resamples less.

Measured: whatever it is given; docs/results.md holds the runs of this project.
"""

import ml_collections

VARIANTS = ("full", "prism", "dices", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=(), eval_files=("synthetic:two_groups:test",))
  cfg.data.update(buckets=(64, 128, 256, 512))
  cfg.models = ("runs/rm_bt_crowd/model",)

  if variant == "prism":
    cfg.data.eval_files = ("hub:HannahRoseKirk/prism-alignment:utterances",)
  if variant == "dices":
    cfg.data.eval_files = (
      "dices_votes:diverse_safety_adversarial_dialog_350.csv",
    )
  if variant == "smoke":
    cfg.eval = dict(num_samples=100)
  return cfg
