"""Numbers that say how close a learned score, or a set of samples, is to the exact one.

Notation: D = s_theta - s is the error of the score, sigma D that of the normalised score, sigma_0 =
sqrt(sigma_d^2 + sigma(0)^2) the width of a mode of the law that sampling aims at. Every number is an `Estimate`, with
its standard error; `catalogue.py` says what each is called, its unit, definition and source. The numbers that need
derivatives, trajectories or an ordinary differential equation are in `diagnostics.py`.
"""

import math

import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from torch import Tensor

from utils.evaluation.estimates import CONFIDENCE, Curve, Estimate, Points, by_bin, stratified_times
from utils.physics.laws import ToyProblem
from utils.physics.noise_schedule import NoiseSchedule
from utils.physics.torus import displacement, wrap, wrapped_normal_score
from utils.score.networks import AnalyticalScoreNetwork, EmpiricalScoreNetwork, ScoreNetwork

STRAY_DISTANCE = 5.0  # in units of the stationary width; under the exact law 4e-6 of the samples lie beyond
RIDGE = 2.0  # nats: on a ridge the best assignment weighs less than e^2 = 7.4 times the second best
FEWEST = 30  # points; of fewer no mean is given
BLOCK = 500  # samples in an optimal transport, whose cost grows with the cube


# The score


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
def excess_loss(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, points_per_bin: int, generator: torch.Generator
) -> dict[str, Estimate]:
    """Return what the score-matching loss on fresh noised points has above its floor, and the path KL that follows.

    Per point |N_theta - T|^2 - |N - T|^2 with the target T; since E[T | x] = N, its mean is E|sigma D|^2. Weighted
    like the path KL (on the exponential schedule: times L x components) it must give the same number of nats.
    """
    problem, schedule = truth.problem, truth.schedule
    t = stratified_times(points_per_bin, generator)
    x_0 = problem.sample_noised(torch.zeros_like(t), generator)  # permuted data, where the law is symmetric
    sigma = schedule.sigma(t)[:, None, None]
    x = wrap(x_0 + sigma * torch.randn(x_0.shape, generator=generator))
    target = sigma * wrapped_normal_score(displacement(x, x_0), sigma)
    output, exact = network(x, t), truth(x, t)
    excess = ((output - target).square() - (exact - target).square()).mean((-2, -1))
    in_nats = (schedule.sigma_dot(t) / schedule.sigma(t)) * excess * x[0].numel()
    return {
        "excess_loss": Estimate.of_mean(by_bin(excess)),
        "path_kl_from_loss": Estimate.of_mean(by_bin(in_nats)),
        "path_kl_disagreement": Estimate.of_mean(by_bin(in_nats - path_kl_density(output - exact, t, schedule))),
    }


@torch.no_grad()
def score_error(
    network: ScoreNetwork, truth: AnalyticalScoreNetwork, points: Points
) -> tuple[dict[str, Estimate], dict[str, Curve]]:
    """Return the size of sigma D at stratified points, as scalars and as curves against t.

    rms over components, its ratio to the rms of sigma s ("relative"), the median over points ("median"), and the rms
    on and off the permutation ridges, where the two best assignments differ by less or more than RIDGE nats.
    """
    exact = truth(points.x, points.t)
    squares, sizes = (a.double().square().mean((-2, -1)) for a in (network(*points) - exact, exact))
    on_ridge = truth.problem.ridge_distance(points.x, truth.schedule.sigma(points.t)) < RIDGE
    scalars = {
        "score_error": Estimate.of_root_mean(by_bin(squares)),
        "score_error_relative": _root(Estimate.of_ratio(by_bin(squares), by_bin(sizes))),
        "score_error_median": Estimate.of_median(squares.sqrt()),
    }
    curves = {
        "score_error": Curve.of([Estimate.of_root_mean(row) for row in by_bin(squares)]),
        "size": Curve.of([Estimate.of_root_mean(row) for row in by_bin(sizes)]),
        "score_error_relative": Curve.of(
            [_root(Estimate.of_ratio(*rows)) for rows in zip(*map(by_bin, (squares, sizes)), strict=True)]
        ),
        "score_error_median": Curve.of([Estimate.of_median(row.sqrt()) for row in by_bin(squares)]),
    }
    if len(truth.problem.assignments) > 1:
        for name, chosen in (("score_error_on_ridges", on_ridge), ("score_error_off_ridges", ~on_ridge)):
            if chosen.sum() >= FEWEST:
                scalars[name] = Estimate.of_root_mean(squares[chosen])
            rows = zip(by_bin(squares), by_bin(chosen), strict=True)
            few = [Estimate.of_root_mean(row[at]) if at.sum() >= FEWEST else None for row, at in rows]
            curves[name] = Curve.of(few)
    return scalars, curves


