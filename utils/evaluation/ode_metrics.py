"""The distribution of the probability-flow ODE's samples: dx/dt = -sigma sigma_dot s (Song et al. 2021).

A density q_t carried by it obeys d log q_t / dt = sigma sigma_dot div s along its paths, so its end is
log q_0(x_0) = log p_1(x_1) - integral of sigma sigma_dot div s dt. All in float64, on a copy of the network.
"""

import itertools
import math

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from utils.evaluation.estimates import Estimate, NoValue
from utils.evaluation.registry import SONG, Subject, metric, shared
from utils.evaluation.sample_metrics import share_of_strays
from utils.physics.torus import wrap
from utils.score.derivatives import value_and_divergence
from utils.score.networks import AnalyticalScoreNetwork as Exact
from utils.score.networks import ScoreNetwork

TOLERANCE = 1e-5  # of the ODE, relative and absolute
MAX_EVALUATIONS = 20_000  # of the ODE's right-hand side; networks that have learned something need a few hundred


def probability_flow(
    network: ScoreNetwork, x: Tensor, span: tuple[float, float], tolerance: float = TOLERANCE, density: bool = True
) -> tuple[Tensor, Tensor]:
    """Carry x along the ODE from time span[0] to span[1]; return where it ends, not wrapped, and the integral of
    sigma sigma_dot div s dt on the way, (batch,), 0 without the density. Network and x are in float64.

    The batch is one system. A point's unknowns are neighbours, so the implicit steps of LSODA, where a permutation
    ridge makes the equation stiff, need only a band of the Jacobian. Raises NoValue where it cannot be solved."""
    size, evaluations = x[0].numel(), itertools.count(1)
    width = size + density

    def derivative(time, state):
        if next(evaluations) > MAX_EVALUATIONS:
            raise NoValue(f"the probability-flow ODE needs more than {MAX_EVALUATIONS:,} evaluations")
        state = torch.from_numpy(state).view(-1, width)
        t = torch.full((len(x),), float(time), dtype=x.dtype)
        points = state[:, :size].reshape(x.shape)
        value, divergence = value_and_divergence(network, points, t) if density else (network(points, t), t[:0])
        rate = network.schedule.sigma_dot(t[:1])  # sigma sigma_dot s = sigma_dot N
        result = rate * torch.cat([-value.flatten(1), divergence.view(len(x), -1)], 1)
        if not torch.isfinite(result).all():
            raise NoValue("the probability-flow ODE becomes infinite or not a number")
        return result.flatten().numpy()

    start = torch.cat([x.flatten(1), x.new_zeros(len(x), int(density))], 1).flatten().numpy()
    accuracy = {"rtol": tolerance, "atol": tolerance}
    solution = solve_ivp(derivative, span, start, method="LSODA", lband=width - 1, uband=width - 1, **accuracy)
    if not solution.success:
        raise NoValue(f"the probability-flow ODE could not be solved: {solution.message}")
    end = torch.from_numpy(solution.y[:, -1].copy()).view(-1, width)
    return end[:, :size].reshape(x.shape), end[:, size:].sum(1)


def ode_log_density(network: ScoreNetwork, truth: Exact, x: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Return log q_0 at x, (batch,), in nats, for the distribution of the ODE's samples from the exact one at t = 1.
    Raises NoValue where the ODE cannot be solved."""
    start, integral = probability_flow(network, x, (0, 1), tolerance)
    return truth.problem.log_density(start, truth.schedule.sigma(x.new_ones(len(x)))) - integral


@shared
def _ode(subject: Subject) -> tuple[Estimate, Estimate]:
    """Return KL(p_0 | q_0) and the share of strays among the ODE's samples. The error of the first includes the
    solver's, from a tolerance ten times as loose at a quarter of the points."""
    problem, truth, network, generator = subject.problem, subject.truth, subject.precise, subject.generator("ODE")
    early, late = subject.schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    x = problem.sample_noised(early.expand(subject.effort.ode_points), generator)
    start = problem.sample_noised(late.expand(subject.effort.ode_samples), generator)
    samples, _ = probability_flow(network, start, (1, 0), density=False)
    strays = share_of_strays(problem, wrap(samples), early)
    log_p = problem.log_density(x, early.expand(len(x)))
    log_ratio = log_p - ode_log_density(network, truth, x)
    loosely = log_p[::4] - ode_log_density(network, truth, x[::4], 10 * TOLERANCE)
    kl, solver = mean_log_ratio(log_ratio, strays), (log_ratio[::4] - loosely).abs().mean().item()
    return kl._replace(standard_error=math.hypot(kl.standard_error or 0.0, solver)), strays


def mean_log_ratio(log_ratio: Tensor, strays: Estimate) -> Estimate:
    """Return the mean of log p_0 / q_0 from draws of p_0, with q_0 / p_0 as a control variate: its mean there is 1 less
    the share of q_0 that lies where p_0 has no draws. Where both are alike, this takes off nearly all of the noise."""
    ratio = torch.exp(-log_ratio)
    covariance = torch.cov(torch.stack([log_ratio, ratio]))
    slope = -covariance[0, 1] / covariance[1, 1].clamp(min=torch.finfo(ratio.dtype).tiny)
    mean = Estimate.of_mean(log_ratio + slope * (ratio - 1 + strays.value))
    errors = mean.standard_error or 0.0, slope.item() * (strays.standard_error or 0.0)
    return mean._replace(standard_error=math.hypot(*errors))


@metric("ODE KL", unit="nats", source=SONG, better="lower", headline=True, paired="ratio")
def ode_kl(subject: Subject) -> Estimate:
    """KL(p_0 | q_0), q_0 the distribution of the probability-flow ODE's samples from the exact one at t = 1."""
    return _ode(subject)[0]


@metric("ODE strays", unit="fraction", better="lower")
def ode_stray_fraction(subject: Subject) -> Estimate:
    """Share of stray samples of the probability-flow ODE from the exact distribution at t = 1."""
    return _ode(subject)[1]
