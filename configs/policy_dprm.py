r"""Do expected utilities of a label model make a policy helpful and harmless?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_dprm.py:opt_2_7b \
      --workdir=runs/policy_dprm_opt_2_7b

The policy half of DPRM (arXiv 2402.09764): PPO on the expected utility of a
model of six labels, for OPT-2.7B, OPT-6.7B and Llama-7B. The paper gives none
of its settings; they are those of common practice, and the same for all three
but for the learning rate. Utilities are bounded, so rewards are taken as they
are. `$JAXALIGN_MODELS` holds opt-2.7b-sft and so on and opt-2.7b-dprm and so
on, which `rm_dprm.py` of the same size leaves; `runs/personas/train.jsonl` is
what `personas.py` leaves. The control is a plain reward model in
`source.models`. A size is joined with `shape` or `smoke` by a comma:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/policy_dprm.py:opt_6_7b,shape --topology=v5e:4x8

`shape` needs no files; `smoke` is small, on the synthetic crowd.

Claimed (table 2 of the paper): 30.0 % of answers are of the best label with
transport, 24.2 % with a plain reward, 23.5 % before, OPT-2.7B.

Measured: not yet run. Compiled for v5e:4x4 of OPT-2.7B, sampling takes 13.57
and learning 13.88 of 15.75 GiB on each chip, and nothing is held whole that
should be split (commit 78fce71, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
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
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("runs/personas/train.jsonl",))
  cfg.data.max_prompt_length = 256
  name = size.replace("_", "-", 1).replace("_", ".")
  folder = f"$JAXALIGN_MODELS/{name}"
  cfg.model = dict(init_from=f"{folder}-sft", dtype="bfloat16", remat="full")
  cfg.sampling = dict(max_new_tokens=256)
  cfg.source = dict(models=(f"{folder}-dprm",), names=("utility",))
  cfg.source.dtype = "bfloat16"
  small = size == "opt_2_7b"
  cfg.optimizer = dict(learning_rate=5e-6 if small else 1e-6)
  cfg.critic_optimizer = dict(learning_rate=5e-6)
  cfg.train = dict(num_iterations=250, num_prompts=256)
  cfg.mesh = dict(data=1, fsdp=16 if small else 32)

  if mode == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = name
  if mode == "smoke":
    cfg.data.update(train_files=("synthetic:labels:train",), tokenizer="byte")
    cfg.data.max_prompt_length = 48
    cfg.model = dict(shape="tiny")
    cfg.sampling.max_new_tokens = 16
    cfg.source = dict(crowd="labels", names=("warm", "brief"))
    cfg.train = dict(num_iterations=2, num_prompts=8)
    cfg.mesh = dict()
  return cfg
