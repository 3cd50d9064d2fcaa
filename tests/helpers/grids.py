"""Sweeps in copies of the repository, whose runs and evaluations are short."""

import subprocess
import time

import yaml
from analysed import SAMPLING
from conftest import active_environment, make_clone
from subjects import FEW

NO, FP = "no_regularizer", "fokker_planck_regularizer"
SHORT = {"max_epochs": 3, "early_stopping_patience": None}
SHORT |= {"data.training_set_size": 512, "data.validation_set_size": 128}
SHORT |= dict.fromkeys(("score_viewer.every_n_epochs", "score_viewer.field_every_n_epochs"), 1000000)


def grid(path, *parts, name="tried", seeds=(0, 1), **overrides):
    """Write a sweep's file; a part is an experiment and its overrides."""
    parts = [{"experiments": [experiment], "overrides": own} for experiment, own in parts]
    content = {"name": name, "seeds": list(seeds), "parts": parts} | overrides
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def make_quick_clone(folder):
    """Copy the repository; an evaluation takes few points and few samples there, and two metrics are all."""
    make_clone(folder)
    with (folder / "utils/evaluation/__init__.py").open("a") as file:
        file.write(f"\nfrom utils.evaluation import registry as it\nfew = it.{FEW}\nit.Effort = lambda: few\n")
        file.write("it.METRICS = {name: it.METRICS[name] for name in ('path_kl', 'stray_fraction')}\n")
    with (folder / "utils/score/samplers.py").open("a") as file:
        numbers = (f"    {name}: {type(value).__name__} = {value!r}\n" for name, value in SAMPLING)
        file.write("\nclass Sampling(Sampling):\n" + "".join(numbers))
    return folder


def start(copy, *words):
    """Start a command there, in a session of its own, as in a terminal."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen([str(word) for word in words], cwd=copy, env=active_environment(), text=True, **pipes)


def until(condition, process=None, seconds=300):
    limit = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)
