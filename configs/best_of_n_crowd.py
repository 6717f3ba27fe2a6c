r"""Does tuning a policy on the best of its own answers please every group?

  python -m jaxalign.experiments.pipeline --config=configs/best_of_n_crowd.py \
      --workdir=runs/best_of_n_crowd --config.crowd_seed=0

MORE's protocol (RJS): a tuned policy draws 4 answers to each of 1,000 training
prompts, a reward model picks one, and the policy is tuned on what was picked.
It is done twice from one start: `one` picks by a single pooled reward model,
`least` by the lesser of the two calibrated rewards of a mixture of latent
annotator groups. Start and both policies answer every held-out prompt once, and
the crowd's true utilities say who wins. `:smoke` runs every stage at its
smallest.

Claimed before the first run: `one` beats the start in the eyes of the majority
(a score above 0.5) and not in those of the minority, `least` in both. A score
over 470 prompts has a standard error of 0.023 at most (0.5 / sqrt(470)), so
that a score of 0.565 differs significantly from 0.5 with 80 % power at 5 % (2.8
standard errors). The control is the start against itself, drawn from another
seed, which must stay at 0.5.

Measured over seeds 0, 1 and 2, of crowd and run alike, commit dc88440: a score
of 0.390 ± 0.022 (minority) and 0.717 ± 0.009 (majority) for `one`, 0.623 ±
0.021 and 0.537 ± 0.018 for `least`, 0.508 ± 0.015 and 0.505 ± 0.015 for the
control. The gain of `least` for the majority is significant in one seed of
three; docs/results.md has the intervals.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  brief = variant == "smoke"
  size = ":smoke" if brief else ""
  train, held_out = "synthetic:two_groups:train", "synthetic:two_groups:test"
  files = (f"data.train_files=('{train}',)", f"data.eval_files=('{held_out}',)")
  tokenizer = "data.tokenizer={tokenizer}/tokenizer"
  start = (*files, tokenizer)
  reward = (*files, tokenizer, "data.max_length=48", "data.buckets=(32, 48)")
  best = (
    f"data.files=('{train}',)",
    "policy={start}/model",
    "sampling.max_prompt_length=24",
    "source.crowd=None",
    "source.buckets=(48,)",
  )
  again = (
    files[1],
    tokenizer,
    "model.init_from={start}/model",
    "model.architecture=None",
    "optimizer.learning_rate=3e-4",  # a tenth of the first tuning's
  )
  answers = (
    f"files=('{held_out}',)",
    "num_responses=1",
    "max_prompt_length=24",
    "temperature=1.0",  # the policy as it is
    "top_p=None",
    "repetition_penalty=1.0",
  )
  if brief:
    answers += ("limit=16",)
  else:
    start += ("train.num_steps=200", "train.batch_size=16")
    reward += ("train.num_steps=240", "eval.num_samples=200")
    best += ("sampling.max_new_tokens=24",)
    again += ("train.num_steps=60", "train.batch_size=16")
    answers += ("max_new_tokens=24", "batch_size=94")
  steps = [
    ("tokenizer", "train_tokenizer", f"tokenizer_crowd.py{size}", files[:1]),
    ("start", "sft", f"sft_crowd.py{size}", start),
    (
      "one_reward",
      "train_reward",
      "rm_bt_crowd.py:smoke" if brief else "rm_mixture_crowd.py:bradley_terry",
      reward,
    ),
    ("mixture", "train_reward", f"rm_mixture_crowd.py{size}", reward),
  ]
  for name, model, pick_by in (
    ("one", "one_reward", "mean"),
    ("least", "mixture", "min"),
  ):
    steps += [
      (
        f"best_{name}",
        "best_of_n",
        f"best_of_n.py{size}",
        (*best, f"source.models=('{{{model}}}/model',)", f"pick_by={pick_by}"),
      ),
      (
        name,
        "sft",
        f"sft_crowd.py{size}",
        (*again, f"data.train_files=('{{best_{name}}}/best.jsonl',)"),
      ),
    ]
  for name in ("start", "one", "least"):
    steps.append(
      (
        f"answers_{name}",
        "sample",
        f"sample.py{size}",
        (*answers, f"model={{{name}}}/model"),
      )
    )
  steps.append(
    (
      "answers_control",
      "sample",
      f"sample.py{size}",
      (*answers, "model={start}/model", "seed=1000"),
    )
  )
  for name in ("one", "least", "control"):
    steps.append(
      (
        f"rates_{name}",
        "win_rates",
        f"win_rates.py{size}",
        (
          f"first=('{{answers_{name}}}/responses.jsonl',)",
          "second=('{answers_start}/responses.jsonl',)",
        ),
      )
    )
  cfg = ml_collections.ConfigDict()
  cfg.steps = tuple(
    dict(name=name, stage=stage, config=f"configs/{file}", changes=changes)
    for name, stage, file, changes in steps
  )
  return cfg
