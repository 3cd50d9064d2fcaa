"""What the tests share: the base case, its exact score, other shapes of the problem, and copies to run things in."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from utils.physics.laws import ToyProblem
from utils.physics.noise_schedule import ExponentialSchedule
from utils.runs import run as runs
from utils.score.networks import MLP, AnalyticalScoreNetwork

torch.set_num_threads(1)
# A shell starts background jobs with Ctrl-C ignored; the tests, and the processes that they start, should listen to it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Random cases are the same in every run; --hypothesis-profile=wide tries others, and more.
settings.register_profile("same", deadline=None, derandomize=True, database=None, max_examples=200)
settings.register_profile("wide", deadline=None, max_examples=2000)
settings.load_profile("same")

ROOT = runs.ROOT

BASE = [[0.25], [0.75]]
OTHERS = [[[0.4]], [[0.1], [0.45], [0.8]], [[0.2, 0.3], [0.7, 0.9]]]


def pytest_itemcollected(item):
    """Let tests that share a costly fixture share a worker as well, where pytest runs with --dist loadgroup."""
    for fixture in {"clone", "runs"} & set(item.fixturenames):
        item.add_marker(pytest.mark.xdist_group(fixture))


def make_problem(coordinates=BASE, sigma_d=0.01, permutation_symmetric=True):
    settings = {"sigma_d": sigma_d, "permutation_symmetric": permutation_symmetric}
    return ToyProblem(equilibrium_relative_coordinates=coordinates, **settings)


def make_network(schedule, shape=(2, 1), permutation_equivariant=True, seed=0, kind=MLP, **others):
    sizes = {f"{name}_embedding_size": size for name, size in (("coordinates", 32), ("sigma", 16), ("time", 16))}
    sizes |= {"hidden_size": 64, "number_of_hidden_layers": 3}
    torch.manual_seed(seed)
    return kind(**sizes, permutation_equivariant=permutation_equivariant, **others).build(schedule, shape)


@pytest.fixture
def problem():
    return make_problem()


@pytest.fixture
def schedule():
    return ExponentialSchedule(sigma_min=0.001, sigma_max=0.2)


@pytest.fixture
def truth(problem, schedule):
    return AnalyticalScoreNetwork(problem, schedule)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A copy of the YAML files under training/, where experiments are now looked for and write their runs."""
    folder = copy_training(tmp_path)
    use_training_folder(folder, monkeypatch)
    return folder


@pytest.fixture
def texts(training, monkeypatch):
    """Let analyses in that copy cost little: few points, two metrics, no drawing; what figures say, by their path."""
    from analysed import cheaply, with_few_metrics  # which imports this

    with_few_metrics(monkeypatch)
    return cheaply(monkeypatch)


def copy_training(folder):
    left_out = shutil.ignore_patterns("output", "config.yaml", "*.py", "__pycache__")
    return Path(shutil.copytree(ROOT / "training", folder / "training", ignore=left_out))


def use_training_folder(folder, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", folder.parent)
    monkeypatch.setattr(runs, "TRAINING", folder)


def snapshot(folder):
    """Return everything below a folder: files with their content and the time of their last change, and folders."""
    return {path: path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*")}


def refused(main, words, capsys, folder):
    """Run a command that must be refused and change nothing in a folder; return the lines it says."""
    before = snapshot(folder)
    capsys.readouterr()
    try:
        status = main(words)
    except SystemExit as end:  # argparse
        status = end.code
    printed = capsys.readouterr()
    assert status == 2
    assert snapshot(folder) == before
    assert printed.out == "" and "Traceback" not in printed.err
    return [line for line in printed.err.splitlines() if not line.startswith(("usage:", "   "))]


def make_clone(folder):
    """Copy the repository without what running it leaves behind."""
    left_out = shutil.ignore_patterns(".*", "output", "config.yaml", "__pycache__", "generated_artifacts", "docs")
    return Path(shutil.copytree(ROOT, folder, ignore=left_out))


def executable(path, content):
    """Write a script that can be called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(0o700)


def active_environment(**others):
    """Return the variables of a shell in which the environment of these tests is active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # pytest-xdist sets it
    return inherited | {"VIRTUAL_ENV": sys.prefix, "PATH": path} | others


def in_bare_shell(*words, cwd, **others):
    """Run a command in such a shell, but without a home, a language or a display; return what it did."""
    active = active_environment()
    bare = {name: active[name] for name in ("PATH", "VIRTUAL_ENV")} | {"LC_ALL": "C", "HOME": "/dev/null"} | others
    return subprocess.run(words, cwd=cwd, env=bare, capture_output=True, text=True)


@contextlib.contextmanager
def mounted(folder, *options):
    """Mount something on a folder for a while; skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True, parents=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


SHORT = ("max_epochs=4", "scheduler.type=constant", "data={training_set_size: 1024, validation_set_size: 256}")
SHORT += ("score_viewer={every_n_epochs: 2, field_every_n_epochs: 2}",)


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A copy of the repository in which no_regularizer was trained shortly, by its run.sh, from another folder.

    The folder's name has spaces and a letter beyond ASCII. Tests leave it as it is.
    """
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folder = make_clone(tmp_path_factory.mktemp("copy") / "my cloné dir")
    done = in_bare_shell("bash", str(folder / "training" / "no_regularizer" / "run.sh"), *SHORT, cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished its 4 epochs" in done.stdout
    assert not list(elsewhere.iterdir())
    return folder
