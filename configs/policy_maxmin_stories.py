r"""Can one story teller please those who want it happy and who want it short?

  JAXALIGN_DATA=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_maxmin_stories.py \
      --workdir=runs/policy_maxmin_stories

MaxMin-RLHF's smaller experiment (arXiv 2402.08925), sentiment against
conciseness, with what a CPU holds: the pretrained story model of 260 thousand
weights ends the sentence that one of its own openings has begun, and two
functions of `jaxalign.data.synthetic.text_rewards` judge what it adds: VADER's
lexicon, and minus its characters, both in deviations from the mean of sentences
that people wrote. A fifth of the 902 openings is held out. The full config
moves towards the worst-off group, `:mean` towards a crowd of whom four in five
want it happy, as a single pooled reward would, `:single` towards these alone.
`:smoke` runs three iterations.

Claimed: MaxMin brings the worst-off group up where a single reward leaves the
minority behind. All held-out openings answered once have a standard error of
0.05 deviations per group before training and 0.02 after; three seeds show a
difference of 0.1. Control: `:single`, which nothing keeps from length.

Measured: after 40 iterations the worst-off group has 1.27 (full), 1.29
(`:mean`) and 1.16 (`:single`), from −0.05 before, means of three seeds at 11 to
13 nats: better than sentiment alone; the difference from the mean is not
significant. 66 s of one core, commit ceac5ae; docs/results.md has the table.
"""

import ml_collections

VARIANTS = ("full", "mean", "single", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  stories = "$JAXALIGN_DATA/stories260k_lm"
  openings = f"{stories}/story_prompts.jsonl.gz"
  cfg.data = dict(
    train_files=(f"stories260k_lm/prompts_train:{openings}",),
    eval_files=(f"stories260k_lm/prompts_test:{openings}",),
    max_prompt_length=32,  # the longest opening
  )
  cfg.model = dict(init_from=stories)
  cfg.sampling = dict(
    max_new_tokens=32,  # about 90 characters
    end_ids=(426, 443, 450, 49, 36, 66),  # . ! ? as pieces and as bytes
  )
  cfg.source = dict(
    function="jaxalign.data.synthetic.text_rewards:sentiment_and_conciseness",
    names=("sentiment", "conciseness"),
  )
  cfg.policy = dict(epochs=2)  # TRL and lm-human-preference-details have 4
  cfg.reward = dict(missing_eos=None)  # length is what one group judges
  cfg.optimizer = dict(
    learning_rate=1e-3,  # a model of 260k weights; 7B configs have 100x less
    schedule="linear",
  )
  cfg.critic_optimizer = dict(learning_rate=1e-3, schedule="constant")
  cfg.train = dict(num_iterations=40, num_prompts=32, eval_every=10)

  if variant == "mean":
    cfg.welfare = dict(kind="mean", shares=(0.8, 0.2))
  if variant == "single":
    cfg.welfare = dict(kind="single", group=0)
  if variant == "smoke":
    cfg.sampling.max_new_tokens = 24
    cfg.train = dict(num_iterations=3, num_prompts=8, eval_every=2)
    cfg.train.update(eval_prompts=8, checkpoint_every=2)
  return cfg
