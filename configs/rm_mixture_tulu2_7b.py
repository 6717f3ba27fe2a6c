r"""Does EM on Tulu-2-7B separate elementary-level from PhD-level annotators?

  JAXALIGN_MODELS=... JAXALIGN_DATA=... \
  python -m jaxalign.experiments.train_reward \
      --config=configs/rm_mixture_tulu2_7b.py --workdir=runs/rm_mixture_tulu2_7b

The reward half of MaxMin-RLHF (arXiv 2402.08925) as the authors' program runs
it [M1]: preferences P1A and P1B of Personalized Soups (arXiv 2310.11564), 3,000
rows each dealt out to 40 users a group, of whom 20 train and 20 are held out;
one reward model per group, hard assignment with equal weights, ten rounds of
ten epochs, each with a schedule of its own, LoRA of rank 8. The rows are files
P1A.json and P1B.json of the paper's data, in `$JAXALIGN_DATA/rm_training`.
`:heads` has two heads on one adapter and one schedule over all rounds instead,
at half the price.

Unlike [M1]: the first split is random, where it takes user number mod 2; 16
pairs a step, where it takes one, at the same learning rate, which is untuned
here; no dropout, where its adapters have 0.1; bfloat16 in place of 8 bits. One
start, as there; `recipe.restarts` tries more.

For a slice of v5e:4x4. `:shape` is `:heads` from scratch, `:shape_separate` the
full one, and they need no files:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_mixture_tulu2_7b.py:shape --topology=v5e:4x4

`:smoke` is small, on the synthetic crowd. Claimed: each user is assigned to the
right group; the paper's numbers are not given per round. Control: `recipe`
with assignment="oracle".

Measured: not yet run. Compiled for v5e:4x4, a step of `:shape` takes 3.78 of
15.75 GiB on each chip, 2.22 of them activations, and nothing is held whole that
should be split (commit 89b718f, jax 0.10.2, libtpu 0.0.42; docs/scaling.md); of
`:shape_separate` 6.52 GiB, 4.93 of them activations (commit 7fc6183).
"""

import ml_collections

VARIANTS = ("full", "heads", "shape", "shape_separate", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.seed = 1103  # [M1], as is all that is not said to be otherwise
  files = "$JAXALIGN_DATA/rm_training/P1[AB].json"
  cfg.data = dict(train_files=(f"personalized_soups/train:{files}",))
  cfg.data.update(eval_files=(f"personalized_soups/eval:{files}",))
  cfg.data.update(split_by="annotator")
  cfg.model = dict(init_from="$JAXALIGN_MODELS/tulu-2-7b", dtype="bfloat16")
  cfg.model.update(remat="full", lora=dict(rank=8, alpha=32.0))
  cfg.recipe = dict(
    name="mixture",
    num_components=2,
    num_users=40,  # 20 of each group train
    steps_per_round=1870,  # ten epochs of about 3,000 pairs
    assignment="hard",
    weights="uniform",
  )
  if variant not in ("heads", "shape"):
    cfg.recipe.update(separate=True, fresh_schedule=True)
  cfg.optimizer = dict(
    learning_rate=2e-5, schedule="linear", b2=0.999, weight_decay=0.001
  )
  cfg.train = dict(num_steps=18_700, batch_size=16)  # ten rounds
  cfg.train.update(eval_every=1870, checkpoint_every=374)
  cfg.mesh = dict(data=1, fsdp=16)
  cfg.eval = dict(batch_size=32)

  if variant in ("shape", "shape_separate"):
    cfg.data.tokenizer = "byte"
    cfg.model.shape = "llama-2-7b"
  if variant == "smoke":
    cfg.data.train_files = ("synthetic:two_groups:train",)
    cfg.data.eval_files = ("synthetic:two_groups:test",)
    cfg.data.tokenizer = "byte"
    cfg.model.update(shape="tiny", dtype="float32", remat="none")
    cfg.recipe.update(num_users=200, steps_per_round=5)
    cfg.optimizer.learning_rate = 1e-3
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.mesh = dict()
    cfg.eval.num_samples = 100
  return cfg
