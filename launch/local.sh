#!/usr/bin/env bash
# The main job on this machine: preferences in, a reward model and a report out.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: launch/local.sh [--python VERSION] [--dry_run] [--config.KEY=VALUE...]

Trains a reward model on the synthetic crowd and scores it on held-out pairs,
on a GPU where one is visible. Running it again resumes. All else goes to the
training stage: launch/local.sh --config.train.num_steps=500

  --python VERSION  3.11 or 3.12; the default is the first one found
  --dry_run         print the commands

  WORKDIR=...       folder of the run, default runs/local in the checkout
  PYTHON=...        the interpreter to use
TEXT
}

parse "$@"
workdir=${WORKDIR:-$root/runs/local}
case $workdir in
  /* | *://*) ;;
  *) workdir=$PWD/$workdir ;;
esac
cd "$root"
find_versions

# Named, because an environment that also holds libtpu would look for a TPU.
if has_gpu; then
  enter "${found[0]}" train cuda
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
else
  enter "${found[0]}" train
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
fi

stage "Train a reward model"
run "$python" -m jaxalign.experiments.train_reward \
  --config=configs/rm_bt_crowd.py --workdir="$workdir/reward" \
  ${rest[@]+"${rest[@]}"}

stage "Score it on held-out pairs"
run "$python" -m jaxalign.experiments.evaluate \
  --config=configs/evaluate.py --workdir="$workdir/evaluation" \
  --config.models="('$workdir/reward/model',)"

stage "done: open $workdir/evaluation/report.html"