def _root(square: Estimate) -> Estimate:
    root = math.sqrt(square.value)
    return Estimate(root, square.standard_error / (2 * root) if root else 0.0, square.number_of_points)


@torch.no_grad()
def memorisation(
    network: ScoreNetwork,
    truth: AnalyticalScoreNetwork,
    training_set: Tensor,
    times: Tensor,
    points: int,
    generator: torch.Generator,
) -> Estimate:
    """Return E|N_theta - N_e|^2 / (E|N_theta - N_e|^2 + E|N_theta - N|^2), N_e the score of the noised training set.

    0 is a network that has learned its data by heart, 1 the exact score. Judged at noised training points, equally
    many at each of the times: these should be early ones, since later N_e and N hardly differ. Raises ValueError for
    times with noise as wide as `score_networks.NARROW`.
    """
    schedule, centres = truth.schedule, truth.problem.permuted(training_set)
    t = times.repeat_interleave(points)
    x_0 = centres[torch.randint(len(centres), t.shape, generator=generator)]
    x = wrap(x_0 + schedule.sigma(t)[:, None, None] * torch.randn(x_0.shape, generator=generator))
    output, by_heart = network(x, t), EmpiricalScoreNetwork(centres, schedule)(x, t)
    to_data, to_truth = (
        by_bin((output - other).square().mean((-2, -1)), len(times)) for other in (by_heart, truth(x, t))
    )
    return Estimate.of_ratio(to_data, to_data + to_truth)


# Samples


def stationary_width(problem: ToyProblem, schedule: NoiseSchedule) -> float:
    """Return sigma_0 = sqrt(sigma_d^2 + sigma(0)^2), the width of a mode of the law that sampling aims at."""
    return problem.effective_sigma(schedule.sigma(torch.zeros((), dtype=torch.float64))).item()


def distance_to_nearest_mode(x: Tensor, problem: ToyProblem) -> Tensor:
    """Return the periodic distance of each configuration to its nearest mode, (batch,), in relative coordinates."""
    return problem.nearest_mode(x)[0].square().sum((-2, -1)).sqrt()


def stray_fraction(distance: Tensor, sigma_0: float) -> Estimate:
    """Return the share of samples farther than 5 sigma_0 from their nearest mode, with Wilson's interval."""
    return Estimate.of_share(int((distance > STRAY_DISTANCE * sigma_0).sum()), len(distance))


def radial_law(distance: Tensor, sigma_0: float, components: int) -> tuple[Estimate, Estimate]:
    """Return the Kolmogorov-Smirnov distance of r / sigma_0 from the chi law of so many components, and its p-value.

    In two dimensions this is the distance of 1 - exp(-r^2 / 2 sigma_0^2) from uniform. The interval is that of
    Dvoretzky, Kiefer, Wolfowitz and Massart, for the empirical law may be off everywhere at once.
    """
    n = len(distance)
    test = stats.kstest(distance.double().numpy() / sigma_0, stats.chi(components).cdf)
    below = float((distance.double() / sigma_0 <= test.statistic_location).double().mean())
    band = math.sqrt(math.log(2 / (1 - CONFIDENCE)) / (2 * n))
    interval = (max(float(test.statistic) - band, 0.0), float(test.statistic) + band)
    ks = Estimate(float(test.statistic), math.sqrt(below * (1 - below) / n), n, interval)
    return ks, Estimate(float(test.pvalue), None, n)


