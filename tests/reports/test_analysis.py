"""The analysis of trained experiments: everything that was promised is written, opens, and says what was done."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from conftest import ROOT, SHORT, in_shell, make_clone
from PIL import Image
from test_videos import described, top_level_boxes

import analyse_experiments
from utils.evaluation import sample_metrics as metrics
from utils.reports import experiment as analysis
from utils.reports.experiment import Sampling
from utils.runs.loading import FORMAT_VERSION, configure, load_run

PICTURES = ("samples.png", "radial_distribution.png", "score_error.png", "maps.png")
COMPARISONS = {f"{name}_comparison.png" for name in ("score_error", "residual", "consistency", "samples")}
COMPARISONS |= {"marginal_distribution.png", "learning_curves.png"}
DIFFERENCES = [word.partition("=")[0] for word in SHORT]
FILES = {*PICTURES, "samples.npz", "score_field.mp4", "metrics.json"}
FEW = ("--number-of-samples", "300", "--time-steps", "10")


@pytest.fixture(scope="module")
def analysed(clone, tmp_path_factory):
    """One analysis of everything: the exact score, a trained experiment, and another that is not trained."""
    folder = make_clone(tmp_path_factory.mktemp("analysis") / "copy")
    for path in (folder / "training").glob("*_regularizer"):
        if path.name != "no_regularizer":
            shutil.rmtree(path)
    shutil.copytree(clone / "training" / "no_regularizer", folder / "training" / "no_regularizer", dirs_exist_ok=True)
    untrained = folder / "training" / "another_idea"
    shutil.copytree(folder / "training" / "no_regularizer", untrained, ignore=shutil.ignore_patterns("output"))
    output = folder / "my resülts"
    script = str(folder / "analyse_experiments.py")
    done = in_shell("python", script, *FEW, "--output-dir", str(output), cwd=output.parent.parent)
    return done, output


def test_untrained_experiment_is_named_with_its_command_and_the_others_go_on(analysed):
    done, output = analysed
    assert done.returncode == 1
    command = "bash training/another_idea/run.sh"
    assert f"another_idea, run1: not trained yet; train it with: {command}" in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert not (output / "another_idea").exists()


def test_everything_that_was_promised_is_written(analysed):
    _, output = analysed
    for experiment in ("analytical", "no_regularizer"):
        assert {path.name for path in (output / experiment / "run1").iterdir()} == FILES
    files = {path.name for path in output.iterdir() if path.is_file()}
    assert files == COMPARISONS | {"index.html", "summary.csv"}


def test_pictures_open(analysed):
    _, output = analysed
    pictures = [output / e / "run1" / name for e in ("analytical", "no_regularizer") for name in PICTURES]
    for path in [*(output / name for name in COMPARISONS), *pictures]:
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.width >= 700
            low, high = picture.convert("L").getextrema()
            assert low < 50 and high > 250  # not blank


def test_samples_are_those_that_were_asked_for(analysed):
    _, output = analysed
    for experiment in ("analytical", "no_regularizer"):
        with np.load(output / experiment / "run1" / "samples.npz") as file:
            assert file["samples"].shape == (300, 2, 1)
            assert ((file["samples"] >= 0) & (file["samples"] < 1)).all()
            said = {name: file[name].item() for name in file.files if name != "samples"}
        asked = {"number_of_samples": 300, "time_steps": 10, "corrector_steps": 0, "start": "uniform", "seed": 1234}
        assert said == asked | {"format_version": FORMAT_VERSION}
        report = json.loads((output / experiment / "run1" / "metrics.json").read_text(encoding="utf-8"))
        assert report["format_version"] == FORMAT_VERSION and report["sampling"] == asked
        assert report["network_evaluations_per_sample"] == 10


def test_numbers_agree_wherever_they_stand(analysed):
    done, output = analysed
    with (output / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"analytical", "no_regularizer"}
    for experiment, row in rows.items():
        report = json.loads((output / experiment / "run1" / "metrics.json").read_text(encoding="utf-8"))
        assert (report["experiment"], report["run"]) == (experiment, row["run"]) == (experiment, "run1")
        assert report["oracle"] is False and report["configuration_difference"].keys() <= set(map(str, DIFFERENCES))
        assert any(line.startswith(experiment + " ") for line in done.stdout.splitlines())
        for name, metric in report["metrics"].items():
            assert metric["definition"] and metric["source"] and metric["number_of_points"] > 0
            for column, value in ((name, metric["value"]), (f"{name}_standard_error", metric["standard_error"])):
                if value is not None:  # JSON holds six digits
                    assert float(row[column]) == pytest.approx(value, rel=1e-5)
    assert float(rows["analytical"]["path_kl"]) == 0 < float(rows["no_regularizer"]["path_kl"])


def test_numbers_are_those_of_the_samples(analysed, problem):
    _, output = analysed
    folder = output / "no_regularizer" / "run1"
    with np.load(folder / "samples.npz") as file:
        x = torch.tensor(file["samples"])
    report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    distance = metrics.distance_to_nearest_mode(x, problem)
    share = (distance > 5 * math.sqrt(0.01**2 + 0.001**2)).double().mean().item()
    assert 0.5 < share < 1  # four epochs are not enough, and the number is not a constant
    assert report["metrics"]["stray_fraction"]["value"] == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize("experiment", ["analytical", "no_regularizer"])
def test_video_is_what_browsers_play(analysed, experiment):
    path = analysed[1] / experiment / "run1" / "score_field.mp4"
    said = described(path)
    assert "Video: h264" in said and "yuv420p(tv, bt709" in said and "1920x1080" in said
    assert top_level_boxes(path).index("moov") < top_level_boxes(path).index("mdat")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-stats", "-i", str(path), "-f", "null", "-"]
    decoding = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.findall(r"frame=\s*(\d+)", decoding)[-1] == "51"


# --- options, in this process


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--experiments", "no_regulariser"], "no experiment is called 'no_regulariser'; did you mean no_regularizer?"),
        (["--experiments", "no_regularizer", "--run-name", "../x"], "run name '../x': should be letters"),
        (["--experiments", "analytical", "no_regularizer", "nonsense"], "no experiment is called 'nonsense'"),
    ],
)
def test_unknown_name_ends_the_analysis_before_anything_is_written(tmp_path, capsys, arguments, said):
    assert analyse_experiments.main([*arguments, *FEW, "--output-dir", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(said) and printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--number-of-samples=0", "--time-steps=x", "--corrector-steps=-1", "--start=here"])
def test_bad_option_ends_with_usage(option, capsys):
    with pytest.raises(SystemExit) as caught:
        analyse_experiments.main([option])
    assert caught.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err.splitlines()[-1]


def test_failing_ffmpeg_ends_the_analysis_with_its_message(tmp_path, capsys, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho 'no such encoder' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    output = tmp_path / "output"
    arguments = ["--experiments", "analytical", *FEW, "--output-dir", str(output)]
    assert analyse_experiments.main(arguments) != 0
    assert "no such encoder" in capsys.readouterr().err
    assert not list(output.rglob("*.mp4"))


def test_help_explains_without_importing_torch():
    code = "import sys; sys.argv = ['analyse_experiments.py', '--help']\n"
    code += "try: import runpy; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "except SystemExit as end: print('status', end.code, 'torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "status 0 False False", done.stderr
    assert "--time-steps" in done.stdout and "default: 100" in done.stdout


def test_frames_are_kept_where_that_is_asked_for(tmp_path, monkeypatch):
    configuration, network, _ = load_run(analysis.Run("analytical"))
    monkeypatch.setattr(analysis, "VIDEO_FRAMES", 3)  # 51 take their time, and the length of the video is tested above
    for keep, names in ((False, set()), (True, {f"frame_{i:03d}.png" for i in range(3)})):
        analysis.draw_video(network, configuration, "title", tmp_path / str(keep), keep_frames=keep)
        assert {path.name for path in (tmp_path / str(keep)).glob("frames/*")} == names
        assert (tmp_path / str(keep) / "score_field.mp4").exists()
    with Image.open(tmp_path / "True" / "frames" / "frame_001.png") as picture:
        assert picture.size == (1920, 1080)


def sampling(**others):
    chosen = {"number_of_samples": 300, "time_steps": 10, "corrector_steps": 0, "start": "uniform", "seed": 1}
    return Sampling(**chosen | others)


def test_equal_seeds_give_equal_samples(truth, monkeypatch):
    configuration = configure("analytical")
    monkeypatch.setattr(analysis, "CHUNK", 128)  # three chunks, the last one smaller
    first = sampling().draw(truth, configuration)[0.0]
    assert first.shape == (300, 2, 1)
    assert len(first[:, 0, 0].unique()) == 300
    torch.rand(1)
    assert torch.equal(sampling().draw(truth, configuration)[0.0], first)
    for others in ({"seed": 2}, {"start": "exact"}, {"corrector_steps": 1}, {"time_steps": 11}):
        assert not torch.equal(sampling(**others).draw(truth, configuration)[0.0], first)


@pytest.mark.parametrize(("start", "sign"), [("exact", 1), ("uniform", -1)])
def test_start_is_drawn_from_its_law(start, sign, truth, monkeypatch, problem, schedule):
    """The mean of log p(x, 1) is KL(p | uniform), 0.086 nats, where x is from p, else -KL(uniform | p)."""
    monkeypatch.setattr(analysis, "predictor_corrector", lambda network, x, *_, **__: x)
    x = sampling(number_of_samples=20_000, start=start).draw(truth, configure("analytical"))[0.0]
    log_density = problem.log_density(x, schedule.sigma(torch.ones(len(x))))
    error = log_density.std().item() / math.sqrt(len(x))
    if start == "exact":
        assert log_density.mean().item() == pytest.approx(0.086, abs=5e-4 + 4.5 * error)
    else:
        points = torch.arange(100) / 100
        grid = torch.cartesian_prod(points, points)[:, :, None]
        uniform = problem.log_density(grid, schedule.sigma(torch.ones(len(grid)))).mean().item()
        assert log_density.mean().item() == pytest.approx(uniform, abs=4.5 * error)
    assert sign * log_density.mean() > 10 * error


def test_problem_without_a_plane_gets_no_field_and_everything_else(tmp_path, capsys, training):
    base = training / "base_config.yaml"
    base.write_text(base.read_text(encoding="utf-8").replace("[[0.25], [0.75]]", "[[0.25]]"), encoding="utf-8")
    output = tmp_path / "output"
    assert analyse_experiments.main(["--experiments", "analytical", *FEW, "--output-dir", str(output)]) == 0
    written = {path.name for path in (output / "analytical" / "run1").iterdir()}
    assert written == FILES - {"score_field.mp4", "samples.png", "maps.png"}
    assert "no maps.png and no score_field.mp4" in capsys.readouterr().out
