#!/usr/bin/env bash
# The whole study: trains every experiment found under training/, several at once, and analyses each.
# A finished training is left alone, so the same command continues where it was stopped.
set -euo pipefail
root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
source "$root/environment.sh"
cd -- "$root"
exec python -m training.sweep --all "$@"
