r"""Does moving towards the worst-off group leave no group behind?

  python -m jaxalign.experiments.train_policy \
      --config=configs/policy_maxmin_crowd.py \
      --workdir=runs/policy_maxmin_crowd

It starts from the policy that `configs/sft_crowd.py` leaves in `runs/sft_crowd`
and takes the true utility of each group of the synthetic crowd as its reward,
so that whatever goes wrong is the policy's doing. `--config.welfare.kind=mean`
(with `shares`) is what a single pooled reward model aims at. `:smoke` runs
three iterations of a model from scratch.

  for seed in 0 1 2; do for variant in kl_target kl_fixed critic_law; do
    python -m jaxalign.experiments.train_policy \
        --config=configs/policy_maxmin_crowd.py:$variant --config.seed=$seed \
        --config.data.crowd_seed=$seed \
        --config.model.init_from=runs/pipeline_crowd_$seed/sft/model \
        --workdir=runs/${variant}_$seed
  done; done

`:kl_target` has a controller move the coefficient of the KL until a response is
1.5 nats from the start; `:kl_fixed`, its control, leaves the coefficient at the
0.1 that both begin with. They start from a tuned policy of
`configs/pipeline_crowd.py`, with a learning rate that stays, because a policy
that no longer moves would hold any KL. Claimed before the runs, after one pilot
with another seed that set the horizon: over the last 30 of 90 iterations the
mean KL is within 20 % of the target in every seed. The mean KL of 64 responses
has a standard error of about 0.15, that of 30 iterations one of 0.03, so that a
deviation of 0.1 is significant.

`:critic_law` is `:kl_fixed` with a distributional critic: it predicts the
return distribution over 51 atoms in place of its mean. Claimed before the runs:
it explains more of the variance of returns over the last 30 iterations; nothing
is claimed of the groups. Three paired seeds show a difference of 3.1 of its own
standard deviations (t, 80 % power at 5 %). Of the worst-off group's utility,
whose spread over seeds is 0.11 in the pipeline, that is 0.34.

Measured as the step `oracle` of configs/pipeline_crowd.py, 30 iterations over
seeds 0 to 4: the worst-off group goes from -0.91 ± 0.23 to -0.04 ± 0.11 at the
end, at a KL of 2.7 ± 0.7 nats. With bytes for tokens and 100 iterations, as
here, it was not run to its end. `:kl_target`, three seeds, commits 47e3831 and
dc88440: 1.31, 1.61 and 1.59 nats over the last 30 iterations, 1.51 ± 0.17, with
the coefficient at 0.24 ± 0.02, after an overshoot to 4.4, 3.6 and 2.6 in the
first half; `:kl_fixed`, seed 0 alone: 5.17. `:critic_law`: not yet run.
"""

import ml_collections

VARIANTS = ("full", "kl_target", "kl_fixed", "critic_law", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("synthetic:two_groups:train",),
    eval_files=("synthetic:two_groups:test",),
    max_prompt_length=48,  # the longest prompt has 42
  )
  cfg.model = dict(init_from="runs/sft_crowd/model")
  cfg.sampling = dict(max_new_tokens=72)  # bytes; answers have 65 at most
  cfg.source = dict(crowd="two_groups", names=("warm", "brief"))
  # Evaluations alone ask the judge: what answers are truly worth.
  cfg.judge = dict(crowd="two_groups", names=("warm", "brief"))
  cfg.optimizer = dict(
    learning_rate=3e-4,  # a model of 100k weights; 7B configs have 100x less
    schedule="linear",
  )
  cfg.critic_optimizer = dict(
    learning_rate=1e-3,  # Secrets II has three times the policy's
    schedule="constant",
  )
  cfg.train = dict(num_iterations=100, eval_every=20, eval_prompts=256)

  if variant in ("kl_target", "kl_fixed", "critic_law"):
    cfg.data.max_prompt_length = 24  # tokens of the pipeline's tokenizer
    cfg.model.init_from = "runs/pipeline_crowd/sft/model"
    cfg.sampling.max_new_tokens = 24
    cfg.kl = dict(coef=0.1)
    cfg.optimizer.schedule = "constant"
    cfg.train.update(num_iterations=90, eval_every=30)
  if variant == "kl_target":
    cfg.kl.update(
      controller="adaptive",
      target=1.5,  # nats per response
      horizon=320.0,  # responses: at most 4 % an iteration of 64
    )
  if variant == "critic_law":
    cfg.critic = dict(clip=None, num_atoms=51, low=-6.0, high=4.0)
  if variant == "smoke":
    cfg.data.tokenizer = "byte"
    cfg.model = dict(
      architecture=dict(num_layers=1, num_heads=4, embed_dim=32, mlp_dim=64)
    )
    cfg.sampling.max_new_tokens = 24
    cfg.train.update(
      num_iterations=3, num_prompts=8, eval_every=2, eval_prompts=8
    )
    cfg.train.checkpoint_every = 2
  return cfg
