#!/usr/bin/env bash
# Trains the experiment in whose folder this file stands, from any folder. `bash run.sh --help` explains.
set -euo pipefail
here="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../../environment.sh"
cd -- "$here/../.."
exec python -m training.train "$(basename -- "$here")" "$@"
