r"""Does flipping the weakest tenth of HH make Llama-2-7B a better reward model?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/rm_denoised_llama2_7b.py \
      --workdir=runs/rm_denoised_llama2_7b

"Secrets of RLHF II", section 2: labels of the weakest tenth swapped, and each
pair's strength as its margin. Reads what `configs/denoise_llama2_7b.py` wrote.
From the supervised model in the folder `llama-2-7b-sft` of JAXALIGN_MODELS,
parameters and optimiser split over the 16 chips of a v5e:4x4. `:shape` is the
same from scratch and needs no folder; `:smoke` is small and reads what
`configs/denoise_crowd.py` wrote. A step's cost needs no TPU:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
      --config=configs/rm_denoised_llama2_7b.py:shape --topology=v5e:4x4

[S1] is the report (arXiv 2401.06080), [S2] its code, [S5] its figures read off,
[default] a choice where none of them says.

Measured: not yet run. Compiled for v5e:4x4, a step takes 8.34 of 15.75 GiB on
each chip (commit 92eaf5b, jax 0.10.2, libtpu 0.0.42; docs/scaling.md).
"""

import ml_collections

VARIANTS = ("full", "shape", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("runs/denoise_llama2_7b/train.jsonl.gz",),
    eval_files=("hub:Anthropic/hh-rlhf:test",),
    on_bad_record="skip",
  )  # 512 tokens; the report has 2048 [S2]
  cfg.model = dict(
    init_from="$JAXALIGN_MODELS/llama-2-7b-sft", dtype="bfloat16", remat="full"
  )
  cfg.recipe = dict(name="denoised", policy="flip_margin")  # [S5 Fig 8]
  cfg.optimizer = dict(learning_rate=5e-6, schedule="linear")  # [S1 B.2]
  cfg.optimizer.update(warmup_steps=100, b2=0.95, eps=1e-6)  # [S2]
  cfg.train = dict(
    num_steps=10050,  # one epoch [S1 B.2]
    batch_size=16,  # [S1 B.2]
    eval_every=1000,
  )
  cfg.mesh = dict(fsdp=16)

  if variant == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = "llama-2-7b"
  if variant == "smoke":
    crowd = "one_taste,temperature=0.05,label_noise=0.4,judge=true"
    cfg.data.train_files = ("runs/denoise_crowd/train.jsonl.gz",)
    cfg.data.eval_files = (f"synthetic:{crowd},num_test_annotators=100:test",)
    cfg.data.update(tokenizer="byte", max_length=128, buckets=(96, 128))
    cfg.model.update(shape="tiny", dtype="float32", remat="none")
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.mesh.fsdp = 1
    cfg.eval = dict(num_samples=100)
  return cfg
