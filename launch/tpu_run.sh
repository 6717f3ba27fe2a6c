# shellcheck shell=bash
# Sourced by tpu_vm.sh: a run on all hosts of a slice, and what to make of its end.
#
# Reads   name, where, rest, hosts and the options of tpu_vm.sh
# Sets    outcome   finished, saved, vanished or failed
#         code      exit code of the run
# shellcheck disable=SC2034,SC2154

outcome=failed
code=1

# on_hosts COMMAND WORD...: the same on all hosts of the slice, at once.
on_hosts() {
  run "${tpus[@]}" tpu-vm ssh "$name" "${where[@]}" --worker=all \
    --command="$(quoted "$@")"
}

# retry WHAT COMMAND...: sshd of a new machine needs a minute, a network a second
# chance. Fails if the slice is gone, dies if it is there and does not answer.
retry() {
  local what=$1 try
  shift
  for ((try = 1; ; try++)); do
    if "$@"; then return; fi
    look ACTIVE
    if [[ $state != ACTIVE ]]; then
      echo "$name is $state"
      return 1
    fi
    ((try < tries)) || break
    echo "$what failed on a host, see above; try $((try + 1)) of $tries"
    sleep "$poll"
  done
  die "$what failed on a host $tries times, though the slice is $state; gcloud" \
    "names it above"
}

# The checkout as it is, without what git ignores.
pack() {
  local file
  git -C "$root" ls-files -z --cached --others --exclude-standard \
    >"$scratch/listed" || die \
    "$root is not a git checkout, so its files cannot be separated from results"
  while IFS= read -r -d '' file; do
    if [[ -e $root/$file ]]; then printf '%s\0' "$file"; fi
  done <"$scratch/listed" >"$scratch/files"
  run tar -C "$root" --null --files-from="$scratch/files" \
    -czf "$scratch/jaxalign.tar.gz" || die "the checkout does not pack"
}

install_hosts() {
  local unpack='mkdir -p jaxalign && rm -rf jaxalign/jaxalign jaxalign/configs'
  stage "This checkout on all hosts of $name"
  pack
  retry "copying" run "${tpus[@]}" tpu-vm scp "$scratch/jaxalign.tar.gz" \
    "$name:jaxalign.tar.gz" "${where[@]}" --worker=all || return
  retry "unpacking" on_hosts sh -c \
    "$unpack && tar -xzf jaxalign.tar.gz -C jaxalign" || return
  retry "setting up" on_hosts bash jaxalign/launch/host.sh setup tpu
}

setup() {
  look ACTIVE
  [[ $state != absent ]] || die "there is no $name; launch/tpu_vm.sh create"
  mine=true
  install_hosts || die "$name is $state: it was taken away during the setup"
  stage "$name is set up"
}

show_logs() {
  on_hosts bash jaxalign/launch/host.sh log "$run_name" "$lines"
}

stop_hosts() {
  on_hosts bash jaxalign/launch/host.sh stop "$run_name" 120
}

# question SECONDS: how all hosts stand, or how after SECONDS if they are still
# running, in $scratch/answers; shows what has changed.
question() {
  local ask_hosts=("${tpus[@]}" tpu-vm ssh "$name" "${where[@]}" --worker=all
    --command="bash jaxalign/launch/host.sh wait $(quoted "$run_name") $1")
  if [[ $dry_run == true ]]; then
    run "${ask_hosts[@]}"
    return
  fi
  "${ask_hosts[@]}" >"$scratch/answers" 2>"$scratch/complaints" ||
    cat "$scratch/complaints" >&2
  sort "$scratch/answers" >"$scratch/sorted"
  if ! cmp -s "$scratch/sorted" "$scratch/seen"; then
    grep '^jaxalign-host ' "$scratch/sorted" || true
    mv "$scratch/sorted" "$scratch/seen"
  fi
}

count() {
  grep -c "^jaxalign-host [^ ]* $1" "$scratch/answers" || true
}

