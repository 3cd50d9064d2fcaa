#!/usr/bin/env bash
# Lint, types, layers and tests. With arguments pytest alone runs with them: `bash run_tests.sh tests/physics -k torus`.
set -euo pipefail
root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
REQUIREMENTS=requirements-dev.txt source "$root/environment.sh"
cd -- "$root"
if [ "$#" -gt 0 ]; then
    exec python -m pytest "$@"
fi
ruff check .
ruff format --check .
lint-imports --no-logo
mypy
python -m pytest -n auto --dist loadgroup
