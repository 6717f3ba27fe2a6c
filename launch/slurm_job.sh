#!/usr/bin/env bash
# What launch/slurm.sh queues: the stage on all nodes, and again if it asks.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/slurm_job.sh PYTHON MAX_RESTARTS RESTART_CODE STAGE [ARGUMENT...]

Inside a SLURM job, in the checkout: runs python -m jaxalign.experiments.STAGE
in every task. If it exits with RESTART_CODE, the job is queued again, at most
MAX_RESTARTS times. launch/slurm.sh submit fills all this in.

  --dry_run   as the first word: print the commands
TEXT
}

dry_run=false
case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
  --dry_run | --dry-run)
    dry_run=true
    shift
    ;;
esac
if (($# < 4)); then
  usage >&2
  exit 2
fi
python=$1 max_restarts=$2 restart_code=$3 stage=$4
shift 4
tasks=(srun --kill-on-bad-exit=0 --wait=120)  # time for the others to save
command=("$python" -m "jaxalign.experiments.$stage" "$@")
if ((${SLURM_NTASKS:-1} > 1)); then command+=(--coordinator=auto); fi
restarts=${SLURM_RESTART_COUNT:-0}
again=(scontrol requeue "${SLURM_JOB_ID:-JOB}")

printf '\n== job %s, restart %s, %s tasks\n' \
  "${SLURM_JOB_ID:-none}" "$restarts" "${SLURM_NTASKS:-1}"
printf '+'
printf ' %q' "${tasks[@]}" "${command[@]}"
printf '\n'
if [[ $dry_run == true ]]; then
  echo "+ ${again[*]}  # after exit code $restart_code"
  exit 0
fi

# SLURM signals the tasks; this script stays to see how they end.
trap : TERM
code=0
"${tasks[@]}" "${command[@]}" || code=$?
if ((code == restart_code && restarts < max_restarts)); then
  echo "== saved; queued again"
  "${again[@]}"
elif ((code == restart_code)); then
  echo "== saved, but restarted $restarts times already; not queued again"
fi
exit "$code"
