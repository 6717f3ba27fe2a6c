r"""What would a crowd call a response, by a model of the paper's sizes?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_dprm.py:opt_2_7b --workdir=runs/rm_dprm_opt_2_7b

DPRM at the sizes of its paper (arXiv 2402.09764): `:opt_2_7b` for 16 chips,
`:opt_6_7b` and `:llama_7b` for 32. Each starts from the fine-tuned policy in
the folder `opt-2.7b-sft`, `opt-6.7b-sft` or `llama-7b-sft` of JAXALIGN_MODELS,
as in the paper, on what the personas stage makes of your own prompts and
responses: the paper's data are not public. It names no settings of its reward
model either, so all marked [default] are this project's; the label set and its
utilities are the paper's [table 1]. The baseline `recipe.loss="cross_entropy"`
is its DPRM_C; "line" is the nearest to its DPRM_W, whose details are not
public. `:SIZE,shape` is the same from scratch and needs no folder and no data:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_dprm.py:opt_2_7b,shape --topology=v5e:4x4

`:smoke` and `:SIZE,smoke` are small, on the synthetic crowd.

Claimed (version 1, table 2): a policy trained on it is predicted to answer
helpfully and harmlessly in so many cases, in per cent,

  opt_2_7b   30.0 with DPRM, 28.7 with cross-entropy, 24.2 with a plain reward
             model, 23.5 before
  opt_6_7b   28.3, 27.9, 24.7, 26.5
  llama_7b   37.6, 36.0, 33.9, 33.2

These are the model's own predictions, so the test is a judge that did not train
the policy.

Measured: not yet run. Compiled for v5e:4x4 (opt_2_7b) and v5e:4x8, a step takes
10.40, 5.81 and 5.80 of 15.75 GiB on each chip (commit 6e41560, jax 0.10.2,
libtpu 0.0.42; docs/scaling.md).
"""

import ml_collections

VARIANTS = ("full", "shape", "smoke")
SIZES = ("opt_2_7b", "opt_6_7b", "llama_7b")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  size, _, mode = variant.rpartition(",")
  if variant in SIZES:
    size, mode = variant, "full"
  size = size or SIZES[0]
  if size not in SIZES or mode not in VARIANTS:
    raise ValueError(
      f"variant must be one of {VARIANTS}, one of {SIZES}, or both as "
      f"SIZE,VARIANT; got {variant!r}"
    )
  small = size == "opt_2_7b"
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("runs/personas/train.jsonl",),  # of configs/personas.py
    eval_files=("runs/personas/eval.jsonl",),
    split_by="prompt",
  )
  cfg.model = dict(dtype="bfloat16", remat="dots" if small else "full")
  folder = size.replace("_", "-", 1).replace("_", ".")
  cfg.model.init_from = f"$JAXALIGN_MODELS/{folder}-sft"
  # DPRM_OT with the six labels [table 1]; its knobs are [default].
  cfg.recipe = dict(name="dprm", prior_strength=5.0)  # votes; 20 personas vote
  cfg.optimizer = dict(
    learning_rate=1e-5 if small else 1e-6, warmup_steps=30, b2=0.95
  )
  cfg.train = dict(
    num_steps=1000,  # an epoch of 64,000 pairs
    batch_size=64,  # [default]
    eval_every=250,
    checkpoint_every=125,
  )
  cfg.mesh = dict(fsdp=16 if small else 32)

  if mode == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = folder
  if mode == "smoke":
    cfg.data.update(
      train_files=("synthetic:labels:train",),
      eval_files=("synthetic:labels,label_votes=0:test",),
      tokenizer="byte",
    )
    cfg.model = dict(shape="tiny")
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.mesh.fsdp = 1
    cfg.eval = dict(num_samples=100)
  return cfg
