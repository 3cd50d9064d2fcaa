"""What a regularizer costs: `python -m benchmarks.steps` (after `source environment.sh`), on one thread.

Prints the time of a training step of each experiment at its shipped settings, and of each form of the Fokker-Planck
penalty, in units of the plain step (512 points: draw the noise, forward, backward, AdamW). All are interleaved in one
run, and medians taken, since machines are shared and noisy. Below, the two ways to the derivatives.
"""

import statistics
import time
from collections.abc import Callable

import torch

from training.data_module import ToyData
from training.lightning_module import mean_square
from utils.derivatives import by_autodiff, by_forward_propagation
from utils.experiments import Configuration, configure, find_experiments

REPEATS = 200
VARIANTS = {
    "fokker_planck_regularizer, score_fpe": ["regularizer.residual=score_fpe"],
    "fokker_planck_regularizer, advective": ["regularizer.residual=advective"],
}


def training_step(configuration: Configuration) -> Callable[[], None]:
    """Return a function that trains a new network on one mini-batch."""
    network, truth, data = configuration.build_network(), configuration.build_truth(), ToyData(configuration)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x_0, generator = data.training_set[: configuration.data.batch_size], torch.Generator().manual_seed(0)

    def step():
        x, t, target = data.noise(x_0, "benchmark")
        loss = mean_square(network(x, t) - target)
        if configuration.regularizer is not None:
            regularizer = configuration.regularizer
            loss = loss + regularizer.weight * regularizer(network, x, t, truth=truth, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def derivative_pass(way: Callable, number_of_points: int) -> Callable[[], None]:
    """Return a function that takes all derivatives of a network and the gradient of their squares."""
    configuration = configure("no_regularizer")
    network = configuration.build_network()
    x, t = torch.rand(number_of_points, *configuration.toy_problem.shape), torch.rand(number_of_points)
    return lambda: sum(term.square().mean() for term in way(network, x, t)).backward()


def medians(actions: dict[str, Callable[[], None]], repeats: int = REPEATS) -> dict[str, float]:
    """Return the median time of each action in milliseconds, all interleaved."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    actions = {name: training_step(configure(name)) for name in find_experiments()}
    actions |= {k: training_step(configure("fokker_planck_regularizer", v)) for k, v in VARIANTS.items()}
    steps = medians(actions)
    plain = steps["no_regularizer"]
    print(f"{'training step':50} {'ms':>8} {'ratio':>8} {'extra':>8}")
    for name, milliseconds in steps.items():
        print(f"{name:50} {milliseconds:8.2f} {milliseconds / plain:8.2f} {milliseconds / plain - 1:8.2f}")

    print(f"\n{'all derivatives and their gradient':50} {'ms':>8} {'ratio':>8}")
    for points in (64, 512):
        ways = {"forward propagation": by_forward_propagation, "reverse over reverse": by_autodiff}
        times = medians({f"{n}, {points} points": derivative_pass(way, points) for n, way in ways.items()}, 30)
        first = next(iter(times.values()))
        for name, milliseconds in times.items():
            print(f"{name:50} {milliseconds:8.2f} {milliseconds / first:8.2f}")


if __name__ == "__main__":
    main()
