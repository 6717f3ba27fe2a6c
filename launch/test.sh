#!/usr/bin/env bash
# Lints, type-checks and tests on a fresh machine with Python 3.11 or 3.12.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: launch/test.sh [--python VERSION] [--dry_run] [PYTEST ARGUMENT...]

Makes .venv-VERSION in the checkout, installs jaxalign with its extras, then
runs ruff, mypy, bash -n and pytest; with both Python 3.11 and 3.12 on the
machine, pytest runs in both. All else goes to pytest: launch/test.sh -k loss

  --python VERSION  only 3.11 or only 3.12
  --dry_run         print the commands

  PYTHON=...        the interpreter to use
  JAXALIGN_DATA=... folder of real data; tests that need it skip without it
TEXT
}

lint() {
  stage "Lint and types"
  run "$python" -m ruff check .
  run "$python" -m ruff format --check .
  run "$python" -m mypy
  local script
  for script in launch/*.sh .ci/run; do run bash -n "$script"; done
  if command -v shellcheck >/dev/null; then
    run shellcheck --external-sources launch/*.sh .ci/run
  else
    echo "shellcheck is not installed: bash -n alone read the scripts"
  fi
}

parse "$@"
cd "$root"
cores=$(getconf _NPROCESSORS_ONLN)
gpu=()
if has_gpu; then gpu=(cuda); fi
find_versions
failed=()

for version in "${found[@]}"; do
  extras=(train serve test lint)
  # One environment of the machine carries what is large and tests the same
  # everywhere: clients of object stores, torch for parity, libtpu for compiling
  # ahead of time.
  if [[ $version == 3.11 ]] || ! find_python 3.11 >/dev/null; then
    extras+=(cloud parity tpu)
  fi
  enter "$version" "${extras[@]}" ${gpu[@]+"${gpu[@]}"}
  if [[ $version == "${found[0]}" ]]; then lint; fi
  stage "Python $version: tests on $cores cores"
  run "$python" -m pytest -n "$cores" --dist=loadfile \
    ${rest[@]+"${rest[@]}"} || failed+=("$version")
done
((${#failed[@]} == 0)) || die "tests failed on Python ${failed[*]}"
stage "passed on Python ${found[*]} in $((SECONDS / 60)) min $((SECONDS % 60)) s"
