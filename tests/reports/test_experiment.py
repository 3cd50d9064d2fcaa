"""The analysis of a run: everything that was promised is written, opens, and says what was done."""

import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from analysed import SAMPLING, WORDS, leave_run, with_few_metrics, with_few_points, without_drawing
from conftest import OTHERS, ROOT, copy_training, make_problem, use_training_folder
from PIL import Image

import analyse_experiments
from utils.evaluation.sample_metrics import radii
from utils.plots.score_field import ScoreFieldFigure
from utils.plots.views import Field
from utils.reports import experiment
from utils.runs.checkpoints import load_run
from utils.runs.run import Run
from utils.runs.store import Record

PICTURES = {"samples.png", "radial_distribution.png", "score_error.png", "maps.png"}
FILES = {*PICTURES, "samples.npz", "score_field.mp4", "metrics.json"}
COMPARISONS = {f"{name}_comparison.png" for name in ("score_error", "residual", "consistency", "drift", "samples")}
COMPARISONS |= {"marginal_distribution.png", "learning_curves.png"}
ONE_ATOM = "toy_problem.equilibrium_relative_coordinates=[[0.25]]"


def analyse(output, *words):
    return analyse_experiments.main([*WORDS, "--output-dir", str(output), *words])


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The analysis of a run, and so of its control; the folder's name has a space and a letter beyond ASCII."""
    folder = tmp_path_factory.mktemp("analysis")
    with pytest.MonkeyPatch.context() as patch:
        use_training_folder(copy_training(folder), patch)
        with_few_points(patch)
        leave_run("no_regularizer")
        with pytest.MonkeyPatch.context() as inner:
            without_drawing(inner)
            analyse(folder / "my resülts", "--experiments", "analytical")
        assert analyse(folder / "my resülts", "--experiments", "no_regularizer") == 0
    return folder / "my resülts"


@pytest.fixture
def cheap(training, monkeypatch):
    """A folder of experiments whose analyses cost little; what is written on the figures, by their path."""
    with_few_points(monkeypatch)
    with_few_metrics(monkeypatch)
    return without_drawing(monkeypatch)


def test_everything_that_was_promised_is_written_and_nothing_else(output):
    assert {path.name for path in (output / "no_regularizer" / "run1").iterdir()} == FILES
    assert {path.name for path in output.iterdir() if path.is_file()} == COMPARISONS | {"index.html", "summary.csv"}


def test_pictures_open_and_are_not_blank(output):
    for path in [*(output / name for name in COMPARISONS), *(output / "no_regularizer/run1" / n for n in PICTURES)]:
        with Image.open(path) as picture:
            low, high = picture.convert("L").getextrema()
            assert picture.format == "PNG" and picture.width >= 700 and low < 50 and high > 250


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


def test_run_that_cannot_be_analysed_is_named_and_the_others_are_analysed(cheap, tmp_path, capsys, monkeypatch):
    evaluate = experiment.evaluate_run

    def fail(loaded, *rest, **options):
        return 1 / 0 if loaded.run.name == "first" else evaluate(loaded, *rest, **options)

    monkeypatch.setattr(experiment, "evaluate_run", fail)
    for name in ("first", "second"):
        leave_run("no_regularizer", name)
    output, words = tmp_path / "out", ["--experiments", "consistency_regularizer", "no_regularizer/first"]
    assert analyse(output, *words, "no_regularizer/second") == 1
    printed, command = capsys.readouterr(), f"bash {tmp_path}/training/consistency_regularizer/run.sh"
    assert printed.err.splitlines() == [
        f"consistency_regularizer, run1: not trained yet; train it with: {command}",
        "no_regularizer, first: ZeroDivisionError('division by zero')",
    ]
    runs = [path.parent.relative_to(output).as_posix() for path in output.rglob("metrics.json")]
    assert sorted(runs) == ["analytical/run1", "no_regularizer/second"]
    assert "\nanalytical " in printed.out and (output / "index.html").exists()
    with pytest.raises(ZeroDivisionError):
        analyse(output, *words[:1], *words[2:], "--debug")


