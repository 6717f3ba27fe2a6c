#!/usr/bin/env bash
# launch/hardware_check.sh, under its old name for one release.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/hardware_check.sh" "$@"
