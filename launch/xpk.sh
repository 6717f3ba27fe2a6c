#!/usr/bin/env bash
# A run on a TPU slice of a GKE cluster that was made with XPK.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

usage() {
  cat <<'TEXT'
usage: launch/xpk.sh COMMAND --project=ID --zone=ZONE --cluster=NAME [--name=NAME]
                     [OPTION...] [-- STAGE ARGUMENT...]

  create    submit the workload; one of that name is left as it is
  wait      until it has finished; a failure gives another exit code than 0
  run       create and wait
  status    all workloads of the cluster
  delete    end the workload

XPK restarts the run when it exits with 75 and when its machines are taken away;
the cluster's machines cost money until the cluster itself is deleted.

  --name=NAME           of the workload
  --image=IMAGE         as built from launch/Containerfile (create, run)
  --topology=v5e:4x4    as the compile stage takes it (create, run)
  --max_restarts=N      default 20
  --timeout=SECONDS     of wait, default 604800, a week
  --delete_after        delete the workload however run ends
  --dry_run             print the commands

STAGE is a module of jaxalign.experiments, as in
  -- train_reward --config=configs/rm_bt_hh.py --workdir=gs://bucket/run
TEXT
}

project='' zone='' cluster='' name='' image='' topology='' max_restarts=20
timeout=604800 delete_after=false

case ${1:-} in
  create | wait | run | status | delete)
    verb=$1
    shift
    ;;
  -h | --help)
    usage
    exit 0
    ;;
  *) die "a command is create, wait, run, status or delete, got '${1:-}';" \
    "--help says more" ;;
esac
options "project zone cluster name image topology max_restarts timeout" \
  "delete_after" "$@"

allow_project
allow_zone
allow_name cluster
if [[ $verb != status ]]; then allow_name name; fi
for number in max_restarts timeout; do allow_number "$number"; done
case $verb in
  create | run)
    allow_image
    slice
    allow_stage
    allow_shared_workdir
    ;;
esac

where=(--cluster="$cluster" --project="$project" --zone="$zone")
mine=false
scratch=$(mktemp -d)

delete() {
  run xpk workload delete --workload="$name" "${where[@]}" --force
}

create() {
  local command
  command=$(quoted python -m "jaxalign.experiments.${rest[0]}" "${rest[@]:1}" \
    --coordinator=auto)
  stage "$name: ${rest[0]} on $accelerator ($chips chips on $hosts hosts)"
  mine=true
  # Kubernetes makes one dollar of two.
  if run xpk workload create --workload="$name" "${where[@]}" \
    --tpu-type="$accelerator" --num-slices=1 --docker-image="$image" \
    --command="${command//\$/\$\$}" --max-restarts="$max_restarts" \
    --restart-on-exit-codes="$restart_code" \
    --termination-grace-period-seconds=120 2>&1 | tee "$scratch/answer"; then
    return
  fi
  if grep -q 'already exists' "$scratch/answer"; then
    echo "$name is left as it is"
    return
  fi
  die "xpk did not take $name"
}

wait_for() {
  mine=true
  run xpk workload list "${where[@]}" --wait-for-job-completion="$name" \
    --timeout="$timeout"
  mine=$delete_after
}

# On the way out: what may still run is mentioned or deleted.
farewell() {
  local code=$?
  trap - EXIT
  if [[ $mine == true && $delete_after == true ]]; then
    delete || code=1
  elif [[ $mine == true && $dry_run == false ]]; then
    printf '\n%s may go on, on machines that are PAID FOR; end it with\n  %s\n' \
      "$name" "$(quoted launch/xpk.sh delete --name="$name" "${where[@]}")" >&2
  fi
  rm -rf "$scratch"
  exit "$code"
}

trap farewell EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

case $verb in
  create) create ;;
  wait) wait_for ;;
  run)
    create
    wait_for
    ;;
  status) run xpk workload list "${where[@]}" ;;
  delete) delete ;;
esac
