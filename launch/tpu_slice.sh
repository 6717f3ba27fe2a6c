# shellcheck shell=bash
# Sourced by tpu_vm.sh: the queued resource, from the request to its deletion.
#
# Reads   name, where, here, scratch and the options of tpu_vm.sh
# Sets    state   of the queued resource, absent if there is none
#         mine    whether this command may leave the slice behind
#         fresh   whether this command asked for the slice
# shellcheck disable=SC2034,SC2154

state=unknown
mine=false
fresh=false
tpus=(gcloud compute tpus)

# Asks once; fails if there was no answer, which is then in $scratch/answer.
ask() {
  if state=$("${tpus[@]}" queued-resources describe "$name" "${where[@]}" \
    --format='value(state.state)' 2>"$scratch/answer"); then
    [[ $state =~ ^[A-Z_]+$ ]]
  elif grep -q NOT_FOUND "$scratch/answer"; then
    state=absent
  else
    state=unknown
    return 1
  fi
}

# look STATE: asks for the state; a dry run takes STATE for the answer.
look() {
  local try
  if [[ $dry_run == true ]]; then
    run "${tpus[@]}" queued-resources describe "$name" "${where[@]}" \
      --format='value(state.state)'
    state=$1
    return
  fi
  for ((try = 1; ; try++)); do
    if ask; then return; fi
    ((try < tries)) || break
    sleep "$poll"
  done
  cat "$scratch/answer" >&2
  die "gcloud does not say whether $name exists: gcloud auth login, or the" \
    "project, the zone or the network may be the reason"
}

delete_command() {
  quoted launch/tpu_vm.sh delete "${here[@]}"
}

# On the way out: nothing that is paid for stays unmentioned.
farewell() {
  local code=$?
  trap - EXIT
  trap '' HUP INT TERM
  if [[ $mine == true ]]; then
    if [[ $delete_after == true ]]; then
      # In a shell of its own, as an answer that does not come ends it.
      (delete) || {
        code=1
        printf '\nMAY BE PAID FOR: %s in %s was not seen deleted; try\n  %s\n' \
          "$name" "$zone" "$(delete_command)" >&2
      }
    elif [[ $dry_run == true ]]; then
      echo "then $name is paid for until $(delete_command)"
    elif ! ask; then
      printf '\nMAY BE PAID FOR: %s in %s, gcloud does not say; delete it with\n  %s\n' \
        "$name" "$zone" "$(delete_command)" >&2
    elif [[ $state != absent ]]; then
      printf '\nPAID FOR until deleted: %s (%s) in %s; delete it with\n  %s\n' \
        "$name" "$state" "$zone" "$(delete_command)" >&2
    fi
  fi
  rm -rf "$scratch"
  exit "$code"
}

delete() {
  local try
  stage "Delete $name"
  look ACTIVE
  for ((try = 1; ; try++)); do
    if [[ $state == absent ]]; then
      mine=false
      echo "$name does not exist"
      return
    fi
    if [[ $state != DELETING ]]; then
      # --force takes its machines along.
      run "${tpus[@]}" queued-resources delete "$name" "${where[@]}" --force ||
        true
    fi
    if [[ $dry_run == true ]]; then return; fi
    look absent
    [[ $state != absent ]] || continue
    ((try < tries * 4)) || break
    sleep "$poll"
  done
  printf 'error: %s (%s) in %s was not deleted\n' "$name" "$state" "$zone" >&2
  return 1
}

request() {
  local arguments=(
    "$name"
    --node-id="$name"
    --accelerator-type="$accelerator"
    --runtime-version="${runtime:-$system}"
    # An answer that comes when nobody waits any more would cost money.
    --valid-until-duration="${wait_hours}h"
    --labels=jaxalign=launch
  )
  if [[ $spot == true ]]; then arguments+=(--spot); fi
  if [[ $reserved == true ]]; then arguments+=(--reserved); fi
  if [[ -n $service_account ]]; then
    arguments+=(--service-account="$service_account")
  fi
  if [[ -n $network ]]; then arguments+=(--network="$network"); fi
  if [[ -n $subnetwork ]]; then arguments+=(--subnetwork="$subnetwork"); fi
  if run "${tpus[@]}" queued-resources create "${arguments[@]}" "${where[@]}" \
    2>&1 | tee "$scratch/request"; then
    return
  fi
  # The request may have arrived although gcloud says otherwise.
  look absent
  [[ $state == absent ]] || return 0
  if grep -qi 'quota\|RESOURCE_EXHAUSTED' "$scratch/request"; then
    die "the project has no quota for $accelerator in $zone: ask for it in the" \
      "console, or use another zone, topology or price (--spot); nothing was" \
      "created"
  fi
  die "the request for $name was refused; nothing was created"
}

# Until the slice is there; fails if it is taken away meanwhile.
await() {
  local deadline=$((SECONDS + wait_hours * 3600 + 600)) said=
  while :; do
    look ACTIVE
    if [[ $state != "$said" ]]; then echo "$name is $state"; fi
    said=$state
    case $state in
      ACTIVE) return ;;
      FAILED)
        run "${tpus[@]}" queued-resources describe "$name" "${where[@]}" || true
        delete || true
        die "the request for $name failed, for the reason above"
        ;;
      SUSPENDING | SUSPENDED | DELETING | absent) return 1 ;;
    esac
    if ((SECONDS > deadline)); then
      delete || true
      die "no slice within $wait_hours hours; the request is withdrawn"
    fi
    sleep "$poll"
  done
}

# A slice of that name may be another one, asked for earlier.
check_kind() {
  local kind
  kind=$("${tpus[@]}" queued-resources describe "$name" "${where[@]}" \
    --format='value(tpu.nodeSpec[0].node.acceleratorType)') || return 0
  [[ -z $kind || $kind == "$accelerator" ]] || die \
    "$name is there already as $kind, and $topology is $accelerator: delete it" \
    "or use another --name"
}

# Fails if the slice was taken away before it could be used.
provide() {
  stage "A slice of $accelerator ($chips chips on $hosts hosts) in $zone"
  look absent
  mine=true
  fresh=false
  case $state in
    SUSPENDING | SUSPENDED | FAILED | DELETING)
      echo "$name is $state: a new one takes its place"
      delete || die "$name stands in its way"
      mine=true
      state=absent
      ;;
    absent) ;;
    *) check_kind ;;
  esac
  if [[ $state == absent ]]; then
    fresh=true
    request
  fi
  await
}

create() {
  provide || die "$name was taken away at once ($state); try again, or without" \
    "--spot"
  stage "$name is there: $(quoted launch/tpu_vm.sh setup "${here[@]}")"
}

show_status() {
  local found
  stage "What costs money in $zone of $project"
  run "${tpus[@]}" queued-resources list "${where[@]}"
  run "${tpus[@]}" tpu-vm list "${where[@]}"
  if [[ $dry_run == true ]]; then return; fi
  found=$("${tpus[@]}" queued-resources list "${where[@]}" \
    --format='value(name.basename())')
  for name in $found; do
    here=("--project=$project" "--zone=$zone" "--name=$name")
    printf 'to delete %s: %s\n' "$name" "$(delete_command)"
  done
  if [[ -z $found ]]; then echo "no queued resource"; fi
}
