#!/usr/bin/env bash
# The main job on this machine: preferences in, fair policies and a report out.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: launch/local.sh [--python VERSION] [--dry_run] [--config.KEY=VALUE...]

Fine-tunes a policy on the answers of a synthetic crowd, learns a single pooled
reward model and a mixture for latent annotator groups, and trains the policy
towards each, on a GPU where one is visible. The report compares the utility of
every group. Running it again resumes. Other arguments go to the pipeline:
launch/local.sh --config.crowd_seed=1

  --python VERSION  3.11, 3.12 or 3.13; the default is the first one found
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

# Small networks on a CPU: memory that is mapped and unmapped with every step
# costs a third of the time (docs/performance.md). Other systems ignore it.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.arena_max=1:\
glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776}

stage "From preferences to policies"
run "$python" -m jaxalign.experiments.pipeline \
  --config=configs/pipeline_crowd.py --workdir="$workdir" \
  ${rest[@]+"${rest[@]}"}

stage "done: open $workdir/report.html"
