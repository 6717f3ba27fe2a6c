#!/usr/bin/env bash
# Hardware check: correctness, speed and resume on new devices.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: launch/hardware_check.sh [--python VERSION] [--dry_run] [ARGUMENT...]

On the devices of this machine, TPUs, GPUs or CPUs: one training step against
the same step on the CPU, the time of a step, and a run that is killed, told to
go by SIGTERM, and resumed against one that is not. Prints a report to be pasted
elsewhere, leaves it in WORKDIR/hardware_check.md, and ends with 1 if something
failed. Arguments go to jaxalign.experiments.hardware_check, such as --steps=400
or --config.seed=1.

On a TPU slice of many hosts the same runs as a stage on all of them:
  launch/tpu_vm.sh run ... -- hardware_check \
      --config=configs/rm_bt_crowd.py:smoke --workdir=gs://bucket/hardware_check

  --python VERSION  3.11, 3.12 or 3.13; the default is the first one found
  --dry_run         print the commands

  CONFIG=...        of the reward stage, default configs/rm_bt_crowd.py:smoke
  WORKDIR=...       default runs/hardware_check in the checkout
  PYTHON=...        the interpreter to use
TEXT
}

parse "$@"
workdir=${WORKDIR:-$root/runs/hardware_check}
case $workdir in
  /* | *://*) ;;
  *) workdir=$PWD/$workdir ;;
esac
cd "$root"
find_versions

# The CPU computes what the others are compared with, so it is always named.
if has_tpu; then
  enter "${found[0]}" train tpu
  export JAX_PLATFORMS=${JAX_PLATFORMS:-tpu,cpu}
elif has_gpu; then
  enter "${found[0]}" train cuda
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
else
  enter "${found[0]}" train
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
fi

stage "Hardware check"
run "$python" -m jaxalign.experiments.hardware_check \
  --config="${CONFIG:-configs/rm_bt_crowd.py:smoke}" --workdir="$workdir" \
  ${rest[@]+"${rest[@]}"}
