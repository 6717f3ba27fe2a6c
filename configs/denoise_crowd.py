r"""Does the strength that ten models give a pair find its wrong label?

  python -m jaxalign.experiments.denoise --config=configs/denoise_crowd.py \
      --workdir=runs/denoise_crowd

A crowd of one clear taste, 40 % of whose votes are replaced by a coin, so that
about 20 % of the labels are wrong; the records carry the noise-free probability
as a second judge. Writes train.jsonl.gz and eval.jsonl.gz for
`configs/rm_denoised_crowd.py`, and a page. `:sources` has three sources, with
20, 40 and 60 % of the votes replaced, for `configs/rm_combined_crowd.py`.
`:smoke` trains three members for 20 steps.

Claimed before any run: AUC of low strength above 0.9 on judged training pairs.
Control, the same without noise (`label_noise=0`): as good as no judged label is
contradicted, and few strengths are below 0.

Measured: AUC 0.9958 ± 0.0005 over three seeds, on 1,533 judged training pairs
of which 18.9 % are contradicted; every judged pair of the weakest tenth is one
of them (recall 0.529). Control, one run: 11 of 1,533 strengths are below 0, and
203 of the 467 pairs that the judge holds for a tie. docs/results.md has more.
"""

import ml_collections

VARIANTS = ("full", "sources", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  crowd = "one_taste,temperature=0.05,label_noise=0.4,judge=true"
  cfg.data = dict(
    train_files=(f"synthetic:{crowd},num_annotators=100:train",),
    eval_files=(f"synthetic:{crowd},num_test_annotators=100:test",),
    tokenizer="byte",
    max_length=128,
    buckets=(96, 128),
  )
  cfg.model = dict(
    architecture=dict(num_layers=1, num_heads=4, embed_dim=32, mlp_dim=64)
  )
  cfg.optimizer = dict(learning_rate=3e-3, warmup_steps=10, weight_decay=0.01)
  cfg.train = dict(num_steps=62, checkpoint_every=62, keep_last=1)  # one epoch

  if variant == "sources":  # for rm_combined_crowd.py
    taste = "one_taste,groups={0},tastes=warmth,shares=1.0,temperature=0.05"
    # Numbers of people differ, so that no two sources ask about the same texts.
    crowds = [
      (f"{taste.format(name)},label_noise={noise},judge=true", people)
      for name, noise, people in (
        ("calm", 0.2, 21),
        ("mixed", 0.4, 20),
        ("loud", 0.6, 19),
      )
    ]
    cfg.data.train_files = tuple(
      f"synthetic:{one},num_annotators={people}:train" for one, people in crowds
    )
    cfg.data.eval_files = tuple(
      f"synthetic:{one},num_test_annotators={people}:test"
      for one, people in crowds
    )
    cfg.data.update(tokenizer=None, max_length=96, buckets=(64, 96))
    folder = "$JAXALIGN_DATA/stories260k_lm"
    cfg.model = dict(init_from=folder, trainable="head", pooling="mean")
    cfg.optimizer.learning_rate = 1e-2
  if variant == "smoke":
    cfg.optimizer.warmup_steps = 2
    cfg.train.update(num_steps=20, batch_size=8, checkpoint_every=20)
    cfg.ensemble = dict(num_members=3, num_shown=5)
  return cfg
