"""Several run.sh at once: none waits for another, none is lost, and a Ctrl-C reaches each of them once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, active_environment

from training import side_by_side

# A stand-in for run.sh: it notes each signal, and ends with the status that its file `status` holds when `go` is there.
SCRIPT = """
cd "$(dirname "$0")"
exec 2> errors
trap 'echo ended >> signals; echo stopped; exit 143' TERM
touch started
for _ in {1..200}; do [ -e ../go ] && break; sleep 0.05; done
echo "${PWD##*/} said this"
read -r status < status
exit "$status"
"""


@pytest.fixture
def experiments(training, monkeypatch):
    """Three experiments, a, b and c, that end well as soon as there is a file `go`."""
    monkeypatch.setattr(side_by_side, "ROOT", training.parent)
    monkeypatch.setattr(side_by_side, "POLL_SECONDS", 0.02)
    for name in ("a", "b", "c"):
        (training / name).mkdir()
        (training / name / "run.sh").write_text(SCRIPT)
        (training / name / "status").write_text("0\n")
        (training / name / "specific_config.yaml").write_text("{}")
    return training


def when(*paths, then):
    """Call `then` as soon as all these files are there."""

    def wait():
        while not all(path.exists() for path in paths):
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()


def test_as_many_at_once_as_asked_for(experiments):
    """a and b go on only when both have started; c starts after."""
    early = []

    def go():
        early.append((experiments / "c" / "started").exists())
        (experiments / "go").touch()

    when(experiments / "a" / "started", experiments / "b" / "started", then=go)
    assert side_by_side.train_all(["a", "b", "c"], at_once=2) == 0
    assert early == [False] and (experiments / "c" / "started").exists()


def test_one_that_fails_stops_no_other(experiments, capsys):
    (experiments / "a" / "status").write_text("2\n")
    (experiments / "go").touch()
    assert side_by_side.train_all(["a", "b", "c"], at_once=1) == 1
    assert sorted(capsys.readouterr().out.splitlines()) == [f"{name} said this" for name in "abc"]


def test_ctrl_c_reaches_each_once_and_starts_no_other(experiments, capsys):
    when(experiments / "a" / "started", experiments / "b" / "started", then=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert side_by_side.train_all(["a", "b", "c"], at_once=2) == 130
    assert [(experiments / name / "signals").read_text() for name in "ab"] == ["ended\n"] * 2
    assert not (experiments / "c" / "started").exists()
    assert capsys.readouterr().out.splitlines() == ["stopped", "stopped"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_last_word_after_ctrl_c_is_the_command_that_goes_on_with_all(experiments, capsys, monkeypatch, number):
    monkeypatch.setattr(side_by_side, "find_experiments", lambda: ["a"])
    when(experiments / "a" / "started", then=lambda: os.kill(os.getpid(), number))
    assert side_by_side.main() == 130
    said = "Stopped; what was trained is saved. To go on with all of them: bash run_all.sh"
    assert capsys.readouterr().err.splitlines()[-1] == said
    (experiments / "go").touch()
    assert side_by_side.main() == 0
    assert "run_all.sh" not in capsys.readouterr().err


def test_ctrl_c_ends_a_script_that_waits_for_a_child(experiments):
    """As run.sh does while it looks at the environment: bash alone would go on after a child that ends well."""
    folder = experiments / "a"
    (folder / "run.sh").write_text(f'cd "{folder}"; touch started; sleep 1; touch went-on; sleep 60')
    when(folder / "started", then=lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGINT)))
    assert side_by_side.train_all(["a"], at_once=1) == 130
    assert not (folder / "went-on").exists()


ALONE = """
import sys
from pathlib import Path
from training import side_by_side
from utils.runs import loading as experiments

side_by_side.ROOT = Path(sys.argv[1])
experiments.TRAINING = side_by_side.ROOT / "training"
side_by_side.train_all(["a"], 1)
"""


def test_trainings_end_when_it_is_killed(experiments):
    """Each is told to end with its standard input, which is a pipe from here."""
    folder = experiments / "a"
    (folder / "run.sh").write_text(f'cd "{folder}"; echo "$@" > words; touch started; cat; touch ended')
    command = [sys.executable, "-c", ALONE, str(experiments.parent)]
    with subprocess.Popen(command, cwd=ROOT, env=active_environment()) as process:
        wait_for(folder / "started")
        assert not (folder / "ended").exists() and (folder / "words").read_text() == "--end-with-stdin\n"
        process.kill()
    wait_for(folder / "ended")


def wait_for(path):
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
