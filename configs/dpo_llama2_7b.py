r"""Does DPO on preference files match PPO from the same preferences at 7B?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_dpo \
      --config=configs/dpo_llama2_7b.py --workdir=runs/dpo_llama2_7b

The DPO baseline of "Secrets of RLHF in large language models part II" (arXiv
2401.06080) at its size: Llama-2-7B, tuned on the chosen answers first, and
Anthropic's helpful and harmless pairs. `$JAXALIGN_MODELS/llama2_7b_sft` is the
folder of that tuned policy. `:more` weighs helpful and harmless pairs by the
gradients of their losses. `:em` trains two policies, adapters on one base, for
the latent groups of the records of `configs/rm_mixture_tulu2_7b.py`.
Numbers in brackets: [dpo] Rafailov et al. 2023, appendix B, which has RMSprop
where AdamW is here; the rest is ours.

For a slice of v5e:4x4. `:shape` is the same from scratch and needs no files:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile --stage=train_dpo \
      --config=configs/dpo_llama2_7b.py:shape --topology=v5e:4x4

`:smoke` is small, on the synthetic crowd.

Measured: not yet run. Compiled for v5e:4x4, a step takes 11.47 of 15.75 GiB on
each chip, 6.76 of them activations, and nothing is held whole that should be
split (commit 29f3845, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
"""

import ml_collections

VARIANTS = ("full", "more", "em", "shape", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  hh = "hub:Anthropic/hh-rlhf"
  subsets = ("helpful-base", "harmless-base")
  cfg.data = dict(train_files=tuple(f"{hh}:{name}:train" for name in subsets))
  cfg.data.update(eval_files=tuple(f"{hh}:{name}:test" for name in subsets))
  cfg.model = dict(
    init_from="$JAXALIGN_MODELS/llama2_7b_sft", dtype="bfloat16", remat="full"
  )
  cfg.recipe = dict(name="dpo", beta=0.1)  # [dpo]
  cfg.optimizer = dict(
    learning_rate=1e-6,  # [dpo]
    schedule="constant",
    warmup_steps=150,  # [dpo]
  )
  cfg.train = dict(num_steps=1500, batch_size=64, eval_every=250)  # [dpo]
  cfg.mesh = dict(data=1, fsdp=16)
  cfg.eval = dict(batch_size=64)

  if variant == "more":
    cfg.data.mixing = "stratified"
    cfg.coupling = dict(name="more")
  if variant == "em":
    cfg.data.train_files = ("$JAXALIGN_DATA/rlphf_p1_train.jsonl",)
    cfg.data.eval_files = ("$JAXALIGN_DATA/rlphf_p1_eval.jsonl",)
    cfg.recipe = dict(name="em_dpo", num_components=2, steps_per_round=250)
    cfg.model.lora = dict(rank=16)
    cfg.optimizer.learning_rate = 1e-5
  if variant == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = "llama-2-7b"
    cfg.train.accumulation = 4
  if variant == "smoke":
    few = "synthetic:two_groups,num_annotators=20,num_test_annotators=10"
    cfg.data.update(train_files=(f"{few}:train",), eval_files=(f"{few}:test",))
    cfg.data.tokenizer = "byte"
    cfg.model.update(shape="tiny", dtype="float32", remat="none")
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(num_steps=20, batch_size=8, eval_every=10)
    cfg.train.checkpoint_every = 10
    cfg.mesh = dict()
    cfg.eval.update(batch_size=16, num_samples=100)
  return cfg
