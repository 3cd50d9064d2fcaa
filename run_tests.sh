#!/usr/bin/env bash
# Lint and tests. Arguments go to pytest: `bash run_tests.sh -k torus`.
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
REQUIREMENTS=requirements-dev.txt source "$root/environment.sh"
cd -- "$root"
ruff check .
ruff format --check .
python -m pytest -n auto --dist loadgroup "$@"
