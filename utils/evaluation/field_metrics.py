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
import itertools
import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from utils.evaluation.estimates import Curve, Estimate, Points, by_bin, stratified_times
from utils.evaluation.sample_metrics import distance_to_nearest_mode, stray_fraction
from utils.physics.torus import wrap
from utils.score.derivatives import derivatives, value_and_divergence
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork
from utils.score.regularizers import Consistency, residual_from

FORMS = ("score_fpe", "advective")
CHUNK = 500  # points whose derivatives are carried together
TOLERANCE = 1e-5  # of the ODE, relative and absolute
MOST_EVALUATIONS = 20_000  # of the ODE's right-hand side; networks that have learned something need a few hundred
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
    network: ScoreNetwork,
    truth: AnalyticalScoreNetwork,
    points: Points,
    law: str,
    generator: torch.Generator,
    time_steps: int = 100,
    steps: int = 5,
) -> tuple[dict[str, Estimate], dict[str, Curve]]:
    """Return the mean over components of sigma^2 |gap|^2, unbiased and so perhaps negative, and the same of the gap
    less that of the exact score ("excess"), as scalars and as curves against t.

    Trajectories of so many steps on the grid of so many time steps, started at the points (carried on to the grid).
    The exact score's take the same random numbers: the noise of a step, which hides a small gap, cancels in the
    excess, and so does what the sampler's finite steps make of a consistent score.
    """
    rule = Consistency(weight=0.0, points=law, loss="martingale_product", time_steps=time_steps, number_of_steps=steps)
    again = generator.clone_state()
    gaps = rule.gaps(network, *points, truth=truth, generator=generator)
    exact = rule.gaps(truth, *points, truth=truth, generator=again)
    excess = (gap - other for gap, other in zip(gaps, exact, strict=True))
    products = {
        name: by_bin((first * second).mean((-2, -1)))
        for name, (first, second) in {"consistency_gap": gaps, "consistency_excess": excess}.items()
    }
    return (
        {name: Estimate.of_mean(draws) for name, draws in products.items()},
        {name: Curve.of([Estimate.of_mean(row) for row in draws]) for name, draws in products.items()},
    )


def probability_flow(
    network: ScoreNetwork, x: Tensor, span: tuple[float, float], tolerance: float = TOLERANCE
) -> tuple[Tensor, Tensor]:
    """Carry x along the ODE from time span[0] to span[1]; return where it ends, not wrapped, and the integral of
    sigma sigma_dot div s dt on the way, (batch,). Network and x are in float64.

    The batch is one system. A point's unknowns are neighbours, so the implicit steps of LSODA, where a permutation
    ridge makes the equation stiff, need only a band of the Jacobian. Raises FloatingPointError where it finds no way.
    """
    width, evaluations = x[0].numel() + 1, itertools.count(1)

    def slopes(time, state):
        if next(evaluations) > MOST_EVALUATIONS:
            raise FloatingPointError(f"the probability-flow ODE needs more than {MOST_EVALUATIONS:,} evaluations")
        state = torch.from_numpy(state).view(-1, width)
        t = torch.full((len(x),), float(time), dtype=x.dtype)
        value, divergence = value_and_divergence(network, state[:, :-1].reshape(x.shape), t)
        rate = network.schedule.sigma_dot(t[:1])  # sigma sigma_dot s = sigma_dot N
        return (rate * torch.cat([-value.flatten(1), divergence[:, None]], 1)).flatten().numpy()

    start = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1).flatten().numpy()
    accuracy = {"rtol": tolerance, "atol": tolerance}
    solution = solve_ivp(slopes, span, start, method="LSODA", lband=width - 1, uband=width - 1, **accuracy)
    if not solution.success:
        raise FloatingPointError(f"the probability-flow ODE could not be solved: {solution.message}")
    end = torch.from_numpy(np.ascontiguousarray(solution.y[:, -1])).view(-1, width)
    return end[:, :-1].reshape(x.shape), end[:, -1]


def ode_log_density(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, x: Tensor, tolerance: float = TOLERANCE
) -> Tensor:
    """Return log q_0 at x, (batch,), in nats, for the law of the ODE's samples from the exact law at t = 1.

    Raises FloatingPointError where the ODE cannot be solved, as the two below do.
    """
    start, integral = probability_flow(network, x, (0, 1), tolerance)
    return truth.problem.log_density(start, truth.schedule.sigma(x.new_ones(len(x)))) - integral


def ode_samples(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, start: Tensor, tolerance: float = TOLERANCE
) -> tuple[Tensor, Tensor]:
    """Return the ODE's samples that come from start, of the exact law at t = 1, and log q_0 there, (batch,)."""
    x, integral = probability_flow(network, start, (1, 0), tolerance)
    return wrap(x), truth.problem.log_density(start, truth.schedule.sigma(start.new_ones(len(start)))) + integral


def ode_likelihood(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, points: int, samples: int, generator: torch.Generator
) -> dict[str, Estimate]:
    """Return KL(p_0 | q_0) in nats, q_0 the law of the ODE's samples, the share of strays among these, and q_0's norm.

    The norm is the mean of p_0 / q_0 over the ODE's samples, the integral of p_0: 1 where q_0, as it was computed
    along their paths, is the density that they are drawn from. The errors include the solver's, taken from a tolerance
    ten times as loose at a quarter of the points. All in float64.
    """
    problem, sigma = truth.problem, truth.schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    width = problem.effective_sigma(sigma[0]).item()
    x, start = (problem.sample_noised(s.expand(n), generator) for s, n in zip(sigma, (points, samples), strict=True))

    def log_ratio(x, tolerance=TOLERANCE):
        return problem.log_density(x, sigma[:1].expand(len(x))) - ode_log_density(network, truth, x, tolerance)

    def ratio_and_samples(start, tolerance=TOLERANCE):
        x, log_q = ode_samples(network, truth, start, tolerance)
        return torch.exp(problem.log_density(x, sigma[:1].expand(len(x))) - log_q), x

    ratio, ends = ratio_and_samples(start)
    return {
        "ode_kl": _with_solver_error(log_ratio(x), log_ratio(x[::4], 10 * TOLERANCE)),
        "ode_stray_fraction": stray_fraction(distance_to_nearest_mode(ends, problem), width),
        "ode_norm": _with_solver_error(ratio, ratio_and_samples(start[::4], 10 * TOLERANCE)[0]),
    }


def _with_solver_error(draws, loosely):
    mean, solver = Estimate.of_mean(draws), (draws[::4] - loosely).abs().mean().item()
    return mean._replace(standard_error=math.hypot(mean.standard_error, solver))
