"""A sweep: every run of it is trained and evaluated once, to the same weights, whatever stops in between."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from conftest import active_environment, make_clone
from trained import equal

pytestmark = pytest.mark.xdist_group("sweep")

NO = "no_regularizer"
SHORT = {
    "max_epochs": 60,
    "data.training_set_size": 1024,
    "data.validation_set_size": 128,
    "early_stopping_patience": None,
    "score_viewer.every_n_epochs": 1000000,
    "score_viewer.field_every_n_epochs": 1000000,
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository to sweep in."""
    return make_clone(tmp_path_factory.mktemp("sweep") / "my cloné dir")


def grid(path, name, *parts, seeds=(0, 1)):
    parts = [{"experiments": [NO], "overrides": SHORT | overrides} for overrides in parts]
    path.write_text(yaml.safe_dump({"name": name, "seeds": list(seeds), "parts": parts}))
    return path


def start(copy, *words):
    """Start a command there, in a process group of its own, as a terminal would."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen([str(word) for word in words], cwd=copy, env=active_environment(), text=True, **pipes)


def sweep(copy, *words):
    return start(copy, sys.executable, "-m", "training.sweep", *words)


def until(condition, process, seconds=180):
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)


def workers(copy):
    """Return the processes that have this folder as theirs and train there: Dask's workers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(copy) and any("spawn_main" in word for word in process.cmdline()):
                found.append(process)
    return found


def folder_of(copy, name, seed=0):
    return copy / "training" / NO / "output" / name / f"seed={seed}"


