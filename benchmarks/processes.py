"""Whole commands: how soon they start, and how much memory they take at most."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.lightning_module import MONITOR

LIBRARIES = (sys.executable, "-c", "import torch, pytorch_lightning")
# A process begins with the memory record of the one that made it: so a small one stands between.
MEASURE = """
import resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


class Cost(NamedTuple):
    """What a command took: wall-clock seconds, and the resident memory in megabytes of its largest process."""

    seconds: float
    megabytes: float


def cost(*words: str | Path, cwd: Path) -> Cost:
    """Return what a command costs. Raises RuntimeError with what it said where it fails."""
    command = [sys.executable, "-c", MEASURE, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[3:])} ended with {done.returncode}: {done.stderr[-2000:]}")
    seconds, memory = map(float, done.stdout.split())
    return Cost(seconds, memory / 1e6 if sys.platform == "darwin" else memory * 1024 / 1e6)


def start_up(clone: Path, repeats: int = 3) -> dict[str, float]:
    """Return the median seconds from a command to what one waits for, commands in turn."""
    found: dict[str, list[float]] = {"import": [], "first epoch": [], "help": []}
    script = clone / "training" / "no_regularizer" / "run.sh"
    for _ in range(repeats):
        found["import"].append(cost(*LIBRARIES, cwd=clone).seconds)
        began = time.time()
        cost("bash", script, "--run-name", "start", "--from-scratch", "max_epochs=1", cwd=clone)
        events = EventAccumulator(str(script.parent / "output" / "start"))
        events.Reload()
        found["first epoch"].append(events.Scalars(MONITOR)[0].wall_time - began)
        found["help"].append(cost(sys.executable, "analyse_experiments.py", "--help", cwd=clone).seconds)
    return {name: median(values) for name, values in found.items()}


def memory(clone: Path) -> dict[str, float]:
    """Return the largest resident memory in megabytes of a training with all pictures, and of its analysis."""
    script = clone / "training" / "no_regularizer" / "run.sh"
    training = cost("bash", script, "--run-name", "memory", "--from-scratch", "max_epochs=110", cwd=clone)
    options = ("--experiments", "no_regularizer", "--run-name", "memory", "--output-dir", clone / "memory")
    analysis = cost(sys.executable, "analyse_experiments.py", *options, cwd=clone)
    return {"training": training.megabytes, "analysis": analysis.megabytes}
