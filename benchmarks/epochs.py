"""An epoch of training, as a user gets it, beside an epoch of a loop written by hand.

An epoch takes (duration of LONG epochs - duration of SHORT ones) / (LONG - SHORT), so the start does not count. All are
trained in turn, round after round, so what else the machine does meets all alike.
"""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median

import torch

from training.train import train
from utils.physics.torus import displacement, wrap, wrapped_normal_score
from utils.runs import run as runs
from utils.runs.loading import configure

SHORT, LONG, ROUNDS = 10, 40, 10  # epochs; the difference has three pictures of the line, and as many last.ckpt
BY_HAND, PLAIN = "by hand", "no_regularizer, line figure every 10 epochs"


def actions() -> dict[str, Callable[[int], object]]:
    """Return row -> a function that trains so many epochs; the field is drawn every 50 epochs, so never here."""
    rows: dict[str, tuple[str, ...]] = {
        PLAIN: (runs.BASELINE,),
        "no_regularizer, line figure every epoch": (runs.BASELINE, "score_viewer.every_n_epochs=1"),
        "no_regularizer, no figure": (runs.BASELINE, "score_viewer.every_n_epochs=100000"),
    }
    rows |= {name: (name,) for name in runs.find_experiments() if name != runs.BASELINE}

    def by_the_project(experiment: str, *overrides: str) -> Callable[[int], object]:
        def run(epochs: int) -> None:
            settings = configure(experiment, (*overrides, f"max_epochs={epochs}"))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                train(runs.Run(experiment, "benchmark"), settings, from_scratch=True)

        return run

    by_hand: dict[str, Callable[[int], object]] = {BY_HAND: lambda epochs: list(islice(epochs_by_hand(), epochs))}
    return by_hand | {row: by_the_project(*words) for row, words in rows.items()}


def seconds_an_epoch(rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the duration of an epoch of each row, in each round; runs are written under `runs.TRAINING`."""
    durations: dict[str, list[float]] = {row: [] for row in actions()}
    for _ in range(rounds + 1):
        for row, action in actions().items():
            times = [time.perf_counter()]
            for epochs in (SHORT, LONG):
                action(epochs)
                times.append(time.perf_counter())
            durations[row].append((times[2] - 2 * times[1] + times[0]) / (LONG - SHORT))
    return {row: values[1:] for row, values in durations.items()}  # the first round also imports Lightning


def ratio(durations: dict[str, list[float]], row: str, other: str) -> float:
    """Return the median over rounds of one row's duration in units of another's."""
    return median(a / b for a, b in zip(durations[row], durations[other], strict=True))


def epochs_by_hand() -> Iterator[None]:
    """Train no_regularizer as in a short script, an epoch at a time.

    The same network, fresh noise, batches, fused optimizer, scheduler, validation pass and choice of the best weights.
    What surrounds them is left out: pictures, checkpoints on disk, curves, progress, signals, resuming.
    """
    configuration = configure(runs.BASELINE)
    problem, schedule, settings = configuration.toy_problem, configuration.noise_schedule, configuration.data
    network = configuration.build_network()
    rates = configuration.optimizer
    optimizer = torch.optim.AdamW(
        network.parameters(), rates.learning_rate, weight_decay=rates.weight_decay, fused=True
    )
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
            value = (network(x, t) - target).square().mean().item()
        scheduler.step(value)
        if value < best[0]:
            best = value, {name: weight.clone() for name, weight in network.state_dict().items()}
        yield
