r"""Does a policy for your prompts serve every output of your reward models?

  python -m jaxalign.experiments.train_policy --config=configs/policy.py \
      --config.model.init_from=runs/sft/model \
      --config.source.models="('runs/reward/model',)" \
      --config.data.train_files="('train.jsonl',)" \
      --config.data.eval_files="('test.jsonl.gz',)" --workdir=runs/policy

PPO with a critic, from the model that `sft.py` leaves or any other, on what
`reward.py` leaves, or on any other reward model. Of the records only prompts
are read. `:mixture` takes the two heads of `mixture.py` and moves towards the
worst-off one; `source.names` names the outputs, one per group. `:grpo` has no
critic and four answers per prompt, which takes half the memory. A `judge` that
training does not see shows whether a reward is exploited (docs/policy.md).
`:smoke` is small, on the synthetic crowd and what these configs leave there.

Measured: not yet run at these sizes.
"""

import ml_collections

VARIANTS = ("full", "mixture", "grpo", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(train_files=("train.jsonl",), eval_files=("test.jsonl.gz",))
  cfg.data.max_prompt_length = 256
  cfg.model = dict(init_from="runs/sft/model")
  cfg.sampling = dict(max_new_tokens=256)
  cfg.source = dict(models=("runs/reward/model",), names=("reward",))
  cfg.source.buckets = (256, 512)
  cfg.optimizer = dict(learning_rate=1e-6)  # as in TRL 1.16
  cfg.critic_optimizer = dict(learning_rate=1e-5)
  cfg.train = dict(num_iterations=100, eval_every=20, eval_prompts=256)

  if variant == "mixture":
    cfg.source.models = ("runs/mixture/model",)
    cfg.source.names = ("component_0", "component_1")
  if variant == "grpo":
    cfg.policy = dict(kind="grpo", aggregation="sequence_mean", whiten=False)
    cfg.sampling.num_responses = 4
    cfg.kl = dict(place="loss", estimator="k3")
    cfg.critic = dict(kind="none", clip=None, discount=None, gae_lambda=None)
    cfg.critic_optimizer = None
  if variant == "smoke":
    cfg.data.train_files = ("synthetic:two_groups:train",)
    cfg.data.eval_files = ("synthetic:two_groups:test",)
    cfg.data.max_prompt_length = 48
    cfg.sampling.max_new_tokens = 16
    cfg.source.buckets = (128,)
    cfg.train.update(num_iterations=2, num_prompts=8, eval_prompts=8)
  return cfg
