r"""Do two recipes together keep what each of them does alone?

  JAXALIGN_DATA=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_combined_crowd.py:VARIANT --workdir=runs/VARIANT

A linear head on frozen features of the small story model, so that a run takes
seconds. The first word of a variant names the pairs, the others what is
switched on; `:full` is `groups_mixture_more`:

noisy   three sources that want the same, with 20, 40 and 60 % of the votes
        replaced by a coin, scored by `denoise_crowd.py:sources`; what counts
        is a judge who sees no noise
groups  three sources, the groups of a crowd that want warmth, brevity and the
        topic. Control: `same`, where all want warmth
sure    two groups; with `_votes` each vote says how sure its person is
labels  three sources that each label responses by one taste

Claimed before the runs, over five crowds against each parent alone: denoising
lowers the NLL of MORE and of MetaRM on noisy pairs, as it does alone; MORE
raises a mixture's accuracy for new people of the worst group; sure votes lower
a mixture's NLL for new people; MORE brings DPRM nearer to the labels of the
worst source. Five paired crowds show, with a power of 80 % at 5 %, 1.66
standard deviations of the difference: about 0.02 in NLL or label distance and
0.03 in accuracy, where the deviations are those of docs/results.md. In the
control no difference may be larger. `:smoke` runs 20 steps.

Measured over seeds and crowds 0 to 4: denoising lowers the judge's NLL by 0.060
[0.046, 0.075] under MORE and 0.063 [0.046, 0.079] under MetaRM, as it does
alone, and the accuracy by 0.04. MORE changes a mixture's worst group by -0.006
[-0.017, +0.005] and DPRM's worst source by -0.004 [-0.017, +0.009]; sure votes
change a mixture's NLL by -0.009 [-0.021, +0.003]. docs/results.md has the
table.
"""

import ml_collections

VARIANTS = (
  "full",
  "smoke",
  "noisy_denoised",
  "noisy_more",
  "noisy_denoised_more",
  "noisy_metarm",
  "noisy_denoised_metarm",
  "groups_more",
  "groups_mixture",
  "groups_mixture_more",
  "same_mixture",
  "same_mixture_more",
  "sure_votes",
  "sure_mixture",
  "sure_mixture_votes",
  "labels_more",
  "labels_dprm",
  "labels_dprm_more",
)
# Numbers of people differ, so that no two sources ask about the same texts.
SOURCES = (("warmth", 28), ("brevity", 32), ("topic", 36))
LABELS = "synthetic:labels,groups={0},tastes={0},shares=1.0"

# What each word of a variant switches on.
PARTS = {
  "plain": {
    "recipe": {"name": "bradley_terry"},
    "optimizer": {
      "learning_rate": 1e-2,
      "warmup_steps": 10,
      "weight_decay": 0.01,
    },
    "train": {"num_steps": 150, "batch_size": 48},
  },
  "denoised": {"loss": {"denoise": {"policy": "flip", "fraction": 0.1}}},
  "dprm": {"recipe": {"name": "dprm", "prior_strength": 1.0, "smoothing": 0.0}},
  "metarm": {
    "recipe": {
      "name": "metarm",
      "files": ("synthetic:two_groups:test_candidates",),
      "step_size": 1e-2,
    }
  },
  "mixture": {
    "recipe": {
      "name": "mixture",
      "num_components": 3,
      "steps_per_round": 30,
      "restarts": 2,
    }
  },
  "more": {"coupling": {"name": "more"}},
  "votes": {"loss": {"labels": "votes"}},
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  chosen = "groups_mixture_more" if variant in ("full", "smoke") else variant
  data, *parts = chosen.split("_")
  crowd = "three_groups"
  cfg = ml_collections.ConfigDict()
  if data == "same":
    crowd += ",tastes=warmth/warmth/warmth"
  train = (f"synthetic:{crowd},num_annotators=90:train",)
  test = (f"synthetic:{crowd}:test",)
  if data == "noisy":
    train, test = (
      ("runs/scored/train.jsonl.gz",),
      ("runs/scored/eval.jsonl.gz",),
    )
  if data == "sure":
    train, test = ("runs/sure.jsonl",), ("synthetic:two_groups:test",)
  if data == "labels":
    few = [(LABELS.format(name), number) for name, number in SOURCES]
    train = tuple(f"{one},num_annotators={n}:train" for one, n in few)
    test = tuple(  # with the shares of the whole source
      f"{one},label_votes=0,num_test_annotators={n // 4}:test" for one, n in few
    )
  mixing = "proportional" if data == "sure" else "stratified"
  cfg.data = dict(train_files=train, eval_files=test, mixing=mixing)
  cfg.data.update(max_length=96, buckets=(64, 96))
  cfg.model = dict(
    init_from="$JAXALIGN_DATA/stories260k_lm", trainable="head", pooling="mean"
  )

  for part in ("plain", *parts):
    cfg.update(PARTS[part])
  if variant == "smoke":
    cfg.train.update(num_steps=20, batch_size=9)
  return cfg
