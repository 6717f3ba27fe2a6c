r"""Can one GPT-2 be both positive and concise about a film?

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_policy \
      --config=configs/policy_maxmin_gpt2_imdb.py \
      --workdir=runs/policy_maxmin_gpt2_imdb

MaxMin-RLHF's smaller experiment (arXiv 2402.08925): most people want positive
reviews, a minority concise ones. For a v5e-4 slice (`--topology=v5e:2x2`). The
paper's settings are not public; in brackets are those of SharedRep-RLHF
[M8] (arXiv 2509.03672), which runs it as a baseline. `$JAXALIGN_MODELS` holds
gpt2-imdb; `prompts/imdb_starts.jsonl` the first 2 to 8 tokens of reviews of
more than 200 characters [M8], and `imdb_rewards:rewards`, on the Python path,
gives the probability that a text is positive and 1 - tokens / 100 [M8].
`:shape` is for the compile stage and needs no folder; `:smoke` is small, on the
synthetic crowd.

`:learned` moves towards two rewards that are learned, as the paper's are, and
not functions: the heads that `mixture.py:head` finds in the pairs of
`vote_imdb.py`, samples to each start with the person who chose; four in five
people take the more positive one, the rest the shorter.

  JAXALIGN_MODELS=... python -m jaxalign.experiments.train_reward \
      --config=configs/mixture.py:head --workdir=runs/rm_imdb \
      --config.model.init_from=$JAXALIGN_MODELS/gpt2-imdb \
      --config.data.train_files="('runs/vote_imdb/train.jsonl',)" \
      --config.data.eval_files="('runs/vote_imdb/eval.jsonl',)"

Claimed: a variant of M8 with oracle rewards ends at 0.808 for the minority and
0.848 for the majority.

Measured: not yet run. Compiled for v5e:2x2, learning takes 6.23 of 15.75 GiB on
each chip, 3.00 of them activations, and sampling 0.79; every chip holds all
parameters, as data parallelism has it (commit 89b718f, jax 0.10.2, libtpu
0.0.42; docs/scaling.md).
"""

import ml_collections

VARIANTS = ("full", "learned", "shape", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.data = dict(
    train_files=("prompts/imdb_starts.jsonl",), max_prompt_length=8
  )  # [M8]
  cfg.model = dict(init_from="$JAXALIGN_MODELS/gpt2-imdb", dtype="bfloat16")
  cfg.sampling = dict(max_new_tokens=92, temperature=0.7)  # 100 in all [M8]
  cfg.source = dict(
    function="imdb_rewards:rewards", names=("sentiment", "conciseness")
  )
  cfg.policy = dict(epochs=3)  # [M8]
  cfg.reward = dict(scale="standardise")  # nearest to the whitening of [M8]
  # One optimiser for both in [M8].
  cfg.optimizer = dict(learning_rate=3e-6, b2=0.999)
  cfg.critic_optimizer = dict(learning_rate=3e-6, b2=0.999)
  cfg.train = dict(
    num_iterations=781,  # 50,000 episodes [M8], 64 each [M8]
    checkpoint_every=50,
  )

  if variant == "learned":
    cfg.source = dict(models=("runs/rm_imdb/model",), buckets=(128,))
    cfg.source.names = ("first", "second")  # groups, whichever was found first
  if variant in ("shape", "smoke"):
    cfg.data.tokenizer = "byte"
  if variant == "shape":
    cfg.model.shape = "gpt2"
  if variant == "smoke":
    cfg.data.train_files = ("synthetic:two_groups:train",)
    cfg.data.max_prompt_length = 48
    cfg.model.update(shape="tiny", dtype="float32")
    cfg.sampling.max_new_tokens = 16
    cfg.source.update(function=None, crowd="two_groups")
    cfg.policy.epochs = 1
    cfg.train.update(num_iterations=2, num_prompts=8, checkpoint_every=2)
  return cfg
