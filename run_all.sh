#!/usr/bin/env bash
# The whole study: trains every experiment found under training/, side by side, then analyses them all.
# A finished training is left alone, so the same command goes on where it was stopped.
set -uo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
source "$root/environment.sh" || exit 1
cd -- "$root" || exit 1

status=0
python -m training.side_by_side || { status=$?; [ "$status" -ge 130 ] && exit "$status"; }
python analyse_experiments.py || status=$?
exit "$status"
