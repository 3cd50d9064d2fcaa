"""From noise to samples: the predictor-corrector sampler of the reverse diffusion (Song et al. 2021).

The time grid is an argument: 0 <= t_0 < ... < t_N <= 1, (N + 1,), or a grid for each sample, (N + 1, batch). So part of
a trajectory, which starts at t_N and ends at t_0, is the same function on part of the grid.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from tqdm import tqdm

from utils.physics.laws import Law
from utils.physics.noise_schedule import NoiseSchedule, time_grid
from utils.physics.torus import wrap
from utils.randomness import keyed_generator
from utils.score.networks import ScoreNetwork
from utils.settings import Settings

CHUNK = 2_000  # samples carried together: larger ones leave the processor's cache and take half as long again
STOPS = 11  # times along the sampler, both ends included, at which the samples are kept


@torch.no_grad()
def predictor_corrector(
    network: ScoreNetwork,
    x: Tensor,
    times: Tensor,
    *,
    corrector_steps: int = 0,
    corrector_epsilon: float = 2.5e-8,
    generator: Generator | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Carry x, (batch, atom, dimension), from times[-1] back to times[0]; no gradient passes.

    Predictor, from t_i to t_i-1: x <- x + g s(x, t_i) + sqrt(g) z with g = sigma_i^2 - sigma_i-1^2.
    Corrector (Langevin) at t_i-1: x <- x + e s + sqrt(2 e) z with e = epsilon sigma^2 / (2 sigma(0)^2).
    `first` is network(x, times[-1]), where it is known already: short trajectories are cheaper by a step.
    """

    def moved(x, output, drift, width):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)  # drawn on the CPU, then moved
        return wrap(x + drift * output + width * noise)

    times = times.to(x)
    sigma = network.schedule.sigma(times)[..., None, None]
    growth = (sigma**2).diff(dim=0)
    # Of all steps at once, and for N = sigma s, since the few operations on a small batch are most of its cost.
    predictions = list(zip(growth / sigma[1:], growth.sqrt(), strict=True))
    if corrector_steps:
        e = 0.5 * corrector_epsilon * sigma**2 / network.schedule.sigma(times.new_zeros(())) ** 2
        corrections = list(zip(e / sigma, (2 * e).sqrt(), strict=True))
    for i in range(len(times) - 1, 0, -1):
        output = network(x, times[i].expand(len(x))) if first is None else first
        x, first = moved(x, output, *predictions[i - 1]), None
        for _ in range(corrector_steps):
            x = moved(x, network(x, times[i - 1].expand(len(x))), *corrections[i - 1])
    return x


class Sampling(Settings):
    """How samples are drawn, equally for all runs that are compared. `start` is the distribution at t = 1."""

    number_of_samples: Annotated[int, Field(ge=1, le=10**7)] = 10_000
    time_steps: Annotated[int, Field(ge=1, le=10**6)] = 100
    corrector_steps: Annotated[int, Field(ge=0, le=10**6)] = 0
    start: Literal["uniform", "exact"] = "uniform"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1234

    times = property(lambda self: time_grid(self.time_steps))
    network_evaluations = property(lambda self: self.time_steps * (1 + self.corrector_steps))  # for each sample

    def draw(self, network: ScoreNetwork, problem: Law, progress: bool = False) -> dict[float, Tensor]:
        """Return samples of the reverse diffusion, (sample, atom, dimension), at STOPS times on the way from 1 to 0.
        `progress` shows a bar, where there is a terminal."""
        generator, times, total = keyed_generator(self.seed, "sampling"), self.times, self.number_of_samples
        stops = sorted({round(i * self.time_steps / (STOPS - 1)) for i in range(STOPS)}, reverse=True)
        chunks: dict[float, list[Tensor]] = {times[i].item(): [] for i in stops}
        with tqdm(total=total, desc="  samples", leave=False, disable=None if progress else True) as bar:
            for begin in range(0, total, CHUNK):
                n = min(CHUNK, total - begin)
                if self.start == "exact":
                    x = problem.sample_noised(network.schedule.sigma(torch.ones(n)), generator)
                else:
                    x = torch.rand(n, *problem.shape, generator=generator)
                chunks[1.0].append(x)
                for upper, lower in pairwise(stops):
                    part = times[lower : upper + 1]
                    x = predictor_corrector(network, x, part, corrector_steps=self.corrector_steps, generator=generator)
                    chunks[times[lower].item()].append(x)
                bar.update(n)
        return {t: torch.cat(parts) for t, parts in chunks.items()}


def sampler_width_ratio(width: float, schedule: NoiseSchedule, times: Tensor) -> float:
    """Return the width of a mode that the predictor reaches with the exact score of a Gaussian of this width, over the
    width sqrt(width^2 + sigma(0)^2) of the exact distribution: a higher ratio is the network's doing, not the grid's.

    From t_N down: v <- v (1 - g_i / (width^2 + sigma_i^2))^2 + g_i, with g_i = sigma_i^2 - sigma_i-1^2.
    """
    variances = schedule.sigma(times.double()).flip(0) ** 2
    v = width**2 + variances[0]
    for now, earlier in pairwise(variances):
        growth = now - earlier
        v = v * (1 - growth / (width**2 + now)) ** 2 + growth
    return math.sqrt(v / (width**2 + schedule.sigma(times.new_zeros((), dtype=torch.float64)) ** 2))
