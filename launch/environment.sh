# shellcheck shell=bash
# Sourced by the scripts of this folder: options, interpreters, environments.
#
# Reads   PYTHON   an interpreter to use instead of looking for one
# Sets    root     the checkout
#         rest     arguments that are not options of these scripts
#         found    supported versions on this machine, oldest first
#         python   interpreter of the environment entered last

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
supported=(3.11 3.12 3.13)
versions=("${supported[@]}")
found=()
torch=torch==2.13.0
dry_run=false
rest=()
python=

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

stage() {
  printf '\n== %d:%02d  %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

# The words as a shell would have to read them to get the same words.
quoted() {
  local word apostrophe="'\\''" between=
  for word in "$@"; do
    if [[ ! $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      word="'${word//\'/$apostrophe}'"
    fi
    printf '%s%s' "$between" "$word"
    between=' '
  done
}

run() {
  printf '+ %s\n' "$(quoted "$@")"
  if [[ $dry_run == false ]]; then "$@"; fi
}

only() {
  case " ${supported[*]} " in
    *" $1 "*) versions=("$1") ;;
    *) die "--python must be one of ${supported[*]}, got '$1'" ;;
  esac
}

# Options common to all scripts; sets versions, dry_run and rest.
parse() {
  while (($# > 0)); do
    case $1 in
      --dry_run | --dry-run) dry_run=true ;;
      --python)
        (($# > 1)) || die "--python needs a version, such as 3.11"
        only "$2"
        shift
        ;;
      --python=*) only "${1#*=}" ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
}

# Major.minor of an interpreter that can make environments; fails otherwise,
# as a pyenv shim of a version that is not switched on does.
version_of() {
  "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' \
    2>/dev/null
}

# find_python VERSION: prints the interpreter, fails if there is none.
find_python() {
  local version=$1 candidate
  local candidates=(
    "python$version"
    "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin/python
    "/usr/bin/python$version"
    python3
  )
  if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    if [[ $(version_of "$candidate") == "$version" ]]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

find_versions() {
  local version
  for version in "${versions[@]}"; do
    if find_python "$version" >/dev/null; then found+=("$version"); fi
  done
  ((${#found[@]} > 0)) || die \
    "no Python ${versions[*]} that can make environments; set PYTHON=..."
}

has_gpu() {
  command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1
}

# A TPU's device file; of the newer kind, others have them too, but not from the
# maker of TPUs.
has_tpu() {
  compgen -G '/dev/accel[0-9]*' >/dev/null || {
    compgen -G '/dev/vfio/[0-9]*' >/dev/null &&
      grep -qs 0x1ae0 /sys/bus/pci/devices/*/vendor
  }
}

# Errors only: pip's remarks about the machine's configuration are not ours.
pip_install() {
  run "$python" -m pip install -qq --progress-bar off "$@"
}

# enter VERSION EXTRA...: makes .venv-VERSION hold the extras, sets python.
#
# The stamp says what was installed from which setup.py, so a second run costs
# nothing. `parity`, `tpu` and `cuda` are not to be had everywhere: without
# them the tests that need them skip by name, and the next run tries again.
enter() {
  local version=$1 interpreter home stamp state extra joined
  shift
  interpreter=$(find_python "$version")
  home=$root/.venv-$version
  stamp=$home/jaxalign.stamp
  state="$root $("$interpreter" -VV | tr '\n' ' ')$(cksum <"$root/setup.py")"
  python=$home/bin/python

  local installed=() wanted=() optional=() missing=0
  if "$python" -c '' 2>/dev/null; then
    if [[ -f $stamp && $(head -n 1 "$stamp") == "$state" ]]; then
      read -r -a installed <<<"$(tail -n 1 "$stamp")"
    fi
  else
    stage "Python $version: a new environment in .venv-$version"
    run rm -rf "$home"
    run "$interpreter" -m venv "$home"
  fi
  for extra in "$@"; do
    if [[ " ${installed[*]-} " != *" $extra "* ]]; then missing=1; fi
  done
  if ((missing == 0)); then
    stage "Python $version: .venv-$version holds ${installed[*]} already"
    return
  fi

  stage "Python $version: installing $*"
  for extra in "$@" ${installed[@]+"${installed[@]}"}; do
    case " ${wanted[*]-} ${optional[*]-} " in *" $extra "*) continue ;; esac
    case $extra in
      parity)
        # First and alone, so that nothing else picks another build of it.
        if pip_install "$torch"; then
          wanted+=(parity)
        else
          echo "$torch is not to be had here: parity tests skip by name"
        fi
        ;;
      tpu | cuda) optional+=("$extra") ;;
      *) wanted+=("$extra") ;;
    esac
  done
  joined=$(
    IFS=,
    printf '%s' "${wanted[*]}"
  )
  pip_install --editable "${root}[$joined]"
  for extra in ${optional[@]+"${optional[@]}"}; do
    if pip_install --editable "${root}[$extra]"; then
      wanted+=("$extra")
    else
      echo "the extra '$extra' is not to be had here: its tests skip by name"
    fi
  done
  if [[ $dry_run == false ]]; then
    printf '%s\n%s\n' "$state" "${wanted[*]}" >"$stamp"
  fi
}
