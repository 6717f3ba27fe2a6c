r"""What do ten Llama-2-7B reward models say of each pair of HH?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.denoise \
      --config=configs/denoise_llama2_7b.py --workdir=runs/denoise_llama2_7b

"Secrets of RLHF II", section 2.2: ten models that differ in the order of their
data and in their head, and the mean and spread of their gaps on every pair, for
`configs/rm_denoised_llama2_7b.py`. All ten train as one program: 81 GB of
parameters and moments each, split over the 64 chips of a v5e:8x8. `:shape` is
the same from scratch and needs no folder, `:smoke` is small, on the synthetic
crowd; a step's cost needs no TPU:

  JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile --stage=denoise \
      --config=configs/denoise_llama2_7b.py:shape --topology=v5e:8x8

[S1] is the report (arXiv 2401.06080), [S2] its code, [default] a choice where
neither says.

Measured: not yet run. Compiled for v5e:8x8, a step takes 12.79 of 15.75 GiB on
each chip, 1.23 of them activations (commit 92eaf5b, jax 0.10.2, libtpu 0.0.42;
docs/scaling.md).
"""

import ml_collections

VARIANTS = ("full", "shape", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("hub:Anthropic/hh-rlhf:train",),
    eval_files=("hub:Anthropic/hh-rlhf:test",),
    on_bad_record="skip",
  )  # 512 tokens; the report has 2048 [S2]
  cfg.model = dict(
    init_from="$JAXALIGN_MODELS/llama-2-7b-sft", dtype="bfloat16", remat="full"
  )
  cfg.optimizer = dict(learning_rate=5e-6, schedule="linear")  # [S1 B.2]
  cfg.optimizer.update(warmup_steps=100, b2=0.95, eps=1e-6)  # [S2]
  cfg.train = dict(
    num_steps=10050,  # one epoch [S1 B.2]
    batch_size=16,  # pairs per member and step [S1 B.2]
    eval_every=1000,
  )
  cfg.ensemble = dict(
    batch_size=16,  # pairs that all members score at once
    num_shown=50,  # pairs of each kind on the page
    at_once=1,  # ten side by side need ten times the activations
  )
  cfg.mesh = dict(fsdp=16, tensor=4)

  if variant == "shape":
    cfg.data.tokenizer = "byte"
    cfg.model.shape = "llama-2-7b"
  if variant == "smoke":
    crowd = "one_taste,temperature=0.05,label_noise=0.4,judge=true"
    cfg.data.train_files = (f"synthetic:{crowd}:train",)
    cfg.data.eval_files = (f"synthetic:{crowd}:test",)
    cfg.data.update(tokenizer="byte", max_length=128, buckets=(96, 128))
    cfg.model = dict(shape="tiny")
    cfg.optimizer.update(learning_rate=1e-3, warmup_steps=2)
    cfg.train.update(
      num_steps=20, batch_size=8, eval_every=10, checkpoint_every=10
    )
    cfg.ensemble.update(num_members=3, num_shown=5)
    cfg.mesh.update(fsdp=1, tensor=1)
  return cfg
