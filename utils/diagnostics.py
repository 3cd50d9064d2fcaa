"""Numbers that ask whether a learned field could be the score of a diffusing density at all, and of which.

- Fokker-Planck residual: eps_hat = sigma^2 eps / sigma_dot, see `regularizers.fokker_planck_residual`.
- Curl: with J the Jacobian of N = sigma s, a gradient has J = J^T, and 1/2 E[tr J J^T - tr J J] / E[tr J J^T] is the
  share of the antisymmetric part |J - J^T|^2 / 4 in |J|^2: 0 for a gradient, 1 for a rotation.
- Circulation: on a torus a field without curl need not be a gradient; its integral once around must vanish too.
- Consistency: E|s(x_t, t) - E[s(x_t', t') | x_t]|^2 from products over two independent trajectories.
- Probability-flow ODE, dx/dt = -sigma sigma_dot s (Song et al. 2021). A density q_t carried by it obeys
  d log q_t / dt = sigma sigma_dot div s, so log q_0(x_0) = log p_1(x_1) - integral of sigma sigma_dot div s dt.

Residuals and the ODE take float64, on a copy of the network.
"""

import copy
import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from utils.derivatives import derivatives, value_and_divergence
from utils.estimates import Curve, Estimate, Points, by_bin, stratified_times
from utils.regularizers import Consistency, residual_from
from utils.score_networks import AnalyticalScoreNetwork, ScoreNetwork

FORMS = ("score_fpe", "advective")
CHUNK = 500  # points whose derivatives are carried together
TOLERANCE = 1e-5  # relative and absolute, of the ODE: far below the standard errors
ROUGH_TOLERANCE = 1e-3  # from uniform points, where the exact score's ridges make it stiff and only the mass is asked
LOOP_POINTS = 64  # around the torus; a random first one leaves the integral unbiased where the field is steep


def in_float64(network: ScoreNetwork) -> ScoreNetwork:
    """Return a copy in float64 whose weights are fixed."""
    return copy.deepcopy(network).double().requires_grad_(False)


@torch.no_grad()
def field_numbers(network: ScoreNetwork, points: Points) -> tuple[dict[str, Estimate], dict[str, Curve]]:
    """Return the residual eps_hat of both forms at stratified points (rms over components, median over points, curve
    of the rms against t) and, with two components or more, the curl. The network and the points are in float64."""
    squares: dict[str, list[Tensor]] = {form: [] for form in FORMS}
    traces = []
    for x, t in zip(points.x.split(CHUNK), points.t.split(CHUNK), strict=True):
        d = derivatives(network, x, t)
        for form in FORMS:
            squares[form].append(residual_from(d, network, t, form).square().mean(-1))
        traces.append(torch.stack([(d.jacobian * other).sum((-2, -1)) for other in (d.jacobian, d.jacobian.mT)]))
    scalars, curves = {}, {}
    for form in FORMS:
        draws = by_bin(torch.cat(squares[form]))
        scalars[f"residual_{form}"] = Estimate.of_root_mean(draws)
        scalars[f"residual_{form}_median"] = Estimate.of_median(draws.sqrt())
        curves[f"residual_{form}"] = Curve.of([Estimate.of_root_mean(row) for row in draws])
    if points.x[0].numel() > 1:
        square, product = (by_bin(a) for a in torch.cat(traces, 1))
        scalars["curl"] = Estimate.of_ratio((square - product) / 2, square)
    return scalars, curves


@torch.no_grad()
def circulations(
    network: ScoreNetwork, shape: tuple[int, int], lines_per_bin: int, generator: torch.Generator
) -> list[Estimate]:
    """Return the mean of sigma(t) times the integral of s_k once around the torus along component k, for every k.

    Lines have uniform base points and stratified times. The component itself runs over equally spaced points.
    """
    estimates = []
    for k in range(shape[0] * shape[1]):
        t = stratified_times(lines_per_bin, generator)
        x = torch.rand(len(t), 1, shape[0] * shape[1], generator=generator).repeat(1, LOOP_POINTS, 1)
        x[:, :, k] = (x[:, :, k] + torch.arange(LOOP_POINTS) / LOOP_POINTS) % 1
        field = network(x.view(-1, *shape), t.repeat_interleave(LOOP_POINTS))
        estimates.append(Estimate.of_mean(by_bin(field.flatten(1)[:, k].view(len(t), LOOP_POINTS).double().mean(1))))
    return estimates


