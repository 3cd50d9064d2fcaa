"""Where the commands run: without a home, a language or a display; without the right or the room to write; stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from analysed import WORDS, leave_run, with_few_points, without_drawing
from conftest import ROOT, active_environment, make_clone, mounted, use_training_folder
from grids import until
from trained import train

import analyse_experiments
from utils.plots.views import Field
from utils.reports.experiment import draw_video
from utils.runs.checkpoints import load_run
from utils.runs.run import Run

QUICK = "import pytest, analysed, analyse_experiments as it; analysed.with_few_points(pytest.MonkeyPatch()); it.main()"


def analyse(output, experiment):
    return analyse_experiments.main([*WORDS, "--experiments", experiment, "--output-dir", str(output)])


def last_line(capsys):
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.replace("\r", "\n").splitlines()[-1]


def hidden(folder):
    """Return what an interrupted write may leave."""
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_no_home_no_language_no_display(tmp_path):
    """The copy's path has a space and a letter beyond ASCII."""
    copy = make_clone(tmp_path / "autre cloné")
    bare = {"PATH": active_environment()["PATH"], "VIRTUAL_ENV": sys.prefix, "LC_ALL": "C", "HOME": "/dev/null"}
    bare["PYTHONPATH"] = os.pathsep.join(str(copy / folder) for folder in ("tests", "tests/helpers"))

    def run(*command):
        return subprocess.run(command, cwd=copy, env=bare, capture_output=True, text=True)

    trained = run("bash", "training/no_regularizer/run.sh", "max_epochs=1", "score_viewer.every_n_epochs=1")
    assert trained.returncode == 0, trained.stderr
    done = run(sys.executable, "-c", QUICK, *WORDS, "--experiments", "analytical")
    assert done.returncode == 0, done.stderr
    assert (copy / "generated_artifacts" / "analytical" / "run1" / "score_field.mp4").exists()
    wrong = run(sys.executable, "analyse_experiments.py", "--experiments", "nö")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("no experiment is called")


@pytest.mark.privileged
def test_clone_that_cannot_be_written_is_analysed_elsewhere(training, tmp_path, capsys, monkeypatch):
    with_few_points(monkeypatch)
    without_drawing(monkeypatch)
    leave_run("no_regularizer")
    elsewhere = tmp_path / "out"
    with mounted(tmp_path / "read only", "-o", "bind,ro", str(training.parent)) as frozen:
        use_training_folder(frozen / "training", monkeypatch)
        assert train("--run-name", "other") == 2
        assert last_line(capsys).endswith("Read-only file system")
        assert analyse(frozen / "generated_artifacts", "no_regularizer") == 2
        assert last_line(capsys).endswith("Read-only file system")
        assert analyse(elsewhere, "no_regularizer") == 0
    assert (elsewhere / "no_regularizer" / "run1" / "metrics.json").exists() and (elsewhere / "index.html").exists()


@pytest.mark.privileged
@pytest.mark.usefixtures("training")
def test_disk_that_is_full_ends_the_analysis_in_a_line(tmp_path, capsys, monkeypatch):
    with_few_points(monkeypatch)
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=100k", "tmpfs") as small:
        assert analyse(small, "analytical") == 2
        said = last_line(capsys)
        assert str(small) in said and "No space left on device" in said
        assert hidden(small) == []


# --- stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_analysis_that_is_stopped_while_it_samples_ends_in_a_sentence(tmp_path, capsys, monkeypatch, number):
    monkeypatch.setattr("utils.score.samplers.predictor_corrector", lambda *_, **__: os.kill(os.getpid(), number))
    assert analyse(tmp_path / "out", "analytical") == 130
    assert last_line(capsys) == "Stopped; every file that was written is whole. The same command starts again."
    assert hidden(tmp_path) == []


def test_analysis_that_is_stopped_while_it_writes_the_video_leaves_no_half_of_one(tmp_path, monkeypatch):
    def interrupted(field, t):
        if t > 0.5:
            until(lambda: hidden(tmp_path))  # it is being written
            os.kill(os.getpid(), signal.SIGINT)
        return original(field, t)

    original, (_, configuration, network, _) = Field.log_density, load_run(Run("analytical"))
    monkeypatch.setattr(Field, "log_density", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_video(network, configuration, "", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


@pytest.mark.parametrize(
    ("words", "number", "delay"),
    [
        ("analyse_experiments.py --experiments analytical", signal.SIGTERM, 1.0),  # the interpreter listens by then
        ("-m training.train no_regularizer", signal.SIGINT, 0.5),
        ("-m training.train no_regularizer", signal.SIGINT, 1.2),
        ("-m training.sweep --all", signal.SIGINT, 0.5),
        ("-m training.sweep --all", signal.SIGINT, 1.2),
    ],
)
def test_command_that_is_stopped_in_its_imports_shows_no_traceback(tmp_path, words, number, delay):
    command, copy = [sys.executable, *words.split()], make_clone(tmp_path / "copy")
    process = subprocess.Popen(command, cwd=copy, env=active_environment(), stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (-signal.SIGINT, 130) and "Traceback" not in said, said


def test_check_dependencies_asks_about_every_list_and_fails_where_one_fails(tmp_path):
    asked, audit = tmp_path / "asked", tmp_path / "pip-audit"
    audit.write_text(f'#!/usr/bin/env bash\necho "$@" >> "{asked}"\n[[ "$*" != *requirements-dev* ]]\n')
    audit.chmod(0o755)
    variables = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "check_dependencies.sh")]
    assert subprocess.run(command, env=variables, capture_output=True).returncode == 1
    lists = sorted(path.name for path in ROOT.glob("requirements*.txt"))
    assert [Path(line.split()[-1]).name for line in asked.read_text().splitlines()] == lists
    assert all("--strict" in line for line in asked.read_text().splitlines())
