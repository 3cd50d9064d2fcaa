"""How close samples are to the exact distribution p_0 at the end of the sampler.

All are written in the standardised displacement of a sample: that from its nearest mode, over the mode's width. Its
length r has a chi distribution; a sample beyond the law's `stray_radius` is a stray, the others are the cores.
"""

import functools
import math

import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from torch import Tensor

from utils.evaluation.estimates import CONFIDENCE, Curve, Estimate, NoValue
from utils.evaluation.registry import MIN_POINTS, Subject, metric, shared
from utils.physics.laws import Law
from utils.physics.torus import displacement
from utils.score.samplers import Sampling

BLOCK = 500  # samples in an optimal transport, whose cost grows with the cube


def radii(problem: Law, x: Tensor, sigma: Tensor) -> Tensor:
    """Return the distance of samples x from their nearest mode at one noise width sigma, in the mode's widths."""
    u, _, width = problem.nearest_mode(x, sigma.double().expand(len(x)))
    return u.square().sum((-2, -1)).sqrt().double() / width


def share_of_strays(problem: Law, x: Tensor, sigma: Tensor) -> Estimate:
    """Return the share of samples x beyond the stray radius at one noise width sigma, with Wilson's interval."""
    return Estimate.of_share(int((radii(problem, x, sigma) > problem.stray_radius).sum()), len(x))


@shared
def _core(subject: Subject) -> Tensor:
    """Return which samples belong to a core, (sample,)."""
    core = radii(subject.problem, subject.samples, subject.end_sigma) <= subject.problem.stray_radius
    if core.sum() < MIN_POINTS:
        raise NoValue("hardly a sample is near a mode")
    return core


def _exact_draws(subject: Subject, purpose: str, n: int) -> Tensor:
    return subject.problem.sample_noised(subject.schedule.sigma(torch.zeros(n)), subject.generator(purpose))


@metric("strays", unit="fraction", better="lower", headline=True, paired="difference")
def stray_fraction(subject: Subject) -> tuple[Estimate, Curve]:
    """Share of samples so far from their nearest mode that only 4 of a million exact ones would be (in two dimensions
    more than 5 widths of the mode; periodic distance)."""
    sigma = {t: subject.schedule.sigma(torch.tensor(t, dtype=torch.float64)) for t in subject.states}
    shares = {t: share_of_strays(subject.problem, x, sigma[t]) for t, x in subject.states.items()}
    return shares[0.0], Curve.of(list(shares.values()), list(shares))


@metric("strays at 21 steps", unit="fraction", better="lower", headline=True, paired="ratio")
def stray_fraction_at_21_steps(subject: Subject) -> Estimate:
    """Share of strays among the same number of samples, drawn in 21 predictor steps: in 100 a well-trained score
    leaves hardly any."""
    sampling = Sampling(number_of_samples=len(subject.samples), time_steps=21, seed=subject.seed)
    return share_of_strays(subject.problem, sampling.draw(subject.network, subject.problem)[0.0], subject.end_sigma)


@metric("width", unit="sigma_0", better="closer to 1")
def width_ratio(subject: Subject) -> Estimate:
    """Rms over components of the samples that are no strays about their modes, in widths of the mode at t = 0; the
    sampler itself raises it: compare with analytical."""
    _require_modes_apart(subject)
    x = subject.samples[_core(subject)]
    core = subject.problem.standardised(x, subject.end_sigma.expand(len(x)))
    ratio = core.square().mean().sqrt().item()
    return Estimate(ratio, ratio / math.sqrt(2 * core.numel()), len(core))


@shared
def _mode_counts(subject: Subject) -> Tensor:
    """Return how many of the cores' samples belong to each mode, (mode,)."""
    problem, x = subject.problem, subject.samples
    if len(problem.mode_weights()) == 1:
        raise NoValue("the law has a single mode")
    _require_modes_apart(subject)
    _, index, _ = problem.nearest_mode(x, subject.end_sigma.expand(len(x)))
    return torch.bincount(index[_core(subject)], minlength=len(problem.mode_weights()))


def _require_modes_apart(subject: Subject) -> None:
    """Raise NoValue where two modes come closer than their stray radii."""
    modes, widths = subject.problem.modes().double(), subject.problem.mode_widths(subject.end_sigma[None])[0]
    distances = displacement(modes[:, None], modes).square().sum((-2, -1)).sqrt().fill_diagonal_(1.0)
    if not (distances > subject.problem.stray_radius * (widths[:, None] + widths)).all():
        raise NoValue("modes overlap, so a sample's own mode is not known")


@metric("occupancy", better="closer to 1")
def mode_occupancy(subject: Subject) -> Estimate:
    """Share of the samples that are no strays in the first mode, over that mode's weight."""
    counts = _mode_counts(subject)
    return Estimate.of_share(int(counts[0]), int(counts.sum())).scaled(1 / subject.problem.mode_weights()[0].item())


@metric("occupancy p-value")
def mode_occupancy_p_value(subject: Subject) -> Estimate:
    """P-value of the modes' shares being their weights (chi-squared test)."""
    counts = _mode_counts(subject)
    expected = subject.problem.mode_weights() * counts.sum()
    return Estimate(float(stats.chisquare(counts.numpy(), expected.numpy()).pvalue), None, int(counts.sum()))


