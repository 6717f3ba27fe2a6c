#!/usr/bin/env bash
# One machine of a run on many: what launch/tpu_vm.sh calls there over ssh.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: launch/host.sh setup [EXTRA...]
       launch/host.sh start RUN MODULE [ARGUMENT...]
       launch/host.sh wait RUN SECONDS
       launch/host.sh log RUN LINES
       launch/host.sh stop RUN SECONDS

setup makes an environment with the extras train, cloud and EXTRA, and installs
a supported Python with apt-get where there is none. start runs
python -m jaxalign.experiments.MODULE, which goes on when the connection ends;
a run that is under way is left alone. wait prints how this machine's part
stands, after at most SECONDS:

  jaxalign-host HOST running | exited CODE | gone | absent

stop asks it to save and end, and kills it after SECONDS.

  --dry_run          as the first word: print the commands

  JAXALIGN_RUNS=...  folder of logs and exit codes, default ~/jaxalign_runs
TEXT
}

# Folder of a run; dies at a name that would lead elsewhere.
folder_of() {
  [[ $1 =~ ^[a-z][-a-z0-9_]*$ ]] || die \
    "a run is lower-case letters, digits, - and _, got '$1'"
  folder=${JAXALIGN_RUNS:-$HOME/jaxalign_runs}/$1
}

# Whether the process that watches over the run is alive. After a reboot its
# number may be another's.
is_alive() {
  local pid
  pid=$(cat "$folder/pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null &&
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'host.sh attend '
}

report() {
  local how=absent
  if is_alive; then
    how=running
  elif [[ -f $folder/exit_code ]]; then
    how="exited $(cat "$folder/exit_code")"
  elif [[ -d $folder ]]; then
    how=gone
  fi
  printf 'jaxalign-host %s %s\n' "$(uname -n)" "$how"
}

# An image of last year has an older Python, but its archive has a newer one.
provide_python() {
  local version
  for version in "${supported[@]}"; do
    if find_python "$version" >/dev/null; then return; fi
  done
  stage "Python: none of ${supported[*]} is here"
  run sudo apt-get update -qq
  for version in "${supported[@]}"; do
    if run sudo apt-get install -y -qq "python$version" \
      "python$version-venv"; then
      return
    fi
  done
  die "apt-get has none of Python ${supported[*]}; install one and set up again"
}

setup() {
  provide_python
  if [[ $dry_run == true ]]; then found=("${supported[0]}"); else find_versions; fi
  # The oldest that is there: an environment made before is found again.
  if [[ $dry_run == true ]] && ! find_python "${found[0]}" >/dev/null; then
    echo "then an environment .venv-${found[0]} with train, cloud, $*"
    return
  fi
  enter "${found[0]}" train cloud "$@"
  if [[ " $* " == *" tpu "* ]]; then
    run "$python" -c 'import libtpu' || die \
      "libtpu did not install, so this machine's TPU cannot be used"
  fi
}

# The environment that setup made.
find_environment() {
  local version
  for version in "${supported[@]}"; do
    python=$root/.venv-$version/bin/python
    if [[ -f $root/.venv-$version/jaxalign.stamp && -x $python ]]; then return; fi
  done
  die "no environment in $root; run launch/host.sh setup first"
}

# Outlives the connection and writes down how the run ends.
attend() {
  local child code=0
  # A machine that is taken away tells every process; the run must save first.
  trap : TERM HUP INT
  "$@" </dev/null >>"$folder/log" 2>&1 &
  child=$!
  printf '%s\n' "$child" >"$folder/child"
  while :; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  printf '%s\n' "$code" >"$folder/exit_code.part"
  mv "$folder/exit_code.part" "$folder/exit_code"
}

start() {
  local command
  folder_of "$1"
  [[ $2 =~ ^[a-z][a-z0-9_]*$ ]] || die "a stage is a module name, got '$2'"
  if is_alive; then
    echo "$1 is running already"
    return
  fi
  find_environment
  command=("$python" -m "jaxalign.experiments.$2" "${@:3}")
  printf '+ %s\n' "$(quoted "${command[@]}")"
  if [[ $dry_run == true ]]; then return; fi
  mkdir -p "$folder"
  rm -f "$folder/exit_code"
  printf '\n== %s  %s\n' "$(date -u +%FT%TZ)" "$(quoted "${command[@]}")" \
    >>"$folder/log"
  cd "$root"
  export JAXALIGN_RUNS=${folder%/*}
  setsid bash "$root/launch/host.sh" attend "$1" "${command[@]}" \
    </dev/null >/dev/null 2>&1 &
  printf '%s\n' "$!" >"$folder/pid"
}

wait_for() {
  local deadline=$((SECONDS + $2))
  folder_of "$1"
  while is_alive && ((SECONDS < deadline)); do sleep 0.2; done
  report
}

stop() {
  local deadline=$((SECONDS + $2)) child
  folder_of "$1"
  child=$(cat "$folder/child" 2>/dev/null) || child=
  if is_alive && [[ -n $child ]]; then
    run kill -TERM "$child" || true
    while is_alive && ((SECONDS < deadline)); do sleep 0.2; done
    if is_alive; then run kill -KILL "$child" || true; fi
    while [[ $dry_run == false ]] && is_alive; do sleep 0.2; done
  fi
  report
}

case ${1:-} in
  --dry_run | --dry-run)
    dry_run=true
    shift
    ;;
esac
case "${1:-} $#" in
  "setup "*) setup "${@:2}" ;;
  "start "[3-9] | "start "[1-9][0-9]*) start "${@:2}" ;;
  "wait 3") wait_for "$2" "$3" ;;
  "stop 3") stop "$2" "$3" ;;
  "log 3")
    folder_of "$2"
    run tail -n "$3" "$folder/log"
    ;;
  "attend "*)
    folder_of "$2"
    attend "${@:3}"
    ;;
  "-h "* | "--help "*) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
