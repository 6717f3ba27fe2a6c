r"""How does a 7B policy fare by a reward without any pull to where it began?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_secrets_llama2_7b.py \
      --workdir=runs/policy_secrets_llama2_7b

PPO of "Secrets of RLHF in large language models, part II" (arXiv 2401.06080) on
the prompts of HH-RLHF, for a slice of v5e:8x8. To show what a reward model is
worth the report takes no KL at all; where a reward is denoised or contrastive,
KL and perplexity should stay lower than with plain Bradley-Terry. `:meta` are
the settings of its MetaRM rounds, a KL of 0.05 per token. Numbers in brackets:
[B.2] the report's appendix, [S2] its authors' program, [I] PPO-max of part I,
which clips scores in running deviations at 0.8. `$JAXALIGN_MODELS` holds
llama-2-7b-sft and rm, what `rm_denoised_llama2_7b.py` or another config leaves,
which the critic starts from as well. `:ptx` learns from demonstrations beside,
as InstructGPT does, and lets the critic learn alone for 50 iterations.

A repetition penalty and a nucleus are part of the sampler [B.2], and the loss
takes no account of them, as there; `:corrected` drops the penalty and makes up
for the nucleus (`sampling.truncated_loss`).

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/policy_secrets_llama2_7b.py:shape --topology=v5e:8x8

`:shape` needs no files; `:smoke` is small, on the synthetic crowd.

Measured: not yet run. Compiled for v5e:8x8, sampling takes 8.19 and learning
8.63 of 15.75 GiB on each chip (commit 7fc6183). On v5e:4x8 with fsdp alone
learning takes 13.94, and sampling 15.93, which does not fit.
"""

import ml_collections

VARIANTS = ("full", "meta", "ptx", "corrected", "shape", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("hub:Anthropic/hh-rlhf:train",))
  cfg.data.max_prompt_length = 512
  cfg.model = dict(
    init_from="$JAXALIGN_MODELS/llama-2-7b-sft", dtype="bfloat16", remat="full"
  )
  cfg.sampling = dict(  # [B.2]
    num_responses=4, max_new_tokens=512, temperature=0.8, top_p=0.9
  )
  cfg.sampling.repetition_penalty = 1.1  # [B.2]
  cfg.source = dict(models=("$JAXALIGN_MODELS/rm",), names=("reward",))
  cfg.source.update(dtype="bfloat16", buckets=(512, 1024))
  cfg.policy = dict(epochs=1, whiten=False)  # one pass over the buffer [S2]
  cfg.critic = dict(init_from="$JAXALIGN_MODELS/rm")  # [B.2]
  cfg.kl = dict(coef=0.0)  # sections 2.5 and 3.1
  cfg.reward = dict(scale="standardise", clip=0.8, missing_eos=None)  # [I]
  rates = dict(schedule="constant", b2=0.95, warmup_steps=100)  # [S2]
  cfg.optimizer = dict(learning_rate=5e-7, **rates)  # [B.2]
  cfg.critic_optimizer = dict(learning_rate=1.5e-6, **rates)  # [B.2]
  cfg.train = dict(num_iterations=2000, num_prompts=32)  # [B.2]
  cfg.mesh = dict(data=1, fsdp=32, tensor=2)

  if variant == "meta":
    cfg.kl.coef = 0.05  # [B.2]
  if variant == "ptx":
    cfg.texts = dict(files=("runs/sft_texts/train.jsonl",))
    cfg.policy.text_coef = 27.8  # InstructGPT
    cfg.critic.warmup_iterations = 50
  if variant == "corrected":
    cfg.sampling.update(truncated_loss=True, repetition_penalty=1.0)
  if variant == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = "llama-2-7b"
    cfg.critic.init_from = None
  if variant == "smoke":
    cfg.data.update(
      train_files=("synthetic:two_groups:train",), tokenizer="byte"
    )
    cfg.data.max_prompt_length = 48
    cfg.model = dict(shape="tiny")
    cfg.sampling.max_new_tokens = 16
    cfg.source = dict(crowd="two_groups", names=("warm", "brief"))
    cfg.critic.init_from = None
    cfg.optimizer.warmup_steps = cfg.critic_optimizer.warmup_steps = 0
    cfg.train = dict(num_iterations=2, num_prompts=8)
    cfg.mesh = dict()
  return cfg
