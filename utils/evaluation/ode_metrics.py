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
Flow = tuple[Tensor, Tensor]  # configurations, (batch, atom, dimension), and a number for each, (batch,)


def probability_flow(network: ScoreNetwork, x: Tensor, span: tuple[float, float], tolerance: float) -> Flow:
    """Carry x along the ODE from time span[0] to span[1]; return where it ends, not wrapped, and the integral of
    sigma sigma_dot div s dt on the way, (batch,). Network and x are in float64.

    The batch is one system. A point's unknowns are neighbours, so the implicit steps of LSODA, where a permutation
    ridge makes the equation stiff, need only a band of the Jacobian. Raises NoValue where it cannot be solved."""
    width, evaluations = x[0].numel() + 1, itertools.count(1)

    def derivative(time, state):
        if next(evaluations) > MAX_EVALUATIONS:
            raise NoValue(f"the probability-flow ODE needs more than {MAX_EVALUATIONS:,} evaluations")
        state = torch.from_numpy(state).view(-1, width)
        t = torch.full((len(x),), float(time), dtype=x.dtype)
        value, divergence = value_and_divergence(network, state[:, :-1].reshape(x.shape), t)
        rate = network.schedule.sigma_dot(t[:1])  # sigma sigma_dot s = sigma_dot N
        result = rate * torch.cat([-value.flatten(1), divergence[:, None]], 1)
        if not torch.isfinite(result).all():
            raise NoValue("the probability-flow ODE becomes infinite or not a number")
        return result.flatten().numpy()

    start = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1).flatten().numpy()
    accuracy = {"rtol": tolerance, "atol": tolerance}
    solution = solve_ivp(derivative, span, start, method="LSODA", lband=width - 1, uband=width - 1, **accuracy)
    if not solution.success:
        raise NoValue(f"the probability-flow ODE could not be solved: {solution.message}")
    end = torch.from_numpy(solution.y[:, -1].copy()).view(-1, width)
    return end[:, :-1].reshape(x.shape), end[:, -1]


def ode_log_density(network: ScoreNetwork, truth: Exact, x: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Return log q_0 at x, (batch,), in nats, for the distribution of the ODE's samples from the exact one at t = 1.
    Raises NoValue where the ODE cannot be solved, as the next one does."""
    start, integral = probability_flow(network, x, (0, 1), tolerance)
    return truth.problem.log_density(start, truth.schedule.sigma(x.new_ones(len(x)))) - integral


def ode_samples(network: ScoreNetwork, truth: Exact, start: Tensor, tolerance: float = TOLERANCE) -> Flow:
    """Return the ODE's samples from start, drawn from the exact distribution at t = 1, and log q_0 there, (batch,)."""
    x, integral = probability_flow(network, start, (1, 0), tolerance)
    return wrap(x), truth.problem.log_density(start, truth.schedule.sigma(start.new_ones(len(start)))) + integral


@shared
def _ode(subject: Subject) -> tuple[Estimate, Estimate, Estimate]:
    """Return KL(p_0 | q_0), the share of strays among the ODE's samples, and the mean of p_0 / q_0 over these. Errors
    include the solver's, from a tolerance ten times as loose at a quarter of the points."""
    problem, truth, network, generator = subject.problem, subject.truth, subject.precise, subject.generator("ODE")
    early, late = subject.schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    x = problem.sample_noised(early.expand(subject.effort.ode_points), generator)
    start = problem.sample_noised(late.expand(subject.effort.ode_samples), generator)

    def solved(x, start, tolerance):
        """Return log p_0 / q_0 at x, the samples that begin at start, and p_0 / q_0 at these."""
        ends, log_q = ode_samples(network, truth, start, tolerance)
        log_p, log_p_at_ends = (problem.log_density(at, early.expand(len(at))) for at in (x, ends))
        return log_p - ode_log_density(network, truth, x, tolerance), ends, torch.exp(log_p_at_ends - log_q)

    log_ratio, ends, ratio = solved(x, start, TOLERANCE)
    loose_log_ratio, _, loose_ratio = solved(x[::4], start[::4], 10 * TOLERANCE)
    kl, norm = _with_solver_error(log_ratio, loose_log_ratio), _with_solver_error(ratio, loose_ratio)
    return kl, share_of_strays(problem, ends, early), norm


def _with_solver_error(draws: Tensor, loosely: Tensor) -> Estimate:
    mean, solver = Estimate.of_mean(draws), (draws[::4] - loosely).abs().mean().item()
    return mean._replace(standard_error=math.hypot(mean.standard_error or 0.0, solver))


@metric("ODE KL", unit="nats", source=SONG, better="lower", headline=True, paired="ratio")
def ode_kl(subject: Subject) -> Estimate:
    """KL(p_0 | q_0), q_0 the distribution of the probability-flow ODE's samples from the exact one at t = 1."""
    return _ode(subject)[0]


@metric("ODE strays", unit="fraction", better="lower")
def ode_stray_fraction(subject: Subject) -> Estimate:
    """Share of stray samples of the probability-flow ODE from the exact distribution at t = 1."""
    return _ode(subject)[1]


@metric("ODE norm")
def ode_norm(subject: Subject) -> Estimate:
    """Mean of p_0 / q_0 over the ODE's samples, q_0 from the divergence along their paths: 1 within its error if that
    is the density they are drawn from."""
    return _ode(subject)[2]
