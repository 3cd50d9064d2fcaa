# shellcheck shell=bash
# Sourced by every script: puts the `python` and `tensorboard` of a fitting environment first on PATH.
# An active environment that satisfies the pins is used as it is. Otherwise .venv beside this file is, made once.
# REQUIREMENTS=requirements-dev.txt before sourcing asks for the tools of the tests as well.

_root="$(CDPATH='' builtin cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
_requirements="$_root/${REQUIREMENTS:-requirements.txt}"

# Python and pip obey these wherever they run: with them other modules and versions than those checked below would be
# used, or packages installed elsewhere. Settings of pip's index, proxy and certificates stay.
unset CDPATH PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONOPTIMIZE PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN PIP_NO_DEPS
export PYTHONNOUSERSITE=1

_satisfies_pins() { # $1: a Python. Reads the installed versions; imports none of the packages.
    command -v "$1" >/dev/null 2>&1 && "$1" -I - "$_requirements" >/dev/null 2>&1 <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

def check(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            check(path.parent / line.removeprefix("-r ").strip())
        elif line:
            name, pin = line.split("==")
            assert version(name).partition("+")[0] == pin  # 2.13.0+cpu is a build of 2.13.0

check(Path(sys.argv[1]))
PYTHON
}

_is_where_it_was_made() { # A venv's commands hold the path of their Python, so they end with the folder's renaming.
    local line made=""
    while read -r line; do
        [[ "$line" == "command = "* ]] && made="${line##* -m venv }"
    done 2>/dev/null <"$_root/.venv/pyvenv.cfg"
    made="${made#--clear }" # empty where another program made it
    [ -z "$made" ] || [ "$made" -ef "$_root/.venv" ]
}

_make_environment() {
    local python="" candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            python="$candidate"
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "Python 3.11 or newer is needed and none was found on PATH: install one (for example from python.org)." >&2
        return 1
    fi
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        echo "Python's venv module is missing: install it (on Debian and Ubuntu: apt install python3-venv)." >&2
        return 1
    fi
    echo "Making the Python environment in .venv (once; one to a few minutes) ..." >&2
    if ! "$_root/.venv/bin/python" -c '' 2>/dev/null || ! _is_where_it_was_made; then
        "$python" -m venv --clear "$_root/.venv" || return 1
    fi
    if ! "$_root/.venv/bin/python" -m pip install --no-user --quiet --disable-pip-version-check -r "$_requirements" >&2
    then
        echo "pip could not install $(basename "$_requirements"), for the reason above. If there is no network here," \
            "activate an environment that holds these packages and run the command again." >&2
        return 1
    fi
    if ! _satisfies_pins "$_root/.venv/bin/python"; then
        echo "pip has ended well, but the packages are not in $_root/.venv: does a setting (pip config list) send them" \
            "elsewhere?" >&2
        return 1
    fi
}

_find_environment() {
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        _satisfies_pins python && return
        [ "${VIRTUAL_ENV:-}" = "$_root/.venv" ] ||
            echo "The active environment lacks a version that $(basename "$_requirements") pins; using .venv instead." >&2
    fi
    if ! _satisfies_pins "$_root/.venv/bin/python" || ! _is_where_it_was_made; then
        _satisfies_pins python && return # everything is installed outside any environment, as in a container
        _make_environment || return 1
    fi
    export VIRTUAL_ENV="$_root/.venv" PATH="$_root/.venv/bin:$PATH"
}

_find_environment
