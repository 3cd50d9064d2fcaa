"""The analysis of a run: everything that was promised is written, opens, and says what was done."""

import os
import re
import shutil
import subprocess
import sys
from unittest.mock import Mock

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from analysed import SAMPLING, analyse, cheaply, leave_run, with_few_metrics, with_few_points
from conftest import OTHERS, ROOT, copy_training, use_training_folder
from PIL import Image

from utils.evaluation import registry
from utils.evaluation.registry import METRICS
from utils.evaluation.sample_metrics import radii
from utils.reports import experiment
from utils.runs.checkpoints import load_run
from utils.runs.run import Run
from utils.runs.store import Record

PICTURES = {"samples.png", "radial_distribution.png", "score_error.png", "maps.png"}
VIDEO = "score_field.mp4"
COMPARISONS = {f"{name}_comparison.png" for name in ("score_error", "residual", "consistency", "drift", "samples")}
COMPARISONS |= {"marginal_distribution.png", "learning_curves.png"}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The analysis of a run and its control, whose pictures are not drawn; a name with a space, and beyond ASCII."""
    folder = tmp_path_factory.mktemp("analysis")
    with pytest.MonkeyPatch.context() as patch:
        use_training_folder(copy_training(folder), patch)
        with_few_points(patch)
        patch.setattr(registry, "METRICS", {n: one for n, one in METRICS.items() if not n.startswith("ode_")})
        leave_run("no_regularizer")
        with patch.context() as inner:
            cheaply(inner)
            analyse(folder / "my resülts", "--experiments", "analytical")
        assert analyse(folder / "my resülts", "--experiments", "no_regularizer") == 0
    return folder / "my resülts"


def test_everything_that_was_promised_is_written_and_pictures_are_not_blank(output):
    folder = output / "no_regularizer" / "run1"
    assert {path.name for path in folder.iterdir()} == {*PICTURES, "samples.npz", VIDEO, "metrics.json"}
    files = COMPARISONS | {"index.html", "live.html", "summary.csv"}
    assert {path.name for path in output.iterdir() if path.is_file()} == files
    for path in (*output.glob("*.png"), *folder.glob("*.png")):
        with Image.open(path) as picture:
            low, high = picture.convert("L").getextrema()
            assert picture.width >= 700 and low < 50 and high > 250


def test_samples_are_those_that_were_asked_for_and_the_numbers_are_theirs(output, problem, schedule):
    for name in ("analytical", "no_regularizer"):
        record = Record.read(output / name / "run1" / "metrics.json")
        with np.load(record.folder / "samples.npz") as file:
            x = torch.tensor(file["samples"])
            said = {key: file[key].item() for key in file.files if key != "samples"}
        assert x.shape == (60, 2, 1) and x.min() >= 0 and x.max() < 1
        assert said == record.facts["sampling"] == SAMPLING.model_dump()
        assert record.facts["network_evaluations_per_sample"] == 10
        strays = radii(problem, x, schedule.sigma(torch.zeros(()))) > problem.stray_radius
        assert record.estimates["stray_fraction"].value == pytest.approx(strays.double().mean().item(), rel=1e-5)
    assert 0.5 < strays.double().mean() <= 1  # of a network that nobody trained


def test_what_fails_is_named_with_its_reason_and_everything_else_is_analysed(texts, tmp_path, capsys, monkeypatch):
    """One run has no numbers, another, of three atoms, no video, and a third was not trained."""
    evaluate = experiment.evaluate_run

    def fail(loaded, *rest, **options):
        return 1 / 0 if loaded.run.name == "first" else evaluate(loaded, *rest, **options)

    monkeypatch.setattr(experiment, "evaluate_run", fail)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: shutil.which("false"))
    frames = [np.zeros((2, 2, 3), np.uint8)]
    monkeypatch.setattr(experiment, "draw_video", lambda *given: experiment.write_video(frames, given[2] / VIDEO))
    leave_run("no_regularizer", "first")
    leave_run("no_regularizer", "second", f"toy_problem.equilibrium_relative_coordinates={OTHERS[1]}")
    words, output = ["--experiments", "no_regularizer/first", "no_regularizer/second"], tmp_path / "out"
    assert analyse(output, *words, "consistency_regularizer") == 1
    printed, untrained = capsys.readouterr(), Run("consistency_regularizer")
    assert printed.err.splitlines() == [
        "no_regularizer, first: ZeroDivisionError('division by zero')",
        f"{output}/no_regularizer/second/{VIDEO}: ffmpeg failed with exit status 1: no message",
        f"{untrained.title}: not trained yet; train it with: {untrained.command}",
    ]
    runs = sorted(str(path.parent.relative_to(output)) for path in tmp_path.rglob("metrics.json"))
    assert runs == ["analytical/no_regularizer,second", "analytical/run1", "no_regularizer/second"]
    assert "\nanalytical " in printed.out and "\nno_regularizer, second " in printed.out
    assert len(list(tmp_path.rglob("samples.npz"))) == 3 and not list(tmp_path.rglob("*.mp4"))
    assert "is older" not in (output / "index.html").read_text()
    for name in ("samples.png", "maps.png"):
        text = "\n".join(texts[output / "no_regularizer/second" / name])
        assert "slice in which the other coordinates are 0.8" in text
    with pytest.raises(ZeroDivisionError):
        analyse(output, *words, "--debug")


def test_control_is_analysed_again_only_where_it_was_sampled_otherwise(training, tmp_path, capsys, monkeypatch):
    """Of a problem that has no plane: so there is no field, and everything else."""
    cheaply(monkeypatch)
    monkeypatch.setattr(registry, "METRICS", {name: one for name, one in METRICS.items() if "score" in name})
    run = leave_run("no_regularizer", "one", "toy_problem.equilibrium_relative_coordinates=[[0.25]]")
    analysed, real = [], experiment.analyse
    monkeypatch.setattr(experiment, "analyse", lambda *given: analysed.append(given[0].run) or real(*given))
    for _ in range(2):
        experiment.analyse_run(run, SAMPLING, tmp_path)
    assert analysed == [Run("analytical", "no_regularizer,one"), run, run]
    loaded, more = load_run(run), SAMPLING.model_copy(update={"time_steps": 11})
    assert [experiment.is_analysed(loaded, sampling, tmp_path) for sampling in (SAMPLING, more)] == [True, False]
    written = {"metrics.json", "samples.npz", "radial_distribution.png", "score_error.png"}
    assert {path.name for path in experiment.folder_of(run, tmp_path).iterdir()} == written
    assert "no maps.png and no score_field.mp4" in capsys.readouterr().out


def test_analysis_that_was_interrupted_or_is_of_older_weights_is_made_again(training, tmp_path, monkeypatch):
    cheaply(monkeypatch)
    with_few_metrics(monkeypatch)
    run = leave_run("no_regularizer")
    folder = experiment.folder_of(run, tmp_path)
    experiment.analyse_run(run, SAMPLING, tmp_path)
    assert experiment.is_analysed(load_run(run), SAMPLING, tmp_path) and (folder / "maps.png").exists()
    os.utime(run.best_checkpoint, (2e9, 2e9))  # it is of the same settings, and newer
    assert not experiment.is_analysed(load_run(run), SAMPLING, tmp_path)
    monkeypatch.setattr(experiment, "draw_samples", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        experiment.analyse_run(run, SAMPLING, tmp_path)
    os.utime(run.best_checkpoint, (0, 0))
    assert not experiment.is_analysed(load_run(run), SAMPLING, tmp_path) and not [*folder.glob("*.png")]


def test_frames_are_kept_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "VIDEO_FRAMES", 2)
    experiment.draw_video(load_run(Run("analytical")), "title", tmp_path, keep_frames=True)
    first, second = sorted((tmp_path / "frames").iterdir())
    assert (first.name, second.name) == ("frame_000.png", "frame_001.png")
    with Image.open(second) as picture:
        assert picture.size == (1920, 1080)


def test_help_explains_without_importing_torch():
    command = [sys.executable, "-X", "importtime", "analyse_experiments.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--time-steps" in done.stdout and "default: 100" in done.stdout
    assert "argparse" in done.stderr and not re.search(r"\b(torch|matplotlib|numpy)\b", done.stderr)
