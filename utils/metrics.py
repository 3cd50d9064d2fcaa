"""Numbers that say how close a learned score, or a set of samples, is to the exact one.

Notation: D = s_theta - s is the error of the score, sigma D that of the normalised score. Every metric is an
`Estimate`: a mean over independent draws with its standard error.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from utils.noise_schedule import NoiseSchedule
from utils.score_networks import AnalyticalScoreNetwork, ScoreNetwork
from utils.toy_problem import ToyProblem

STRAY_DISTANCE = 5.0  # in units of the stationary width; under the exact law 4e-6 of the samples lie beyond


DEFINITIONS = {
    "path_kl": "integral over t of sigma sigma_dot E|s_theta - s|^2 under the noised law, summed over components",
    "stray_fraction": "share of samples farther than 5 sigma_0 from their nearest mode (periodic distance)",
    "width_ratio": "width of the modes' cores, strays left out, in units of sigma_0 = sqrt(sigma_d^2 + sigma_min^2)",
}
UNITS = {"path_kl": "nats", "stray_fraction": "", "width_ratio": "sigma_0"}


class Estimate(NamedTuple):
    """A Monte Carlo mean, its standard error and the number of draws."""

    value: float
    standard_error: float
    number_of_points: int

    @classmethod
    def of_mean(cls, draws: Tensor) -> "Estimate":
        """Return the mean of independent draws, (draw,)."""
        draws = draws.double()
        return cls(draws.mean().item(), (draws.std() / math.sqrt(len(draws))).item(), len(draws))


def path_kl_density(error: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Return sigma sigma_dot |D|^2 in nats, (batch,), for the error sigma D of the normalised score at times t.

    Its mean over t uniform on [0,1] and x from the noised law is the path KL, which bounds the divergence of the
    samples' law from the data law up to that of the start (Song et al. 2021, maximum-likelihood weighting).
    """
    return (schedule.sigma_dot(t) / schedule.sigma(t)) * error.square().sum((-2, -1))


@torch.no_grad()
def path_kl(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, number_of_points: int, generator: torch.Generator
) -> Estimate:
    """Return the path KL of a network in nats, with t uniform on [0,1] and x from the noised law."""
    t = torch.rand(number_of_points, generator=generator)
    x = truth.problem.sample_noised(truth.schedule.sigma(t), generator)
    return Estimate.of_mean(path_kl_density(network(x, t) - truth(x, t), t, truth.schedule))


@torch.no_grad()
def score_error_against_time(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, times: Tensor, points: int, generator: torch.Generator
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the rms of sigma D over components under the noised law with its standard error, and the rms of sigma s,
    each (time,)."""
    t = times.repeat_interleave(points)
    x = truth.problem.sample_noised(truth.schedule.sigma(t), generator)
    exact = truth(x, t)
    squares = (network(x, t) - exact).square().mean((-2, -1)).view(len(times), points).double()
    rms = squares.mean(1).sqrt()
    standard_error = squares.std(1) / math.sqrt(points) / (2 * rms).clamp(min=torch.finfo(rms.dtype).tiny)
    return (rms, standard_error), exact.square().mean((-2, -1)).view(len(times), points).mean(1).sqrt()


def stationary_width(problem: ToyProblem, schedule: NoiseSchedule) -> float:
    """Return sigma_0 = sqrt(sigma_d^2 + sigma(0)^2), the width of a mode of the law that sampling aims at."""
    return problem.effective_sigma(schedule.sigma(torch.zeros((), dtype=torch.float64))).item()


def distance_to_nearest_mode(x: Tensor, problem: ToyProblem) -> Tensor:
    """Return the periodic distance of each configuration to its nearest mode, (batch,), in relative coordinates."""
    return problem.nearest_mode(x)[0].square().sum((-2, -1)).sqrt()


def stray_fraction(distance: Tensor, sigma_0: float) -> Estimate:
    """Return the share of samples farther than 5 sigma_0 from their nearest mode, with its binomial standard error."""
    share, n = (distance > STRAY_DISTANCE * sigma_0).double().mean().item(), len(distance)
    return Estimate(share, math.sqrt(share * (1 - share) / n), n)


def width_ratio(x: Tensor, problem: ToyProblem, sigma_0: float) -> Estimate:
    """Return the width of the modes' cores (strays left out) in units of sigma_0; 1 is exact, NaN: all are stray."""
    u, _ = problem.nearest_mode(x)
    core = u[u.square().sum((-2, -1)).sqrt() <= STRAY_DISTANCE * sigma_0].double()
    ratio = core.square().mean().sqrt().item() / sigma_0
    return Estimate(ratio, ratio / math.sqrt(2 * max(core.numel(), 1)), len(core))


def sampler_width_ratio(problem: ToyProblem, schedule: NoiseSchedule, times: Tensor) -> float:
    """Return the width of a mode, in units of sigma_0, that the predictor reaches with the exact score of one Gaussian.

    From t_N down: v <- v (1 - g_i / sigma_eff(t_i)^2)^2 + g_i, with g_i = sigma_i^2 - sigma_i-1^2. What the grid itself
    costs: a width ratio above it is the network's doing.
    """
    variances = schedule.sigma(times.double()) ** 2
    v = problem.sigma_d**2 + variances[-1]
    for now, earlier in zip(variances.flip(0), variances.flip(0)[1:], strict=False):
        growth = now - earlier
        v = v * (1 - growth / (problem.sigma_d**2 + now)) ** 2 + growth
    return math.sqrt(v) / stationary_width(problem, schedule)
