#!/usr/bin/env bash
# A run on a TPU slice of a GKE cluster that has JobSet, restarted by it.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

usage() {
  cat <<'TEXT'
usage: launch/gke.sh COMMAND --name=NAME [OPTION...] [-- STAGE ARGUMENT...]

  render    print the JobSet that create would apply
  create    apply it; the same again changes nothing
  wait      until it has finished; exit code 1 and the logs if it failed
  run       create and wait
  status    the JobSet, its pods, and the TPU nodes, which cost money
  logs      the last lines of every host
  delete    end it; a node pool that scales down deletes its machines

The cluster restarts the run when its machines are taken away or it exits with
75; any other failure ends it. Needs kubectl with the cluster's credentials, a
node pool of the topology, and the JobSet controller.

  --name=NAME           of the JobSet
  --image=IMAGE         as built from launch/Containerfile (render, create, run)
  --topology=v5e:4x4    as the compile stage takes it (render, create, run)
  --spot                on spot machines
  --max_restarts=N      default 20
  --service_account=K   Kubernetes account that may use the bucket
  --queue=NAME          Kueue's local queue
  --namespace=NAME      default "default"
  --context=NAME        of kubectl, default the current one
  --delete_after        delete the JobSet however run or wait ends
  --lines=N             of logs, default 50
  --poll=SECONDS        between questions, default 30
  --tries=N             of a question without an answer, default 5
  --dry_run             print the commands

STAGE is a module of jaxalign.experiments, as in
  -- train_reward --config=configs/rm_bt_hh.py --workdir=gs://bucket/run
TEXT
}

# shellcheck disable=SC2034
name='' image='' topology='' spot=false max_restarts=20 service_account=''
# shellcheck disable=SC2034
queue='' namespace=default context='' delete_after=false lines=50 poll=30 tries=5

case ${1:-} in
  render | create | wait | run | status | logs | delete)
    verb=$1
    shift
    ;;
  -h | --help)
    usage
    exit 0
    ;;
  *) die "a command is render, create, wait, run, status, logs or delete, got" \
    "'${1:-}'; --help says more" ;;
esac
options "name image topology max_restarts service_account queue namespace context
  lines poll tries" "spot delete_after" "$@"

allow_name name
allow_name namespace
allow_optional context '[-A-Za-z0-9_.:@/]+' \
  "letters, digits and any of - _ . : @ /"
allow_optional service_account '[a-z0-9]([-a-z0-9.]*[a-z0-9])?' \
  "lower-case letters, digits, hyphens and dots"
allow_optional queue '[a-z0-9]([-a-z0-9.]*[a-z0-9])?' \
  "lower-case letters, digits, hyphens and dots"
for number in max_restarts lines poll tries; do allow_number "$number"; done
case $verb in
  render | create | run)
    allow_image
    slice
    allow_stage
    allow_shared_workdir
    ;;
esac

cluster=(kubectl)
if [[ -n $context ]]; then cluster+=(--context="$context"); fi
cluster+=(--namespace="$namespace")
pods=--selector=jobset.sigs.k8s.io/jobset-name=$name
mine=false
scratch=$(mktemp -d)

# A word as a JSON string. Kubernetes makes one dollar of two.
json() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//\$/\$\$}"
}

json_list() {
  local word between=
  printf '['
  for word in "$@"; do
    printf '%s%s' "$between" "$(json "$word")"
    between=', '
  done
  printf ']'
}

# The value of a placeholder; nothing for what is not asked for.
value_of() {
  case $1 in
    name | namespace | image | gke_label) json "${!1}" ;;
    queue | service_account) if [[ -n ${!1} ]]; then json "${!1}"; fi ;;
    shape) json "${topology#*:}" ;;
    spot_label) if [[ $spot == true ]]; then json true; fi ;;
    tolerations)
      if [[ $spot == true ]]; then
        printf '[{"key": "cloud.google.com/gke-spot", "operator": "Equal", '
        printf '"value": "true", "effect": "NoSchedule"}]'
      fi
      ;;
    max_restarts | hosts) printf %s "${!1}" ;;
    chips_per_host) printf %s "$((chips / hosts))" ;;
    command) json_list python -m "jaxalign.experiments.${rest[0]}" ;;
    arguments) json_list "${rest[@]:1}" --coordinator=auto ;;
    *) die "launch/jobset.yaml has an unknown placeholder: $1" ;;
  esac
}

