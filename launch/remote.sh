# shellcheck shell=bash
# Sourced by the scripts that start runs on other machines: options, names that
# are safe to hand on, TPU slices, and what a run's exit code means.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# How a stage ends that saved because its machine is being taken away, EX_TEMPFAIL
# of sysexits.h. It asks to be started again; other codes but 0 do not.
# shellcheck disable=SC2034
restart_code=75

# Ranges such as [a-z] must not depend on the language of the terminal.
LC_ALL=C

# options "VALUE OPTION..." "SWITCH..." ARGUMENT...
#
# Sets the variable of each option's name, switches to true; the script gives
# them all a value before. What follows -- goes to rest.
options() {
  # Names that no option has, as they would hide the option's variable.
  local _values=" ${1//$'\n'/ } " _switches=" $2 " _name _value
  shift 2
  while (($# > 0)); do
    _name=${1#--}
    case $1 in
      -h | --help)
        usage
        exit 0
        ;;
      --dry_run | --dry-run) dry_run=true ;;
      --)
        shift
        rest=("$@")
        return
        ;;
      --*)
        _name=${_name%%=*}
        if [[ $1 != *=* && $_switches == *" $_name "* ]]; then
          printf -v "$_name" true
        elif [[ $_name =~ ^[a-z_]+$ && $_values == *" $_name "* ]]; then
          if [[ $1 == *=* ]]; then
            _value=${1#*=}
          else
            (($# > 1)) || die "--$_name needs a value"
            _value=$2
            shift
          fi
          printf -v "$_name" %s "$_value"
        else
          die "unknown option '$1'; --help lists them, and what belongs to the" \
            "stage follows --"
        fi
        ;;
      *) die "unknown argument '$1'; what belongs to the stage follows --" ;;
    esac
    shift
  done
}

# allow OPTION PATTERN WORDS: dies unless the whole value of the option matches.
allow() {
  local value=${!1}
  [[ $value =~ ^($2)$ ]] || die "--$1 must be $3, got '$value'"
}

# The names that a cloud takes, and with them what is safe in a command line.
allow_name() {
  allow "$1" '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' \
    "1 to 40 lower-case letters, digits and hyphens, first a letter, last no hyphen"
}

allow_project() {
  allow project '([a-z0-9][-a-z0-9.]*:)?[a-z][-a-z0-9]{4,28}[a-z0-9]' \
    "a project id: 6 to 30 lower-case letters, digits and hyphens"
}

allow_zone() {
  allow zone '[a-z]+-[a-z]+[0-9]+-[a-z]' "a zone such as us-west4-a"
}

allow_image() {
  allow image '[a-z0-9][-A-Za-z0-9._/:@]*' \
    "an image: letters, digits and any of . _ / : @ -"
}

allow_number() {
  allow "$1" '0|[1-9][0-9]{0,6}' "a whole number, at most 7 digits"
}

allow_optional() {
  if [[ -n ${!1} ]]; then allow "$@"; fi
}

# Of a command for a stage: MODULE ARGUMENT..., in rest.
allow_stage() {
  local word
  ((${#rest[@]} > 0)) || die \
    "say what to run: -- train_reward --config=... --workdir=..."
  [[ ${rest[0]} =~ ^[a-z][a-z0-9_]*$ ]] || die \
    "a stage is a module of jaxalign.experiments, got '${rest[0]}'"
  [[ -f $root/jaxalign/experiments/${rest[0]}.py ]] || die \
    "there is no stage '${rest[0]}' in jaxalign/experiments"
  for word in "${rest[@]}"; do
    [[ $word != *[[:cntrl:]]* ]] || die \
      "arguments of a stage may not hold line breaks or control characters," \
      "got $(printf %q "$word")"
  done
}

# Runs that must outlive their machine write where every host can read.
allow_shared_workdir() {
  local word workdir=
  for word in "${rest[@]}"; do
    if [[ $word == --workdir=* ]]; then workdir=${word#*=}; fi
  done
  [[ $workdir =~ ^(gs|s3)://[^/]+/. ]] || die \
    "--workdir must be in an object store, such as gs://bucket/run, because" \
    "every host writes there and a machine that goes takes its disk along;" \
    "got '$workdir'"
}

# Reads   topology     as the compile stage takes it, such as v5e:4x4
# Sets    chips        of the slice
#         hosts        machines of the slice
#         accelerator  its name as a Cloud TPU, such as v5litepod-16
#         system       the image of its machines
#         gke_label    its name on GKE
# shellcheck disable=SC2034,SC2154
slice() {
  local generation=${topology%%:*} shape=${topology#*:} factor
  local size='[1-9][0-9]{0,2}'
  allow topology "v(5e|6e):${size}x$size|v(4|5p):${size}x${size}x$size" \
    "a TPU and the chips per axis, such as v5e:4x4, v6e:8x8 or v5p:2x2x4"
  chips=1
  for factor in ${shape//x/ }; do chips=$((chips * factor)); done
  # Machines of v5e and v6e hold up to 8 chips where they are a slice alone.
  hosts=$(((chips + 3) / 4))
  case $generation in
    v5e | v6e) if ((chips <= 8)); then hosts=1; fi ;;
  esac
  case $generation in
    v4)
      accelerator=v4-$((2 * chips)) gke_label=tpu-v4-podslice
      system=tpu-ubuntu2204-base
      ;;
    v5e)
      accelerator=v5litepod-$chips gke_label=tpu-v5-lite-podslice
      system=v2-alpha-tpuv5-lite
      ;;
    v5p)
      accelerator=v5p-$((2 * chips)) gke_label=tpu-v5p-slice
      system=v2-alpha-tpuv5
      ;;
    v6e)
      accelerator=v6e-$chips gke_label=tpu-v6e-slice
      system=v2-alpha-tpuv6e
      ;;
  esac
}