def mode_occupancy(x: Tensor, problem: ToyProblem, sigma_0: float) -> tuple[Estimate, Estimate]:
    """Return the share of the cores' samples in the first mode times the number of modes (binomial, Wilson), and the
    p-value of equal shares in all modes (chi-squared)."""
    u, index = problem.nearest_mode(x)
    index = index[_is_core(u, sigma_0)]
    counts = torch.bincount(index, minlength=len(problem.assignments))
    share = Estimate.of_share(int(counts[0]), int(counts.sum())).scaled(len(counts))
    return share, Estimate(float(stats.chisquare(counts.numpy()).pvalue), None, int(counts.sum()))


def wasserstein_2(x: Tensor, y: Tensor, problem: ToyProblem) -> Estimate:
    """Return the 2-Wasserstein distance of two sets of samples on the torus, by exact transport of blocks of 500.

    In relative coordinates; the blocks give the standard error, which a single one has not. What is left after the last
    whole block is not used, for a smaller block has a larger distance. Where the law is permutation symmetric, a pair's
    cost is that of its best relabelling: for symmetric laws this is the same distance, and the chance imbalance of the
    modes in a finite sample, which is no error of the score, does not drown it. Two samples of the same law do not
    coincide either, so compare with the value for two exact ones.
    """
    size = min(len(x), BLOCK)
    whole = len(x) - len(x) % size
    blocks = zip(x[:whole].double().split(size), y[:whole].double().split(size), strict=True)
    squares = torch.tensor([_transport(*pair, problem) for pair in blocks])
    found = Estimate.of_root_mean(squares)
    return found._replace(number_of_points=whole, standard_error=found.standard_error if len(squares) > 1 else None)


def _transport(x, y, problem):
    pairs = displacement(x[:, None, :, None], y[None, :, None]).square().sum(-1)  # (i, j, atom of x, atom of y)
    atoms = range(x.shape[1])
    costs = [sum(pairs[:, :, a, b] for a, b in zip(atoms, order, strict=True)) for order in problem.assignments]
    cost = torch.stack(costs).amin(0).numpy()
    return cost[linear_sum_assignment(cost)].mean()


def law_drift(x: Tensor, t: Tensor, truth: AnalyticalScoreNetwork, generator: torch.Generator) -> Estimate:
    """Return E log p_t over samples less E log p_t over as many exact draws, in nats; t is one time.

    Below 0 the samples lie where the exact law has little density: strays count for hundreds of nats each.
    """
    sigma = truth.schedule.sigma(t).expand(len(x))
    exact = truth.problem.sample_noised(sigma, generator)
    ours, theirs = (truth.problem.log_density(points.double(), sigma.double()) for points in (x, exact))
    return Estimate.of_mean(ours - theirs)  # independent draws, paired by their number


def nearest_neighbour_ratio(
    x: Tensor, training_set: Tensor, truth: AnalyticalScoreNetwork, generator: torch.Generator
) -> Estimate:
    """Return the mean distance of samples (strays left out) to the training set over that of as many exact draws.

    Clearly below 1: samples sit on the training data. The sampler's own width error raises it above 1.
    """
    problem, sigma = truth.problem, truth.schedule.sigma(torch.zeros(len(x)))
    sigma_0 = stationary_width(problem, truth.schedule)
    tree = cKDTree(problem.permuted(training_set).flatten(1).double().numpy() % 1, boxsize=1.0)
    distances = []
    for points in (x, problem.sample_noised(sigma, generator)):
        core = points[_is_core(problem.nearest_mode(points)[0], sigma_0)]
        distances.append(torch.from_numpy(tree.query(core.flatten(1).double().numpy() % 1)[0]))
    ours, theirs = (Estimate.of_mean(d) for d in distances)
    ratio = ours.value / theirs.value
    error = math.hypot(ours.standard_error, ratio * theirs.standard_error) / theirs.value
    return Estimate(ratio, error, ours.number_of_points)


def width_ratio(x: Tensor, problem: ToyProblem, sigma_0: float) -> Estimate:
    """Return the width of the modes' cores (strays left out) in units of sigma_0; 1 is exact, NaN: all are stray."""
    u, _ = problem.nearest_mode(x)
    core = u[_is_core(u, sigma_0)].double()
    ratio = core.square().mean().sqrt().item() / sigma_0
    return Estimate(ratio, ratio / math.sqrt(2 * max(core.numel(), 1)), len(core))


def _is_core(u, sigma_0):
    return u.square().sum((-2, -1)).sqrt() <= STRAY_DISTANCE * sigma_0


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
