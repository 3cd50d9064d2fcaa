"""An epoch of training, as a user gets it from run.sh, beside an epoch of a loop written by hand.

The durations of run.sh's epochs are read off the times in its own event files, so nothing is added to what is measured.
"""

import subprocess
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.lightning_module import MONITOR
from utils.experiments import configure
from utils.torus import displacement, wrap, wrapped_normal_score

WINDOW = 10  # epochs: one line picture, one last.ckpt and, at the beginning of a training, nearly ten best.ckpt
WINDOWS = 6
REPEATS = 2
RUNS = {  # row -> experiment and overrides; the field is drawn every 50 epochs, too rarely for a window
    "no_regularizer, line figure every 10 epochs": ("no_regularizer",),
    "no_regularizer, line figure every epoch": ("no_regularizer", "score_viewer.every_n_epochs=1"),
    "no_regularizer, no figure": ("no_regularizer", "score_viewer.every_n_epochs=1000"),
    "analytical_regression_regularizer": ("analytical_regression_regularizer",),
    "fokker_planck_regularizer": ("fokker_planck_regularizer",),
    "consistency_regularizer": ("consistency_regularizer",),
    "consistency_with_analytical_guide_regularizer": ("consistency_with_analytical_guide_regularizer",),
}


def seconds_an_epoch(clone: Path, repeats: int = REPEATS) -> dict[str, float]:
    """Return the median duration of an epoch of "by hand" and of each of RUNS, trained in turn in a clone."""
    durations: dict[str, list[float]] = {"by hand": []} | {row: [] for row in RUNS}
    for _ in range(repeats):
        durations["by hand"] += windows(by_hand((1 + WINDOWS) * WINDOW + 1))
        for row, (experiment, *overrides) in RUNS.items():
            durations[row] += windows(by_run_sh(clone, experiment, *overrides))
    return {row: median(values) for row, values in durations.items()}


def windows(times: list[float]) -> list[float]:
    """Return the mean duration of an epoch in each window, from the times at which epochs ended; the first is left out
    as a warm-up."""
    ends = times[WINDOW::WINDOW]
    return [(after - before) / WINDOW for before, after in pairwise(ends)]


def by_run_sh(clone: Path, experiment: str, *overrides: str) -> list[float]:
    """Train a new run of an experiment by run.sh; return the times at which its epochs ended."""
    command = ["bash", str(clone / "training" / experiment / "run.sh"), "--run-name", "benchmark", "--from-scratch"]
    settings = [f"max_epochs={(1 + WINDOWS) * WINDOW + 1}", "score_viewer.field_every_n_epochs=1000", *overrides]
    subprocess.run([*command, *settings], check=True, capture_output=True)
    events = EventAccumulator(str(clone / "training" / experiment / "output" / "benchmark"))
    events.Reload()
    return [event.wall_time for event in events.Scalars(MONITOR)]


def by_hand(epochs: int) -> list[float]:
    """Train no_regularizer as in a short script; return the times at which the epochs ended.

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
    best, weights, ends = float("inf"), {}, []
    for _ in range(epochs):
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
        if loss < best:
            best, weights = loss, {name: weight.clone() for name, weight in network.state_dict().items()}
        ends.append(time.time())
    assert weights
    return ends