@shared
def _radial_test(subject: Subject) -> tuple[Estimate, Estimate]:
    """Return the Kolmogorov-Smirnov distance of r from the chi distribution, with the interval of Dvoretzky, Kiefer,
    Wolfowitz and Massart, for the empirical distribution may be off everywhere at once; and its p-value."""
    _require_modes_apart(subject)
    r = radii(subject.problem, subject.samples, subject.end_sigma)
    test = stats.kstest(r.numpy(), stats.chi(math.prod(subject.problem.shape)).cdf)
    n, distance = len(r), float(test.statistic)
    below = float((r <= test.statistic_location).double().mean())
    band = math.sqrt(math.log(2 / (1 - CONFIDENCE)) / (2 * n))
    interval = (max(distance - band, 0.0), distance + band)
    return Estimate(distance, math.sqrt(below * (1 - below) / n), n, interval), Estimate(float(test.pvalue), None, n)


@metric("radial distribution", better="lower")
def radial_ks(subject: Subject) -> Estimate:
    """Kolmogorov-Smirnov distance from the chi distribution of r, the distance to the nearest mode in its widths; the
    interval is that of Dvoretzky, Kiefer, Wolfowitz."""
    return _radial_test(subject)[0]


@metric("radial p-value")
def radial_p_value(subject: Subject) -> Estimate:
    """P-value of the distance of radial distribution; the sampler itself lowers it: compare with analytical."""
    return _radial_test(subject)[1]


@metric("W2", unit="relative coordinates", better="lower")
def wasserstein_2(subject: Subject) -> Estimate:
    """Periodic 2-Wasserstein distance of samples from exact draws, exact transport of blocks of 500, up to relabelling
    of the atoms where the law is symmetric; not 0 for two exact samples: see the control."""
    x = subject.samples[: subject.effort.transport]
    return transport_distance(x, _exact_draws(subject, "exact 1", len(x)), subject.problem)


@metric("W2, control", unit="relative coordinates")
def wasserstein_2_control(subject: Subject) -> Estimate:
    """Periodic 2-Wasserstein distance between two sets of exact draws, like W2."""
    n = min(subject.effort.transport, len(subject.samples))
    first, second = (_exact_draws(subject, f"exact {i}", n) for i in (1, 2))
    return transport_distance(second, first, subject.problem)


def transport_distance(x: Tensor, y: Tensor, problem: Law, block: int = BLOCK) -> Estimate:
    """Return the 2-Wasserstein distance of two sets of samples on the torus, in relative coordinates, from exact
    transport of blocks; an incomplete last one is dropped, since smaller ones are further apart. A pair's cost is that
    of its best relabelling where the law is symmetric, so that the modes' chance imbalance, no error, hides nothing."""
    size = min(len(x), block)
    whole = len(x) - len(x) % size
    squares = torch.tensor([_transport(x[i : i + size], y[i : i + size], problem) for i in range(0, whole, size)])
    root = Estimate.of_root_mean(squares)
    return root._replace(number_of_points=whole, standard_error=root.standard_error if len(squares) > 1 else None)


def _transport(x, y, problem):
    pairs = displacement(x[:, None, :, None].double(), y[None, :, None].double()).square().sum(-1)  # (i, j, atom, atom)
    costs = (sum(pairs[:, :, a, b] for a, b in enumerate(order)) for order in problem.assignments)
    cost = functools.reduce(torch.minimum, costs).numpy()
    return cost[linear_sum_assignment(cost)].mean()


@metric("drift", unit="nats", source="Daras et al. 2023", better="closer to 0")
def law_drift(subject: Subject) -> tuple[Estimate, Curve]:
    """E log p over the samples less E log p under the exact distribution p at the end of the sampler."""
    problem, generator, drifts = subject.problem, subject.generator("drift"), {}
    for t, x in subject.states.items():
        sigma = subject.schedule.sigma(torch.tensor(t)).expand(len(x))
        exact = problem.sample_noised(sigma, generator)
        ours, theirs = (problem.log_density(points.double(), sigma.double()) for points in (x, exact))
        drifts[t] = Estimate.of_mean(ours - theirs)  # independent draws; a stray counts for hundreds of nats
    return drifts[0.0], Curve.of(list(drifts.values()), list(drifts))


@metric("neighbours", better="closer to 1")
def nearest_neighbour_ratio(subject: Subject) -> Estimate:
    """Mean distance of samples (strays left out) to the training set over that of exact draws; below 1: copies."""
    problem = subject.problem
    exact = _exact_draws(subject, "neighbours", len(subject.samples))
    exact = exact[radii(problem, exact, subject.end_sigma) <= problem.stray_radius]
    tree = cKDTree(problem.permuted(subject.training_set).flatten(1).double().numpy() % 1, boxsize=1.0)
    points = (x.flatten(1).double().numpy() % 1 for x in (subject.samples[_core(subject)], exact))
    ours, theirs = (Estimate.of_mean(torch.from_numpy(tree.query(x)[0])) for x in points)
    ratio = ours.value / theirs.value  # the sampler's own width error raises it above 1
    error = math.hypot(ours.standard_error or 0.0, ratio * (theirs.standard_error or 0.0)) / theirs.value
    return Estimate(ratio, error, ours.number_of_points)
