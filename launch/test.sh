#!/usr/bin/env bash
# Lints, type-checks and tests on a fresh machine with Python 3.11, 3.12 or 3.13.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: launch/test.sh [--tier TIER] [--all] [--python VERSION] [--second]
                      [--dry_run] [PYTEST ARGUMENT...]

Makes .venv-VERSION in the checkout, installs jaxalign with its extras, then
runs ruff, mypy, bash -n and the fast tier of the tests with the first Python
it finds. All else goes to pytest: launch/test.sh tests/losses -k mixture

  --tier fast       lint and every test that is not marked slow (the default)
  --tier smoke      imports, losses and one run of each stage
  --tier slow       tests marked slow; --part=K/N runs a share of them
  --all             lint and every test, with every Python on the machine
  --python VERSION  only 3.11, 3.12 or 3.13
  --second          the second Python it finds, if there is one
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

tier=fast
every=false
second=false
given=()
while (($# > 0)); do
  case $1 in
    --tier)
      (($# > 1)) || die "--tier needs a name: fast, smoke or slow"
      tier=$2
      shift
      ;;
    --tier=*) tier=${1#*=} ;;
    --all) tier=all every=true ;;
    --second) second=true ;;
    *) given+=("$1") ;;
  esac
  shift
done
parse ${given[@]+"${given[@]}"}
case $tier in
  fast | slow | all) select=("--tier=$tier") ;;
  smoke)
    select=(
      --full # compiled as users do, which the fast tier does not
      tests/layering_test.py tests/public_names_test.py
      tests/pinned_names_test.py tests/losses tests/experiments/stages_test.py
      tests/experiments/pipeline_test.py::CrowdTest
    )
    ;;
  *) die "--tier must be fast, smoke or slow, got '$tier'" ;;
esac

cd "$root"
cores=$(getconf _NPROCESSORS_ONLN)
gpu=()
if has_gpu; then gpu=(cuda); fi
find_versions
first=${found[0]}
if [[ $second == true ]]; then
  found=("${found[@]:1:1}")
  if ((${#found[@]} == 0)); then
    echo "Python $first is the only one here that will do: nothing else to test"
    exit
  fi
elif [[ $every == false ]]; then
  found=("$first")
fi
failed=()

for version in "${found[@]}"; do
  extras=(train serve test lint)
  # One environment of the machine carries what is large and tests the same
  # everywhere: clients of object stores, what builds the site, torch for parity,
  # libtpu for compiling ahead of time.
  if [[ $version == 3.11 ]] || ! find_python 3.11 >/dev/null; then
    extras+=(cloud docs parity tpu)
  fi
  enter "$version" "${extras[@]}" ${gpu[@]+"${gpu[@]}"}
  if [[ $version == "$first" && $tier != slow ]]; then lint; fi
  stage "Python $version: $tier tests on $cores cores"
  run "$python" -m pytest -n "$cores" --dist=loadfile "${select[@]}" \
    ${rest[@]+"${rest[@]}"} || failed+=("$version")
done
((${#failed[@]} == 0)) || die "tests failed on Python ${failed[*]}"
stage "passed on Python ${found[*]} in $((SECONDS / 60)) min $((SECONDS % 60)) s"
