#!/usr/bin/env bash
# Says which pinned packages have known vulnerabilities (pip-audit asks pypi.org, so this needs the network).
# Nothing is installed for good: without pip-audit on PATH, a temporary environment gets it and is removed.
set -euo pipefail
here="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
if command -v pip-audit >/dev/null 2>&1; then
    audit=pip-audit
else
    folder="$(mktemp -d)"
    trap 'rm -rf -- "$folder"' EXIT
    if ! { python3 -m venv "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit; } >&2; then
        echo "pip-audit is missing and could not be installed, for the reason above: it needs python3 with venv and the" \
            "network. Where the network is reached otherwise: pipx install pip-audit, then this command again." >&2
        exit 2
    fi
    audit="$folder/bin/pip-audit"
fi
status=0 # --strict: a package that cannot be judged counts as one that fails
for file in "$here"/requirements*.txt; do
    echo "$(basename -- "$file"):"
    "$audit" --strict --no-deps --disable-pip --requirement "$file" || status=1
done
exit "$status"
