#!/usr/bin/env bash
# A run on a Cloud TPU slice: created, set up, watched, restarted, deleted.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh COMMAND --project=ID --zone=ZONE [--name=NAME] [OPTION...]
                        [-- STAGE ARGUMENT...]

  create     ask for the slice as a queued resource and wait until it is there
  setup      copy this checkout to all hosts and make their environments
  run        start STAGE on all hosts, follow it, return its exit code
  supervise  create, setup and run; again whenever the slice is taken away or
             the run asks for it (exit code 75), until it has finished
  logs       the last lines of the run's log, of every host
  stop       let the run on all hosts save and end
  status     everything in the zone that costs money, and how to delete it
  delete     delete the slice

Every command may be repeated: what is there already is used as it is. The slice
is paid for from create to delete, whatever runs on it; a command that ends
while it exists says so.

  --name=NAME          of the slice
  --topology=v5e:4x4   as the compile stage takes it (create, run, supervise)
  --spot               at the lower price, may be taken away at any time
  --reserved           from a reservation
  --wait_hours=N       give up on a request after N hours, default 24
  --service_account=A  of the machines, --network=N, --subnetwork=N: see gcloud
  --runtime=IMAGE      of the machines, default by topology
  --run_name=NAME      of the log and its folder, default STAGE
  --delete_after       delete the slice however run or supervise ends
  --keep               leave it; supervise wants one of the two
  --max_restarts=N     of supervise, default 20
  --lines=N            of logs, default 50
  --poll=SECONDS       between questions, default 30
  --tries=N            of what the network may spoil, default 5
  --dry_run            print the commands as they would run if nothing failed

STAGE is a module of jaxalign.experiments, as in
  -- train_reward --config=configs/rm_bt_hh.py --workdir=gs://bucket/run
TEXT
}

project='' zone='' name='' topology='' spot=false reserved=false wait_hours=24
service_account='' network='' subnetwork='' runtime='' run_name=''
delete_after=false keep=false max_restarts=20 lines=50 poll=30 tries=5

case ${1:-} in
  create | setup | run | supervise | logs | stop | status | delete)
    command=$1
    shift
    ;;
  -h | --help)
    usage
    exit 0
    ;;
  *) die "a command is create, setup, run, supervise, logs, stop, status or" \
    "delete, got '${1:-}'; --help says more" ;;
esac
options "project zone name topology wait_hours service_account network
  subnetwork runtime run_name max_restarts lines poll tries" \
  "spot reserved delete_after keep" "$@"

allow_project
allow_zone
if [[ $command != status || -n $name ]]; then allow_name name; fi
for number in wait_hours max_restarts lines poll tries; do
  allow_number "$number"
done
allow_optional service_account '[-a-z0-9.]+@[-a-z0-9.]+' "an e-mail address"
allow_optional network '[-a-z0-9/]+' "letters, digits, hyphens and slashes"
allow_optional subnetwork '[-a-z0-9/]+' "letters, digits, hyphens and slashes"
allow_optional runtime '[-a-z0-9.]+' "letters, digits, hyphens and dots"
[[ $spot == false || $reserved == false ]] || die \
  "a slice is --spot or --reserved, not both"
[[ $keep == false || $delete_after == false ]] || die \
  "--keep and --delete_after contradict each other"
case $command in create | run | supervise) slice ;; esac
case $command in
  run | supervise)
    allow_stage
    allow_shared_workdir
    run_name=${run_name:-${rest[0]}}
    ;;
esac
run_name=${run_name:-train_reward}
allow run_name '[a-z][-a-z0-9_]*' "lower-case letters, digits, - and _"
if [[ $command == supervise && $keep == "$delete_after" ]]; then
  die "supervise runs unattended: say --delete_after, or --keep to go on paying"
fi

where=(--project="$project" --zone="$zone" --quiet)
here=("--project=$project" "--zone=$zone" "--name=$name")
scratch=$(mktemp -d)
# shellcheck source-path=SCRIPTDIR
source "$root/launch/tpu_slice.sh"
# shellcheck source-path=SCRIPTDIR
source "$root/launch/tpu_run.sh"
trap farewell EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

case $command in
  create) create ;;
  setup) setup ;;
  run)
    run_once
    conclude
    ;;
  supervise) supervise ;;
  logs) show_logs ;;
  stop) stop_hosts ;;
  status) show_status ;;
  delete) delete ;;
esac