def begun(copy, name):
    return list(copy.glob(f"training/*/output/{name}/*/checkpoints/best.ckpt"))


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def epochs(folder):
    return [int(line.split(",")[0]) for line in (folder / "curves.csv").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def whole(copy, tmp_path_factory):
    """The grid of a sweep that nothing has stopped, and what it printed."""
    path = grid(tmp_path_factory.mktemp("grid") / "whole.yaml", "whole", {})
    process = sweep(copy, "--config", path, "--workers", 2)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.startswith("2 of 2 runs are trained and evaluated; took 0:")
    return path


def test_every_run_is_trained_and_evaluated_and_a_second_call_does_nothing(copy, whole):
    for seed in (0, 1):
        folder = folder_of(copy, "whole", seed)
        assert epochs(folder) == [*range(60)]
        content = json.loads((folder / "metrics.json").read_text())
        assert content["training_seed"] == seed and content["metrics"]["path_kl"]["standard_error"] > 0
    before = {path: path.stat().st_mtime_ns for path in copy.glob("training/*/output/whole/*/*")}
    process = sweep(copy, "--config", whole)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(copy.glob("training/*/config.yaml"))  # each run has its own


def test_analysis_of_a_sweep_takes_what_was_evaluated_and_knows_runs_by_what_was_trained(copy, whole, tmp_path):
    results = tmp_path / "results.csv"
    words = [sys.executable, "analyse_experiments.py", "--output-dir", tmp_path, "--results", results, "--sweep"]
    stamp = (folder_of(copy, "whole") / "metrics.json").stat().st_mtime_ns
    for name in ("whole", "again"):
        if name == "again":  # the same trainings under another name: their rows are there
            (copy / "training" / NO / "output" / "whole").rename(copy / "training" / NO / "output" / "again")
            for path in copy.glob("training/*/output/again/*/metrics.json"):
                path.unlink()
        process = start(copy, *words, name)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "no regularizer  2" in out and f"a row a run: {results}" in out
    (copy / "training" / NO / "output" / "again").rename(copy / "training" / NO / "output" / "whole")
    assert not (folder_of(copy, "whole") / "metrics.json").exists()  # nothing was evaluated again
    assert stamp and len(results.read_text().splitlines()) == 3
    process = sweep(copy, "--config", whole, "--results", results, "--dry-run")
    assert process.communicate(timeout=60)[0] == ""  # the file holds all


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_runs_and_the_same_command_finishes_them_to_the_same_weights(copy, whole, tmp_path, number):
    name = f"stopped_by_{number.name}"
    words = "--config", grid(tmp_path / "g.yaml", name, {}, seeds=[0]), "--workers", 1
    process = sweep(copy, *words)
    until(lambda: begun(copy, name), process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends it to all
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert "Stopped; what was trained is saved. To continue: python -m training.sweep --config" in errors
    assert workers(copy) == []
    folder = folder_of(copy, name)
    assert "stopped after" in (folder / "log.txt").read_text()
    process = sweep(copy, *words)
    assert process.wait(timeout=180) == 0
    assert "continues after" in (folder / "log.txt").read_text()
    assert epochs(folder) == [*range(60)] and equal(weights(folder), weights(folder_of(copy, "whole")))


def test_run_of_a_killed_worker_goes_on_and_nothing_outlives_a_killed_sweep(copy, whole, tmp_path):
    words = "--config", grid(tmp_path / "g.yaml", "killed", {}), "--workers", 2
    process = sweep(copy, *words)
    until(lambda: len(begun(copy, "killed")) == 2, process)
    for worker in workers(copy)[:1]:
        worker.kill()
    assert process.wait(timeout=240) == 0
    for seed in (0, 1):
        assert equal(weights(folder_of(copy, "killed", seed)), weights(folder_of(copy, "whole", seed)))
        assert epochs(folder_of(copy, "killed", seed)) == [*range(60)]

    process = sweep(copy, "--config", grid(tmp_path / "h.yaml", "orphans", {"max_epochs": 3000}), "--workers", 2)
    until(lambda: len(begun(copy, "orphans")) == 2, process)
    process.kill()
    process.communicate()
    limit = time.monotonic() + 60
    while workers(copy):
        assert time.monotonic() < limit, "a worker lives on"
        time.sleep(0.1)


def test_failing_runs_are_named_with_their_logs_and_the_others_finish(copy, tmp_path):
    few = {"max_epochs": 3}
    wrong = "mps" if sys.platform != "darwin" else "cuda"
    parts = ({"accelerator": [wrong]} | few, {"data.validation_set_size": [128, 129]} | few)
    path = grid(tmp_path / "g.yaml", "fails", *parts, seeds=[0])
    output = copy / "training" / NO / "output" / "fails"
    broken = output / "data.validation_set_size=129,seed=0"
    (broken / "curves.csv").mkdir(parents=True)  # an OSError in the middle of Lightning
    process = sweep(copy, "--config", path, "--workers", 1)
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert out.startswith("1 of 3 runs are trained and evaluated;")
    for name, reason in ((f"accelerator={wrong},seed=0", "device here"), (broken.name, "Is a directory")):
        assert f"failed: {NO}, fails/{name}: " in errors and f"  log: {output / name / 'log.txt'}" in errors
        assert reason in (output / name / "log.txt").read_text()
    assert (output / "data.validation_set_size=128,seed=0" / "metrics.json").exists()


def test_two_sweeps_at_once_never_train_one_run(copy, whole, tmp_path):
    words = "--config", grid(tmp_path / "g.yaml", "twice", {}, seeds=[0]), "--workers", 1
    processes = [sweep(copy, *words) for _ in range(2)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    folder = folder_of(copy, "twice")
    assert epochs(folder) == [*range(60)] and equal(weights(folder), weights(folder_of(copy, "whole")))
    assert (folder / "log.txt").read_text().count(": finished its 60 epochs.") == 1


def test_sigterm_to_run_all_leaves_nothing_behind(copy):
    process = start(copy, "bash", "run_all.sh", "--experiments", NO, "--workers", "1")
    until(lambda: (copy / "training" / NO / "output" / "run1" / "curves.csv").exists(), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "To continue: bash run_all.sh" in errors
    assert workers(copy) == []
