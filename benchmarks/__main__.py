"""`python -m benchmarks`: the ratios that justify design decisions, in about five minutes on one core.

CPU time of actions in turn, on one thread; medians over repeats. `--write` puts the table, with machine and date, into
README.md here.
"""

import argparse
import contextlib
import io
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from training.data_module import ToyData
from training.train import train
from utils.runs import run as runs
from utils.runs.loading import configure
from utils.score.derivatives import by_autodiff, by_forward_mode

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
SHORT, LONG = 10, 30  # epochs; the difference has two pictures of the line, and as many last.ckpt
BY_HAND, PLAIN = "by hand", "no_regularizer, line figure every 10 epochs"


def in_turn(actions: Mapping[Any, Callable[[], object]], rounds: int) -> dict[Any, list[float]]:
    """Return the CPU seconds of each action in each round but the first, which also imports."""
    durations: dict[Any, list[float]] = {name: [] for name in actions}
    for _ in range(rounds + 1):
        for name, action in actions.items():
            began = time.process_time()
            action()
            durations[name].append(time.process_time() - began)
    return {name: seconds[1:] for name, seconds in durations.items()}


def trainings() -> Mapping[str, Callable[[int], None]]:
    """Return row -> a function that trains so many epochs; the field is drawn every 50 epochs, so never here."""
    rows = {
        PLAIN: (runs.BASELINE,),
        "no_regularizer, line figure every epoch": (runs.BASELINE, "score_viewer.every_n_epochs=1"),
        "no_regularizer, no figure": (runs.BASELINE, "score_viewer.every_n_epochs=100000"),
    } | {name: (name,) for name in runs.find_experiments() if name != runs.BASELINE}
    return {BY_HAND: train_by_hand} | {row: partial(train_by_the_project, words) for row, words in rows.items()}


def train_by_the_project(words: tuple[str, ...], epochs: int) -> None:
    """Train an experiment, the first word, under the overrides that follow, as run.sh does."""
    settings = configure(words[0], (*words[1:], f"max_epochs={epochs}"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(runs.Run(words[0], "benchmark"), settings, from_scratch=True)


def train_by_hand(epochs: int) -> None:
    """Train no_regularizer as in a short script: without pictures, checkpoints, curves, progress, signals, resuming."""
    configuration = configure(runs.BASELINE)
    data, network = ToyData(configuration), configuration.build_network()
    rate, decay = configuration.optimizer.learning_rate, configuration.optimizer.weight_decay
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay, fused=True)
    scheduler, validation = configuration.scheduler.build(optimizer, epochs), data.validation_set()
    for epoch in range(epochs):
        noised = (tensor.split(configuration.data.batch_size) for tensor in data.training_epoch(epoch))
        for x, t, target, _ in zip(*noised, strict=True):
            loss = (network(x, t) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            (network(validation.x, validation.t) - validation.target).square().mean().item()
        scheduler.step()


def seconds_an_epoch(rounds: int = 5) -> dict[str, list[float]]:
    """Return the duration of an epoch of each training in each round: the difference between LONG and SHORT ones, so
    that their start does not count. Runs are written under `runs.TRAINING`."""
    found = in_turn({(row, n): partial(go, n) for row, go in trainings().items() for n in (SHORT, LONG)}, rounds)
    pairs = {row: zip(found[row, SHORT], found[row, LONG], strict=True) for row in trainings()}
    return {row: [(long - short) / (LONG - SHORT) for short, long in times] for row, times in pairs.items()}


def seconds_of_derivatives(points: int) -> tuple[float, float]:
    """Return the median seconds of a perceptron's derivatives and their gradient, by autodiff and by forward mode."""
    network, generator = configure(runs.BASELINE).build_network(), torch.Generator().manual_seed(0)
    x, t = torch.rand(points, 2, 1, generator=generator), torch.rand(points, generator=generator)

    def with_gradient(way):
        d = way(network, x, t)
        (d.time.square().mean() + d.laplacian.square().mean()).backward()

    found = in_turn({way: partial(with_gradient, way) for way in (by_autodiff, by_forward_mode)}, 15)
    return median(found[by_autodiff]), median(found[by_forward_mode])


def rows() -> Iterator[tuple[str, str]]:
    """What was measured, and the result."""
    found = seconds_an_epoch()
    yield "epoch by hand", f"{1e3 * median(found[BY_HAND]):.1f} ms"
    for name in [name for name in found if name != BY_HAND]:
        other, unit = (BY_HAND, "by hand") if name.startswith(runs.BASELINE) else (PLAIN, "plain epochs")
        ratio = median(a / b for a, b in zip(found[name], found[other], strict=True))
        yield f"epoch of {name}", f"{ratio:.2f} {unit}"
    for points in (64, 512):
        reverse, forward = seconds_of_derivatives(points)
        text = f"{1e3 * reverse:.1f} ms : {1e3 * forward:.1f} ms = {reverse / forward:.1f}"
        yield f"derivatives at {points} points, reverse mode over reverse mode against forward mode", text


def main() -> None:
    """Print the table row by row, and write it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    lines = [f"`python -m benchmarks` on {machine}, torch {torch.__version__}, {date.today()}:"]
    lines += ["", "| what | result |", "|---|---|"]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:  # so that nobody's runs are touched
        left_out = shutil.ignore_patterns("output", "config.yaml", "*.py", "__pycache__")
        runs.TRAINING = Path(shutil.copytree(runs.TRAINING, Path(folder) / "training", ignore=left_out))
        runs.ROOT = runs.TRAINING.parent
        for row in rows():
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    if write:
        before, _, after = README.read_text(encoding="utf-8").partition(BEGIN)
        table = "".join(f"{line}\n" for line in lines)
        README.write_text(f"{before}{BEGIN}{table}{END}{after.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
