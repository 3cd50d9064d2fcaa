#!/usr/bin/env bash
# The whole study: trains every experiment found under training/, then analyses them all.
# A finished training is left alone, so the same command goes on where it was stopped.
set -uo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
source "$root/environment.sh" || exit 1
cd -- "$root" || exit 1

status=0
for run in training/*/run.sh; do
    echo "== $(basename "$(dirname "$run")")"
    bash "$run" || { result=$?; [ "$result" -ge 130 ] && exit "$result"; status=1; }
done
echo "== analysis"
python analyse_experiments.py || status=$?
exit "$status"
