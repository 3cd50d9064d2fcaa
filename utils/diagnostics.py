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
IMPLICIT = {"method": "LSODA", "rtol": 1e-4, "atol": 1e-4}  # far below the standard errors
SOLVER_ERROR = 1e-3  # nats: what these tolerances leave of the exact score's zero; part of the stated error
EXPLICIT = {"method": "RK45", "rtol": 1e-2, "atol": 1e-2}
LEAST_LOG_DENSITY = 30.0  # nats below that at t = 1; it adds nothing to a mass
UNIFORM_SHARE = 0.02  # b below
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


def ode_log_density(network: ScoreNetwork, truth: AnalyticalScoreNetwork, x: Tensor, roughly: bool = False) -> Tensor:
    """Return log q_0 at x, (batch,), in nats, for the law of the ODE's samples from the exact law at t = 1.

    The batch is one system. A point's unknowns are neighbours, so the implicit steps of LSODA, where a permutation
    ridge makes the equation stiff, need only a band of the Jacobian. Roughly: for a mass, to 1e-2 by explicit steps,
    and points whose density is below exp(-30) stay where they are, on a ridge. Network, truth and x are in float64.
    """
    schedule, width = network.schedule, x[0].numel() + 1

    def slopes(time, state):
        state = torch.from_numpy(state).view(-1, width)
        t = torch.full((len(x),), float(time), dtype=x.dtype)
        value, divergence = value_and_divergence(network, state[:, :-1].reshape(x.shape), t)
        rate = schedule.sigma_dot(t[:1])  # sigma sigma_dot s = sigma_dot N
        if roughly:
            rate = rate * torch.sigmoid((LEAST_LOG_DENSITY - state[:, -1:]) / 2)
        return (rate * torch.cat([-value.flatten(1), divergence[:, None]], 1)).detach().flatten().numpy()

    start = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1).flatten().numpy()
    way = EXPLICIT if roughly else IMPLICIT | {"lband": width - 1, "uband": width - 1}
    solution = solve_ivp(slopes, (0, 1), start, t_eval=[1], **way)
    if not solution.success:
        raise FloatingPointError(f"the probability-flow ODE could not be solved: {solution.message}")
    end = torch.from_numpy(np.ascontiguousarray(solution.y[:, -1])).view(-1, width)
    sigma = schedule.sigma(x.new_ones(len(x)))
    return truth.problem.log_density(end[:, :-1].reshape(x.shape), sigma) - end[:, -1]


def ode_likelihood(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, points: int, uniform_points: int, generator: torch.Generator
) -> dict[str, Estimate]:
    """Return KL(p_0 | q_0) in nats, q_0 the law of the ODE's samples, and the mass of q_0, which must be 1.

    The mass is the integral of q_0 over the torus by importance sampling from r = (1 - b) p_0 + b, each part of r with
    points of its own: E_p0[(1 - b) q_0 / r] + E_uniform[b q_0 / r]. With b = 1/50 uniform points count where p_0 is
    small alone; at most b times the area of the modes, 2e-4 in the base case, hangs on few of them. All in float64.
    """
    sigma_0 = truth.schedule.sigma(torch.zeros((), dtype=torch.float64))
    near = truth.problem.sample_noised(sigma_0.expand(points), generator)
    far = torch.rand(uniform_points, *truth.problem.shape, generator=generator, dtype=torch.float64)
    log_p, log_p_far = (truth.problem.log_density(x, sigma_0.expand(len(x))) for x in (near, far))
    log_q, log_q_far = ode_log_density(network, truth, near), ode_log_density(network, truth, far, roughly=True)
    parts = [
        Estimate.of_mean(share * torch.exp(q) / ((1 - UNIFORM_SHARE) * torch.exp(p) + UNIFORM_SHARE))
        for share, q, p in ((1 - UNIFORM_SHARE, log_q, log_p), (UNIFORM_SHARE, log_q_far, log_p_far))
    ]
    error = math.hypot(*(part.standard_error for part in parts))
    mass = Estimate(sum(part.value for part in parts), error, points + uniform_points)
    kl = Estimate.of_mean(log_p - log_q)
    return {"ode_kl": kl._replace(standard_error=math.hypot(kl.standard_error, SOLVER_ERROR)), "ode_mass": mass}