# One placeholder a line, so that no value is looked through for another.
render() {
  local line value
  while IFS= read -r line; do
    if [[ $line =~ ^([^#]*)@([a-z_]+)@(.*)$ ]]; then
      value=$(value_of "${BASH_REMATCH[2]}") || exit
      if [[ -n $value ]]; then
        printf '%s%s%s\n' "${BASH_REMATCH[1]}" "$value" "${BASH_REMATCH[3]}"
      fi
    elif [[ ! $line =~ ^[[:space:]]*# ]]; then
      printf '%s\n' "$line"
    fi
  done <"$root/launch/jobset.yaml"
}

create() {
  stage "$name: ${rest[0]} on $topology ($chips chips on $hosts hosts)"
  render >"$scratch/jobset.yaml"
  if [[ $dry_run == true ]]; then cat "$scratch/jobset.yaml"; fi
  mine=true
  # shellcheck disable=SC2094
  run "${cluster[@]}" apply --filename=- <"$scratch/jobset.yaml" || die \
    "$name was not applied; where there is another of that name, delete it" \
    "first: $(delete_command)"
}

delete_command() {
  quoted launch/gke.sh delete --name="$name" --namespace="$namespace"
}

delete() {
  run "${cluster[@]}" delete "jobset/$name" --ignore-not-found
}

show_logs() {
  run "${cluster[@]}" logs "$pods" --prefix --tail="$lines" \
    --max-log-requests=256
}

# Sets conditions: those that hold, such as Completed or Failed.
look() {
  local try ask=("${cluster[@]}" get "jobset/$name"
    --output='jsonpath={.status.conditions[?(@.status=="True")].type}')
  for ((try = 1; ; try++)); do
    if conditions=$("${ask[@]}" 2>"$scratch/answer"); then return; fi
    if grep -q NotFound "$scratch/answer"; then die "there is no JobSet $name"; fi
    ((try < tries)) || break
    sleep "$poll"
  done
  cat "$scratch/answer" >&2
  die "kubectl does not say how $name stands"
}

wait_for() {
  stage "Wait for $name"
  if [[ $dry_run == true ]]; then
    run "${cluster[@]}" get "jobset/$name" \
      --output='jsonpath={.status.conditions[?(@.status=="True")].type}'
    return
  fi
  mine=true
  while :; do
    look
    case " $conditions " in
      *" Completed "*)
        mine=$delete_after
        stage "$name has finished"
        return
        ;;
      *" Failed "*)
        mine=$delete_after
        stage "$name failed; its last lines:"
        show_logs || true
        return 1
        ;;
    esac
    sleep "$poll"
  done
}

# On the way out: a JobSet that still holds machines is mentioned or deleted.
farewell() {
  local code=$?
  trap - EXIT
  if [[ $mine == true && $delete_after == true ]]; then
    delete || code=1
  elif [[ $mine == true && $dry_run == false ]]; then
    printf '\n%s goes on and its machines are PAID FOR; end it with\n  %s\n' \
      "$name" "$(delete_command)" >&2
  fi
  rm -rf "$scratch"
  exit "$code"
}

trap farewell EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

case $verb in
  render) render ;;
  create) create ;;
  wait) wait_for ;;
  run)
    create
    wait_for
    ;;
  logs) show_logs ;;
  delete) delete ;;
  status)
    run "${cluster[@]}" get "jobset/$name" || true
    run "${cluster[@]}" get pods "$pods"
    stage "TPU nodes, which cost money while they are there"
    run "${cluster[@]}" get nodes \
      --selector=cloud.google.com/gke-tpu-accelerator
    ;;
esac
