"""`python -m benchmarks`: what an epoch of each experiment costs, in epochs of no_regularizer.

CPU time on one thread, of all experiments in turn; medians of ratios over rounds.
"""

import contextlib
import io
import os
import platform
import shutil
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median

import torch

from training.train import train
from utils.runs import run as runs
from utils.runs.loading import configure

SHORT, LONG = 10, 30  # epochs; the difference has two pictures of the line, and as many last.ckpt
TRAININGS = {  # row -> an experiment and what overrides it; the field is drawn every 50 epochs, so never here
    **{name: (name,) for name in runs.find_experiments()},
    f"{runs.BASELINE}, with a picture every epoch": (runs.BASELINE, "score_viewer.every_n_epochs=1"),
    f"{runs.BASELINE}, without pictures": (runs.BASELINE, "score_viewer.every_n_epochs=100000"),
}


def seconds_of(experiment: str, *overrides: str, epochs: int) -> float:
    """Return the CPU seconds of a training as run.sh starts it."""
    settings, began = configure(experiment, (*overrides, f"max_epochs={epochs}")), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(runs.Run(experiment, "benchmark"), settings, from_scratch=True)
    return time.process_time() - began


def seconds_an_epoch(*words: str) -> float:
    """Return the duration of an epoch: the difference between a LONG and a SHORT training, without their start."""
    short, long = (seconds_of(*words, epochs=epochs) for epochs in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def rows(rounds: int = 5) -> Iterator[tuple[str, str]]:
    """What was measured, and the result. Each training is measured just after a plain one, since the speed of a shared
    machine changes within a minute."""
    seconds_of(runs.BASELINE, epochs=1)  # imports
    plain: list[float] = []
    ratios: dict[str, list[float]] = {row: [] for row in TRAININGS if row != runs.BASELINE}
    for _ in range(rounds):
        for row, found in ratios.items():
            plain.append(seconds_an_epoch(runs.BASELINE))
            found.append(seconds_an_epoch(*TRAININGS[row]) / plain[-1])
    yield runs.BASELINE, f"{1e3 * median(plain):.1f} ms"
    for row, found in ratios.items():
        yield row, f"{median(found):.2f} plain epochs"


def main() -> None:
    """Print the table."""
    ArgumentParser(prog="python -m benchmarks", description=__doc__).parse_args()
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    print(f"`python -m benchmarks` on {machine}, torch {torch.__version__}, {date.today()}:\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:  # so that nobody's runs are touched
        left_out = shutil.ignore_patterns("output", "config.yaml", "*.py", "__pycache__")
        runs.TRAINING = Path(shutil.copytree(runs.TRAINING, Path(folder) / "training", ignore=left_out))
        runs.ROOT = runs.TRAINING.parent
        for cells in (("an epoch of", "takes"), ("---", "---"), *rows()):
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
