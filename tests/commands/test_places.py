"""Where the commands run: without a home, a language or a display; without the right or the room to write; stopped."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from analysed import WORDS, analyse, leave_run, with_few_metrics, with_few_points, without_drawing
from conftest import active_environment, in_bare_shell, make_clone, mounted, use_training_folder
from grids import until
from trained import train

from utils.plots.views import Field
from utils.reports.experiment import draw_video
from utils.runs.checkpoints import load_run
from utils.runs.run import Run

QUICK = "import pytest, analysed, analyse_experiments as it; analysed.with_few_points(pytest.MonkeyPatch()); it.main()"


def last_line(capsys):
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.replace("\r", "\n").splitlines()[-1]


def test_analysis_needs_no_home_no_language_no_display(tmp_path):
    """Nor does a training, as the fixture `clone` shows. The copy's path has a space and a letter beyond ASCII."""
    copy = make_clone(tmp_path / "autre cloné")
    path = os.pathsep.join(str(copy / folder) for folder in ("tests", "tests/helpers"))
    words = sys.executable, "-c", QUICK, *WORDS, "--experiments", "analytical"
    ascii = {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "3", "MPLBACKEND": "module://of.a.notebook"}
    done = in_bare_shell(*words, cwd=copy, PYTHONPATH=path, **ascii)
    assert done.returncode == 0, done.stderr
    assert (copy / "generated_artifacts" / "analytical" / "run1" / "score_field.mp4").exists()
    wrong = in_bare_shell(sys.executable, "analyse_experiments.py", "--experiments", "nö", cwd=copy)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("no experiment is called")


@pytest.mark.privileged
def test_clone_that_cannot_be_written_is_analysed_elsewhere(training, tmp_path, capsys, monkeypatch):
    with_few_metrics(monkeypatch)
    without_drawing(monkeypatch)
    leave_run("no_regularizer")
    elsewhere = tmp_path / "out"
    with mounted(tmp_path / "read only", "-o", "bind,ro", str(training.parent)) as frozen:
        use_training_folder(frozen / "training", monkeypatch)
        assert train("--run-name", "other") == 2
        assert last_line(capsys).endswith("Read-only file system")
        words = "--experiments", "no_regularizer"
        assert analyse(frozen / "generated_artifacts", *words) == 2
        assert last_line(capsys).endswith("Read-only file system")
        assert analyse(elsewhere, *words) == 0
    assert (elsewhere / "no_regularizer" / "run1" / "metrics.json").exists() and (elsewhere / "index.html").exists()


@pytest.mark.privileged
@pytest.mark.usefixtures("training")
def test_disk_that_is_full_ends_the_analysis_in_a_line(tmp_path, capsys, monkeypatch):
    with_few_points(monkeypatch)
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=100k", "tmpfs") as small:
        assert analyse(small, "--experiments", "analytical") == 2
        said = last_line(capsys)
        assert str(small) in said and "No space left on device" in said
        assert not [*small.rglob(".*")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_analysis_that_is_stopped_while_it_samples_ends_in_a_sentence(tmp_path, capsys, monkeypatch, number):
    monkeypatch.setattr("utils.score.samplers.predictor_corrector", lambda *_, **__: os.kill(os.getpid(), number))
    assert analyse(tmp_path / "out", "--experiments", "analytical") == 130
    assert last_line(capsys) == "Stopped; every file that was written is whole. The same command starts again."
    assert not [*tmp_path.rglob(".*")]


def test_analysis_that_is_stopped_while_it_writes_the_video_leaves_no_half_of_one(tmp_path, monkeypatch):
    def interrupted(field, t):
        if t > 0.5:
            until(lambda: [*tmp_path.rglob(".*")])  # it is being written
            os.kill(os.getpid(), signal.SIGINT)
        return original(field, t)

    original = Field.log_density
    monkeypatch.setattr(Field, "log_density", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_video(load_run(Run("analytical")), "", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


@pytest.mark.parametrize(
    ("words", "number", "delay"),
    [
        ("analyse_experiments.py --experiments analytical", signal.SIGTERM, 1.0),
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
    assert process.returncode in (-number, 130) and "Traceback" not in said, said
