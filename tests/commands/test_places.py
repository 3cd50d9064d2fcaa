"""Where the commands run: without a home, a language or a display; in a clone that cannot be written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SHORT, active_environment, make_clone, mounted

QUICK = ("--number-of-samples", "200", "--time-steps", "5")


def analyse(clone, *words, **variables):
    command = [sys.executable, "analyse_experiments.py", *QUICK, *words]
    return subprocess.run(command, cwd=clone, env=variables or active_environment(), capture_output=True, text=True)


def test_no_home_no_language_no_display(clone, tmp_path):
    """The clone's path has a space and a letter beyond ASCII."""
    bare = {"PATH": active_environment()["PATH"], "VIRTUAL_ENV": sys.prefix, "LC_ALL": "C", "HOME": "/dev/null"}
    copy = make_clone(tmp_path / "autre cloné")
    command = ["bash", "training/no_regularizer/run.sh", *SHORT]
    trained = subprocess.run(command, cwd=copy, env=bare, capture_output=True, text=True)
    assert trained.returncode == 0, trained.stderr
    done = analyse(copy, "--experiments", "no_regularizer", **bare)
    assert done.returncode == 0, done.stderr
    assert (copy / "generated_artifacts" / "no_regularizer" / "run1" / "score_field.mp4").exists()
    wrong = analyse(copy, "--experiments", "nö", **bare)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("no experiment is called")


@pytest.mark.privileged
def test_clone_that_cannot_be_written_is_analysed_elsewhere(clone, tmp_path):
    with mounted(tmp_path / "read only", "-o", "bind,ro", str(clone)) as frozen:
        command = ["bash", str(frozen / "training" / "no_regularizer" / "run.sh"), "--run-name", "other"]
        refused = subprocess.run(command, env=active_environment(), cwd="/", capture_output=True, text=True)
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1].endswith("Read-only file system")
        assert "Traceback" not in refused.stderr
        here = analyse(frozen, "--experiments", "analytical")
        assert here.returncode == 2 and here.stderr.splitlines()[-1].endswith("Read-only file system")
        there = analyse(frozen, "--experiments", "no_regularizer", "--output-dir", str(tmp_path / "out"))
        assert there.returncode == 0, there.stderr
    assert (tmp_path / "out" / "no_regularizer" / "run1" / "metrics.json").exists()
    assert (tmp_path / "out" / "index.html").exists()


@pytest.mark.privileged
def test_disk_that_is_full_ends_the_analysis_in_a_line(clone, tmp_path):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=200k", "tmpfs") as small:
        done = analyse(clone, "--experiments", "analytical", "--output-dir", str(small))
        assert done.returncode == 2
        last_line = done.stderr.replace("\r", "\n").splitlines()[-1]
        assert str(small) in last_line and "No space left on device" in last_line
        assert "Traceback" not in done.stderr
        assert not [path for path in small.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_analysis_ends_in_a_sentence_and_leaves_no_half_file(clone, tmp_path, number):
    """Once in the imports, once while it samples, once while it writes the video."""
    output = tmp_path / "out"
    command = [sys.executable, "analyse_experiments.py", "--experiments", "analytical", "--output-dir", str(output)]
    for samples, moment in (("200", lambda: True), ("10000000", output.exists), ("200", lambda: videos(output))):
        process = subprocess.Popen(
            [*command, "--number-of-samples", samples, "--time-steps", "20"],
            cwd=clone,
            env=active_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(1.2)  # the interpreter is there, and listens
        while not moment():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate(timeout=20)[1].replace("\r", "\n").strip().splitlines()
        assert process.returncode == 130 and "Traceback" not in "".join(said), said
        assert said[-1] == "Stopped; every file that was written is whole. The same command starts again."
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def videos(output):
    return list(output.rglob(".*score_field.mp4"))


@pytest.mark.parametrize("delay", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("command", ["training.train no_regularizer --run-name x", "training.side_by_side"])
def test_ctrl_c_while_the_imports_last_shows_no_traceback(clone, tmp_path, command, delay):
    copy = make_clone(tmp_path / "copy")
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split()],
        cwd=copy,
        env=active_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode in (-signal.SIGINT, 130) and "Traceback" not in said, said


def test_check_dependencies_asks_about_every_list_and_fails_where_one_fails(tmp_path):
    asked, audit = tmp_path / "asked", tmp_path / "pip-audit"
    audit.write_text(f'#!/usr/bin/env bash\necho "$@" >> "{asked}"\n[[ "$*" != *requirements-dev* ]]\n')
    audit.chmod(0o755)
    root = Path(__file__).parent.parent.parent
    variables = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(root / "check_dependencies.sh")]
    assert subprocess.run(command, env=variables, capture_output=True).returncode == 1
    lists = sorted(path.name for path in root.glob("requirements*.txt"))
    assert [Path(line.split()[-1]).name for line in asked.read_text().splitlines()] == lists
    assert all("--strict" in line for line in asked.read_text().splitlines())
