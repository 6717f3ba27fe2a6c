r"""Does a 7B policy answer a child and a scholar equally well?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_maxmin_tulu2_7b.py \
      --workdir=runs/policy_maxmin_tulu2_7b

MaxMin-RLHF's larger experiment (arXiv 2402.08925), pair P1: answers for an
elementary student against answers at the level of a PhD, one reward model per
group. For a v5e-16 slice (`--topology=v5e:4x4`), the base split over all of it.
`$JAXALIGN_MODELS` holds tulu-2-7b and the two reward models that `train_reward`
leaves; `prompts/alpaca_gpt4_10k.jsonl` holds the instructions as records.
Numbers in brackets: [code] the authors' program and SLURM script, [RLPHF] the
program that theirs comes from, [TRL] its defaults of that time. Where they
sampled with the end of text switched off, here it may come, and one that does
not come costs one deviation. The authors' own reward is
`welfare.kind="sample_min"`. `:shape` is for the compile stage and needs no
folder, `:shape_qwen3_8b` the same of Qwen3-8B for v6e:8x8; `:smoke` is small,
on the synthetic crowd.

Claimed (table 2, as transcribed by others): win rates of 57.8 and 55.6 %, about
45 prompts each, so a standard error of 7 points.

Measured: not yet run.
"""

import ml_collections

VARIANTS = ("full", "shape", "shape_qwen3_8b", "smoke")
SHAPES = {"shape": "llama-2-7b", "shape_qwen3_8b": "qwen3-8b", "smoke": "tiny"}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("prompts/alpaca_gpt4_10k.jsonl",), max_prompt_length=512
  )  # [code]
  cfg.model = dict(
    init_from="$JAXALIGN_MODELS/tulu-2-7b", dtype="bfloat16", remat="full"
  )
  cfg.model.lora = dict(rank=16)  # [code], which has a dropout of 0.05
  cfg.sampling = dict(max_new_tokens=512, min_new_tokens=32)  # [code]
  cfg.source = dict(  # calibrated; raw in [code], where units differ
    models=("$JAXALIGN_MODELS/rm_p1a", "$JAXALIGN_MODELS/rm_p1b"),
    names=("elementary", "phd"),
    dtype="bfloat16",
    buckets=(256, 512),  # [code] cuts at 512
  )
  cfg.policy = dict(
    epochs=8,  # [code]
    minibatches=4,
    stop_kl=0.15,  # 1.5 times a target of 0.1, as TRL reads it [code]
  )
  cfg.critic = dict(kind="shared", coef=0.1)  # a value head [code]; [TRL]
  cfg.kl = dict(  # [TRL]; nats and responses
    coef=0.2, controller="adaptive", target=6.0, horizon=10_000.0
  )
  cfg.reward = dict(scale="standardise")  # score scaling and norm [code]
  cfg.optimizer = dict(  # [code]
    learning_rate=1.4e-5, schedule="constant", b2=0.999
  )
  cfg.train = dict(
    num_iterations=190,  # the step that [code] generates from
    num_prompts=128,  # 16 times 8 accumulated [RLPHF]; 1 in [code]
    checkpoint_every=10,  # [code]
  )
  side = 8 if variant == "shape_qwen3_8b" else 4
  cfg.mesh = dict(data=1, fsdp=side, tensor=side)

  if variant != "full":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = SHAPES[variant]
  if variant == "smoke":
    cfg.data.update(
      train_files=("synthetic:two_groups:train",), max_prompt_length=48
    )
    cfg.model.update(dtype="float32", lora=dict(rank=2, alpha=4.0))
    cfg.sampling.update(min_new_tokens=0, max_new_tokens=16)
    cfg.source.update(models=(), crowd="two_groups", buckets=(64,))
    cfg.policy.update(epochs=1, minibatches=1)
    cfg.train.update(num_iterations=2, num_prompts=8, checkpoint_every=2)
    cfg.mesh.update(data=-1, fsdp=1, tensor=1)
  return cfg
