#!/usr/bin/env bash
# A run on a SLURM cluster, queued again when its time is up or its nodes go.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

usage() {
  cat <<'TEXT'
usage: launch/slurm.sh COMMAND --name=NAME [OPTION...] [-- STAGE ARGUMENT...]

  submit    make the environment, then queue the run; a job of that name that is
            queued or running is left as it is
  wait      until the job has left the queue; exit code 1 and the log if it did
            not complete
  run       submit and wait
  status    the job in the queue, and what became of earlier ones
  logs      the last lines of the log
  cancel    take the job out of the queue, running or not

One process per GPU. SLURM tells the run before its time is up; it saves, exits
with 75 and is queued again. Any other failure ends it. The checkout, and with
it the environment and the default workdir, must be on a file system that all
nodes share.

  --name=NAME           of the job
  --nodes=N             default 1
  --gpus_per_node=N     default 8; 0 for CPUs, one process per node
  --time=MINUTES        of one stretch, default 240
  --partition=NAME      --account=NAME, --qos=NAME, --constraint=NAME: see sbatch
  --grace=SECONDS       to save in before the time is up, default 180
  --max_restarts=N      default 20
  --lines=N             of logs, default 50
  --poll=SECONDS        between questions, default 30
  --python=VERSION      3.11, 3.12 or 3.13; the default is the first one found
  --dry_run             print the commands

STAGE is a module of jaxalign.experiments, as in
  -- train_reward --config=configs/rm_bt_hh.py --workdir=runs/hh
TEXT
}

# shellcheck disable=SC2034
name='' nodes=1 gpus_per_node=8 time=240 partition='' account='' qos=''
# shellcheck disable=SC2034
constraint='' grace=180 max_restarts=20 lines=50 poll=30

case ${1:-} in
  submit | wait | run | status | logs | cancel)
    verb=$1
    shift
    ;;
  -h | --help)
    usage
    exit 0
    ;;
  *) die "a command is submit, wait, run, status, logs or cancel, got" \
    "'${1:-}'; --help says more" ;;
esac
options "name nodes gpus_per_node time partition account qos constraint grace
  max_restarts lines poll python" "" "$@"

allow_name name
for number in nodes gpus_per_node time grace max_restarts lines poll; do
  allow_number "$number"
done
for option in partition account qos constraint; do
  allow_optional "$option" '[A-Za-z0-9][-A-Za-z0-9_.,|&]*' \
    "letters, digits and any of - _ . , | &"
done
((nodes > 0)) || die "--nodes must be at least 1, got '$nodes'"
((time * 60 > grace)) || die \
  "--grace=$grace must be less than --time=$time minutes"
if [[ -n $python ]]; then only "$python"; fi
case $verb in submit | run) allow_stage ;; esac

log=$root/runs/slurm/$name.log

# Sets job: "NUMBER STATE" of the job in the queue, or nothing.
look() {
  job=$(squeue --noheader --me --name="$name" --format='%i %T' | head -n 1) ||
    die "squeue does not answer"
}

submit() {
  local tasks=$gpus_per_node extras=(train) arguments
  if [[ $dry_run == false ]]; then
    look
    if [[ -n $job ]]; then
      echo "$name is in the queue already: $job"
      return
    fi
  fi
  cd "$root"
  find_versions
  if ((gpus_per_node > 0)); then extras+=(cuda); fi
  enter "${found[0]}" "${extras[@]}"
  if ((tasks == 0)); then tasks=1; fi
  arguments=(
    --parsable
    --job-name="$name"
    --nodes="$nodes"
    --ntasks-per-node="$tasks"
    --time="$time"
    --signal="TERM@$grace"
    --requeue
    --open-mode=append
    --chdir="$root"
    --output="$log"
  )
  if ((gpus_per_node > 0)); then
    arguments+=(--gpus-per-node="$gpus_per_node")
  fi
  for option in partition account qos constraint; do
    if [[ -n ${!option} ]]; then arguments+=("--$option=${!option}"); fi
  done
  stage "Queue $name: ${rest[0]} in $((nodes * tasks)) processes"
  run mkdir -p "${log%/*}"
  run sbatch "${arguments[@]}" "$root/launch/slurm_job.sh" "$python" \
    "$max_restarts" "$restart_code" "${rest[@]}" || die "sbatch did not take $name"
  echo "its log: $log; to end it: $(quoted launch/slurm.sh cancel --name="$name")"
}

wait_for() {
  local state last=
  stage "Wait for $name"
  if [[ $dry_run == true ]]; then
    run squeue --noheader --me --name="$name" --format='%i %T'
    run sacct --name="$name" --noheader --allocations --parsable2 --format=State
    return
  fi
  while :; do
    look
    [[ -n $job ]] || break
    if [[ $job != "$last" ]]; then echo "$name: $job"; fi
    last=$job
    sleep "$poll"
  done
  state=$(sacct --name="$name" --noheader --allocations --parsable2 \
    --format=State | tail -n 1)
  if [[ $state == COMPLETED* ]]; then
    stage "$name has finished"
    return
  fi
  stage "$name ended as ${state:-unknown}; its last lines:"
  tail -n "$lines" "$log" || true
  return 1
}

cancel() {
  if [[ $dry_run == true ]]; then
    run scancel --me --name="$name"
    return
  fi
  look
  if [[ -z $job ]]; then
    echo "$name is not in the queue"
    return
  fi
  run scancel --me --name="$name"
}

case $verb in
  submit) submit ;;
  wait) wait_for ;;
  run)
    submit
    wait_for
    ;;
  status)
    run squeue --me --name="$name"
    run sacct --name="$name" --format=JobID,State,ExitCode,Elapsed,Restarts
    ;;
  logs) run tail -n "$lines" "$log" ;;
  cancel) cancel ;;
esac