@torch.no_grad()
def consistency_gap(
    network: ScoreNetwork, points: Points, law: str, generator: torch.Generator, time_steps: int = 100, steps: int = 5
) -> tuple[Estimate, Curve]:
    """Return the mean over components of sigma^2 |gap|^2, unbiased and so perhaps negative, and its curve against t.

    Trajectories of so many steps on the grid of so many time steps, started at the points (carried on to the grid).
    """
    rule = Consistency(weight=0.0, points=law, loss="martingale_product", time_steps=time_steps, number_of_steps=steps)
    products = by_bin(rule.gap_products(network, *points, truth=None, generator=generator))
    return Estimate.of_mean(products), Curve.of([Estimate.of_mean(row) for row in products])


def ode_log_density(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, x: Tensor, tolerance: float = TOLERANCE
) -> tuple[Tensor, int]:
    """Return log q_0 at x, (batch,), in nats, for the law of the ODE's samples from the exact law at t = 1, and how
    often the network was evaluated. The batch is one system; network, truth and x are in float64."""
    schedule, n = network.schedule, x.numel()

    def slopes(time, state):
        state = torch.from_numpy(state)
        t = torch.full((len(x),), float(time), dtype=state.dtype)
        value, divergence = value_and_divergence(network, state[:n].view(x.shape), t)
        rate = schedule.sigma_dot(t[:1])  # sigma sigma_dot s = sigma_dot N
        return (rate * torch.cat([-value.flatten(), divergence])).detach().numpy()

    start = torch.cat([x.flatten(), x.new_zeros(len(x))]).numpy()
    solution = solve_ivp(slopes, (0, 1), start, t_eval=[1], rtol=tolerance, atol=tolerance)  # Dormand and Prince
    if not solution.success:
        raise FloatingPointError(f"the probability-flow ODE could not be solved: {solution.message}")
    end = torch.from_numpy(np.ascontiguousarray(solution.y[:, -1]))
    sigma = schedule.sigma(x.new_ones(len(x)))
    return truth.problem.log_density(end[:n].view(x.shape), sigma) - end[n:], solution.nfev


def ode_likelihood(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, points: int, uniform_points: int, generator: torch.Generator
) -> tuple[dict[str, Estimate], int]:
    """Return KL(p_0 | q_0) in nats, q_0 the law of the ODE's samples, its mass, and how often a network was evaluated.

    The mass is the integral of q_0 over the torus by importance sampling from p_0 and uniform points, each standing
    for half of the density r = (p_0 + 1) / 2: 1/2 E_p0[q_0 / r] + 1/2 E_uniform[q_0 / r]. All are in float64.
    """
    shape, sigma_0 = truth.problem.shape, truth.schedule.sigma(torch.zeros((), dtype=torch.float64))
    laws = (
        (truth.problem.sample_noised(sigma_0.expand(points), generator), TOLERANCE),
        (torch.rand(uniform_points, *shape, generator=generator, dtype=torch.float64), ROUGH_TOLERANCE),
    )
    halves, differences, evaluations = [], [], 0
    for x, tolerance in laws:
        log_p = truth.problem.log_density(x, sigma_0.expand(len(x)))
        log_q, number = ode_log_density(network, truth, x, tolerance)
        evaluations += number
        differences.append(log_p - log_q)
        halves.append(Estimate.of_mean(torch.exp(log_q) / (torch.exp(log_p) + 1)))  # 1/2 q_0 / r
    error = math.hypot(*(half.standard_error for half in halves))
    mass = Estimate(sum(half.value for half in halves), error, points + uniform_points)
    return {"ode_kl": Estimate.of_mean(differences[0]), "ode_mass": mass}, evaluations