# A slice that is taken away shows it a little after its machines are gone.
is_gone() {
  local try
  for ((try = 1; try <= 3; try++)); do
    look ACTIVE
    if [[ $state != ACTIVE ]]; then return; fi
    if [[ $spot == false ]]; then return 1; fi
    sleep "$poll"
  done
  return 1
}

# All hosts have ended, or one has and the others do not follow.
judge() {
  local codes bad
  codes=$(sed -n 's/^jaxalign-host [^ ]* exited //p' "$scratch/answers")
  bad=$(grep -vx "0\|$restart_code" <<<"$codes" | head -n 1 || true)
  if [[ -z $bad && $(count 'exited ') -ge $hosts ]]; then
    code=0
    outcome=finished
    if grep -qx "$restart_code" <<<"$codes"; then
      code=$restart_code
      outcome=saved
    fi
  elif is_gone; then
    code=$restart_code
    outcome=vanished
  else
    code=${bad:-1}
    outcome=failed
  fi
}

watch() {
  local silent=0 waiting=0
  stage "Follow $run_name on $hosts hosts"
  while :; do
    question "$poll"
    if [[ $dry_run == true ]]; then
      code=0
      outcome=finished
      return
    fi
    if (($(count '[a-z]') < hosts)); then
      # Somebody did not answer: gone, or a network that will come back.
      look ACTIVE
      if [[ $state != ACTIVE ]]; then
        outcome=vanished
        code=$restart_code
        return
      fi
      silent=$((silent + 1))
      if ((silent >= tries)); then
        echo "some host of $name has not answered $silent times"
        judge
        return
      fi
      sleep "$poll"
      continue
    fi
    silent=0
    if (($(count running) == 0)); then
      judge
      return
    fi
    if (($(count 'exited [1-9]') + $(count gone) > 0)); then
      # The others should end too; they get two more questions' time to do it.
      waiting=$((waiting + 1))
      if ((waiting > 2)); then
        echo "one host has ended and others have not: they are stopped"
        cp "$scratch/answers" "$scratch/before"
        stop_hosts >"$scratch/after" 2>&1 || true
        # What ended first says why; the rest only did as they were told.
        cp "$scratch/before" "$scratch/answers"
        judge
        return
      fi
    fi
  done
}

run_once() {
  look ACTIVE
  [[ $state != absent ]] || die "there is no $name; launch/tpu_vm.sh create"
  mine=true
  stage "Start ${rest[0]} on all hosts of $name"
  retry "starting" on_hosts bash jaxalign/launch/host.sh start "$run_name" \
    "${rest[@]}" --coordinator=auto || {
    outcome=vanished
    code=$restart_code
    return
  }
  watch
}

# Says how the run ended, and ends with its code.
conclude() {
  case $outcome in
    finished)
      if [[ $dry_run == false ]]; then stage "$run_name has finished"; fi
      ;;
    saved) stage "$run_name has saved and asks to be started again" ;;
    vanished) stage "$name was taken away; create, setup and run go on" ;;
    failed)
      stage "$run_name failed with exit code $code; its last lines:"
      show_logs || true
      ;;
  esac
  exit "$code"
}

# A supervisor that was started again follows what it finds.
is_running() {
  [[ $fresh == false && $dry_run == false ]] || return 1
  question 0
  (($(count running) >= hosts))
}

supervise() {
  local restarts=0
  while :; do
    outcome=vanished
    if provide; then
      if is_running; then
        watch
      elif install_hosts; then
        run_once
      fi
    fi
    case $outcome in finished | failed) conclude ;; esac
    ((restarts < max_restarts)) || die \
      "$run_name was restarted $max_restarts times and has not finished; its" \
      "checkpoints are in its workdir, and --max_restarts allows more"
    restarts=$((restarts + 1))
    stage "$run_name: $outcome; restart $restarts of at most $max_restarts"
    sleep "$poll"
  done
}
