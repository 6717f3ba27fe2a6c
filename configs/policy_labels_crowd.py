r"""What does a critic of label shares gain over one of the expected reward?

  for seed in 0 1 2 3; do
    python -m jaxalign.experiments.pipeline \
        --config=configs/policy_labels_crowd.py --config.seed=$seed \
        --config.crowd_seed=$seed --workdir=runs/labels_$seed
  done
  python docs/tabulate_critics.py runs/labels_*

Two groups of a crowd label answers, helpful or not by harmless or not, and a
DPRM learns their shares from ten votes each. Three policies start alike and are
moved towards its expected utility: `scalar` has a critic of the mean, `atoms` a
distributional critic for which a finished answer ends in one atom, its expected
utility, and `labels`, the same critic for which it ends in six, the values of
the labels by their shares. `atoms` is the control of `labels`, as `scalar` is
that of `atoms`. The crowd's own shares judge the answers. `:smoke` runs every
stage at its smallest.

Claimed before the runs: none gains in worth by the crowd. Advantages read a
critic's mean alone, which is the same for the three targets, so the shares can
only change how fast it is learned: `atoms` and `labels` explain as much of the
returns as `scalar`, within 0.05. The smallest difference that would matter is
0.1 of worth, which goes from -3 to 1; four paired crowds show 2.0 of its own
standard deviations (t, 80 % power at 5 %).

Measured, four crowds, mean ± sample standard deviation, commit 8add717: worth
by the crowd is 0.065 ± 0.143 (`scalar`), 0.068 ± 0.105 (`atoms`) and -0.028 ±
0.211 (`labels`), from -1.17, and no difference is significant. Explained
variance is 0.454 ± 0.143, 0.339 ± 0.083 and 0.094 ± 0.028: the claim does not
hold of `labels`, which is below `atoms` by 0.245 [0.149, 0.341].
docs/results.md has the table.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  brief = variant == "smoke"
  size = ":smoke" if brief else ""
  train = "data.train_files=('synthetic:labels:train',)"
  files = (train, "data.eval_files=('synthetic:labels:test',)")
  tokenizer = "data.tokenizer={tokenizer}/tokenizer"
  start = (*files, tokenizer)
  reward = (train, "data.eval_files=('synthetic:labels,label_votes=0:test',)")
  reward += (tokenizer, "data.max_length=48", "data.buckets=(32, 48)")
  policy = ("model.init_from={start}/model", "model.architecture=None", *files)
  policy += ("data.tokenizer=None", "data.max_prompt_length=24")
  policy += ("source.crowd=None", "source.models=('{reward}/model',)")
  policy += ("source.names=('reward',)", "source.buckets=(48,)")
  policy += ("judge.crowd=labels", "judge.buckets=(48,)")
  if not brief:
    start += ("train.num_steps=200", "train.batch_size=16")
    reward += ("train.num_steps=240", "eval.num_samples=200")
    policy += ("sampling.max_new_tokens=24", "kl.coef=0.05")
    policy += ("optimizer.schedule=constant", "train.num_iterations=45")
    policy += ("train.eval_every=15", "train.checkpoint_every=45")
  atoms = ("clip=None", "num_atoms=51", "low=-7.0", "high=3.0")
  steps = [
    ("tokenizer", "train_tokenizer", f"tokenizer_crowd.py{size}", files[:1]),
    ("start", "sft", f"sft_crowd.py{size}", start),
    ("reward", "train_reward", f"rm_dprm_crowd.py{size}", reward),
  ]
  critics = {
    "scalar": (),
    "atoms": atoms,
    "labels": (*atoms, "num_labels=6"),
  }
  for name, critic in critics.items():
    file = f"policy_maxmin_crowd.py{size}"
    changes = (*policy, *(f"critic.{key}" for key in critic))
    steps.append((name, "train_policy", file, changes))
  cfg = ml_collections.ConfigDict()
  cfg.steps = tuple(
    dict(name=name, stage=stage, config=f"configs/{file}", changes=changes)
    for name, stage, file, changes in steps
  )
  return cfg
