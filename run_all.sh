#!/usr/bin/env bash
# The base study: trains its experiments, several at once, and analyses each. `--experiments NAME ...` takes others.
# A finished training is left alone, so the same command continues where it was stopped.
set -euo pipefail
root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
source "$root/environment.sh"
cd -- "$root"
exec python -m training.sweep --all "$@"
