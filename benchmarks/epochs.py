"""An epoch of training, as a user gets it from run.sh, beside an epoch of a loop written by hand.

All trainings are there at once, and one after the other goes on for some epochs while the others are stopped
(SIGSTOP): so what else the machine does meets all alike. That an epoch has ended is read off the rows of a run's own
curves.csv, so nothing is added to what is measured.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from statistics import median

import torch

from utils.physics.torus import displacement, wrap, wrapped_normal_score
from utils.runs.loading import configure
from utils.runs.run import BASELINE, find_experiments

WINDOW = 10  # epochs: one line picture, one last.ckpt and, at the beginning of a training, nearly ten best.ckpt
ROUNDS = 25
BY_HAND, PLAIN = "by hand", "no_regularizer, line figure every 10 epochs"


def runs() -> dict[str, tuple[str, ...]]:
    """Return row -> experiment and overrides; the field is drawn every 50 epochs, too rarely for a window."""
    plain = {
        PLAIN: (BASELINE,),
        "no_regularizer, line figure every epoch": (BASELINE, "score_viewer.every_n_epochs=1"),
        "no_regularizer, no figure": (BASELINE, "score_viewer.every_n_epochs=100000"),
    }
    return plain | {name: (name,) for name in find_experiments() if name != BASELINE}


def seconds_an_epoch(clone: Path, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the duration of an epoch of "by hand" and of each of runs(), trained in a clone, in each round."""
    with contextlib.ExitStack() as stack:
        trainings = {BY_HAND: by_hand()}
        for number, (row, (experiment, *overrides)) in enumerate(runs().items()):
            training = by_run_sh(clone, f"benchmark{number}", experiment, *overrides)
            trainings[row] = stack.enter_context(contextlib.closing(training))
            next(training)  # a warm-up, before the others are started
        durations: dict[str, list[float]] = {row: [] for row in trainings}
        for _ in range(rounds):
            for row, training in trainings.items():
                durations[row].append(next(training))
    return durations


def ratio(durations: dict[str, list[float]], row: str, other: str) -> float:
    """Return the median over rounds of one row's duration in units of another's."""
    return median(a / b for a, b in zip(durations[row], durations[other], strict=True))


def by_run_sh(clone: Path, name: str, experiment: str, *overrides: str) -> Generator[float, None, None]:
    """Train a run by run.sh; yield the seconds of an epoch in each window. It is stopped while nobody asks for another.

    Raises RuntimeError, with what it said, where the training ends.
    """
    output = clone / "training" / experiment / "output"
    curves, log = output / name / "curves.csv", output / f"{name}.log"
    output.mkdir(exist_ok=True)
    command = ["bash", str(output.parent / "run.sh"), "--run-name", name, "max_epochs=100000", *overrides]
    command.append("score_viewer.field_every_n_epochs=100000")
    with log.open("wb") as file:  # in a process group of its own, so that it can be stopped as a whole
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def end_of(epoch):
        while not curves.exists() or curves.read_bytes().count(b"\n") <= epoch:  # its first line is a heading
            if process.poll() is not None:
                raise RuntimeError(log.read_text(errors="replace"))
            time.sleep(0.001)
        return time.perf_counter()

    try:
        for epoch in itertools.count(1, WINDOW + 1):  # the first of a window may have been interrupted
            began = end_of(epoch)
            seconds = (end_of(epoch + WINDOW) - began) / WINDOW
            os.killpg(process.pid, signal.SIGSTOP)
            yield seconds
            os.killpg(process.pid, signal.SIGCONT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def by_hand() -> Generator[float, None, None]:
    """Train no_regularizer by hand; yield the seconds of an epoch in each window."""
    epochs = epochs_by_hand()
    while True:
        times = [next(epochs) for _ in range(WINDOW + 1)]
        yield (times[-1] - times[0]) / WINDOW


def epochs_by_hand() -> Iterator[float]:
    """Train no_regularizer as in a short script; yield the time when each epoch has ended.

    The same network, fresh noise, batches, fused optimizer, scheduler, validation pass and choice of the best weights.
    What surrounds them is left out: pictures, checkpoints on disk, curves, progress, signals, resuming.
    """
    configuration = configure("no_regularizer")
    problem, schedule, settings = configuration.toy_problem, configuration.noise_schedule, configuration.data
    network = configuration.build_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=5e-8, fused=True)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.9, patience=10)
    generator = torch.Generator().manual_seed(0)

    def noised(x_0):
        t = torch.rand(len(x_0), generator=generator)
        sigma = schedule.sigma(t)[:, None, None]
        x = wrap(x_0 + sigma * torch.randn(x_0.shape, generator=generator))
        return x, t, sigma * wrapped_normal_score(displacement(x, x_0), sigma)

    data = problem.sample(settings.training_set_size, generator)
    validation = noised(problem.sample(settings.validation_set_size, generator))
    best: tuple[float, dict] = float("inf"), {}
    while True:
        epoch = noised(data[torch.randperm(len(data), generator=generator)])
        for x, t, target in zip(*(tensor.split(settings.batch_size) for tensor in epoch), strict=True):
            loss = (network(x, t) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            x, t, target = validation
            loss = (network(x, t) - target).square().mean().item()
        scheduler.step(loss)
        if loss < best[0]:
            best = loss, {name: weight.clone() for name, weight in network.state_dict().items()}
        yield time.perf_counter()