def test_failing_ffmpeg_is_named_with_its_message_and_no_number_is_lost(cheap, tmp_path, capsys, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho 'no such encoder' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    pixels = np.zeros((2, 2, 3), np.uint8)
    monkeypatch.setattr(
        experiment, "draw_video", lambda *given: experiment.write_video([pixels], given[3] / "score_field.mp4")
    )
    leave_run("no_regularizer")
    assert analyse(tmp_path / "out", "--experiments", "no_regularizer") == 1
    printed = capsys.readouterr()
    assert "no_regularizer/run1/score_field.mp4: ffmpeg failed with exit status 1: no such encoder" in printed.err
    assert "\nanalytical " in printed.out and "\nno_regularizer " in printed.out
    for name in ("analytical", "no_regularizer"):
        assert (tmp_path / "out" / name / "run1" / "samples.npz").exists()
    assert not list(tmp_path.rglob("*.mp4")) and "is older" not in (tmp_path / "out/index.html").read_text()


def test_control_is_analysed_again_only_where_it_was_sampled_otherwise(cheap, tmp_path, monkeypatch):
    run = leave_run("no_regularizer", "one", ONE_ATOM)
    analysed, real = [], experiment.analyse
    monkeypatch.setattr(experiment, "analyse", lambda *given: analysed.append(given[0].run) or real(*given))
    control = Run("analytical", "no_regularizer,one")
    for sampling, expected in ((SAMPLING, [control, run]), (SAMPLING, [run])):
        analysed.clear()
        experiment.analyse_run(run, sampling, tmp_path / "out")
        assert analysed == expected
    loaded, more = load_run(run), SAMPLING.model_copy(update={"time_steps": 11})
    assert experiment.is_analysed(loaded, SAMPLING, tmp_path / "out")
    assert not experiment.is_analysed(loaded, more, tmp_path / "out")


def test_pictures_of_three_atoms_say_that_they_show_a_slice(cheap, tmp_path, schedule):
    run = leave_run("no_regularizer", "three", f"toy_problem.equilibrium_relative_coordinates={OTHERS[1]}")
    folder = experiment.analyse(load_run(run), SAMPLING, tmp_path / "out").folder
    for name in ("samples.png", "maps.png"):
        text = "\n".join(cheap[folder / name])
        assert "slice in which the other coordinates are 0.8" in text
    field = Field(make_problem(OTHERS[1]), schedule)
    figure = ScoreFieldFigure(field.points, field.grid, field.plane).figure
    assert any("This is a slice in which the other coordinates are 0.8" in text.get_text() for text in figure.texts)


def test_problem_without_a_plane_gets_no_field_and_everything_else(training, tmp_path, capsys, monkeypatch):
    with_few_points(monkeypatch)
    without_drawing(monkeypatch)
    run = leave_run("no_regularizer", "one", ONE_ATOM)
    folder = experiment.analyse(load_run(run), SAMPLING, tmp_path / "out").folder
    assert {path.name for path in folder.iterdir()} == FILES - {"score_field.mp4", "samples.png", "maps.png"}
    assert "no maps.png and no score_field.mp4" in capsys.readouterr().out


def test_frames_are_kept_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "VIDEO_FRAMES", 2)
    _, configuration, network, _ = load_run(Run("analytical"))
    for keep, names in ((False, set()), (True, {"frame_000.png", "frame_001.png"})):
        experiment.draw_video(network, configuration, "title", tmp_path / str(keep), keep_frames=keep)
        assert {path.name for path in (tmp_path / str(keep)).glob("frames/*")} == names
        assert (tmp_path / str(keep) / "score_field.mp4").exists()
    with Image.open(tmp_path / "True" / "frames" / "frame_001.png") as picture:
        assert picture.size == (1920, 1080)


def test_help_explains_without_importing_torch():
    code = "import sys; sys.argv = ['analyse_experiments.py', '--help']\n"
    code += "try: import runpy; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "except SystemExit as end: print('status', end.code, 'torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "status 0 False False", done.stderr
    assert "--time-steps" in done.stdout and "default: 100" in done.stdout
