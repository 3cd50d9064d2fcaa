"""How close the learned score s_theta is to the exact one, at points. D is its error, sigma D that of sigma s_theta."""

import math

import torch
from torch import Tensor

from utils.evaluation.estimates import BINS, Curve, Estimate, NoValue, points_at, stratified_times, with_curve
from utils.evaluation.gradient_part import CENTRES, MAX_COMPONENTS, squared_gradient_part
from utils.evaluation.registry import MIN_POINTS, SONG, WHERE, Subject, metric, shared
from utils.physics.empirical import empirical_score
from utils.physics.noise_schedule import NoiseSchedule
from utils.score.targets import add_noise

RIDGE = 2.0  # nats: on a ridge the best mode weighs less than e^2 = 7.4 times the second best
NARROW = 0.05  # noise at which a network can memorise the training set
MIN_CONFIGURATIONS = 100  # their score has an error of about a tenth of its spread
MEMORY_TIMES = (0.0, 0.1, 0.2, 0.3)  # early: later the training set and its distribution look alike


def path_kl_density(error: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Return sigma sigma_dot |D|^2 in nats, (batch,), for the error sigma D of the normalised score at times t. Its
    mean over t uniform on [0,1] and x from p_t is the path KL, which bounds the divergence of the samples' distribution
    from the data, up to that of the start (Song et al. 2021, maximum-likelihood weighting)."""
    return (schedule.sigma_dot(t) / schedule.sigma(t)) * error.square().sum((-2, -1))


@metric("path KL", unit="nats", source=SONG, better="lower", headline=True, paired="ratio")
def path_kl(subject: Subject) -> Estimate:
    """Integral over t of sigma sigma_dot E|s_theta - s|^2 under p_t, summed over components."""
    generator, schedule, truth = subject.generator("path KL"), subject.schedule, subject.truth
    t = torch.rand(subject.effort.path_kl, generator=generator)
    x = subject.problem.sample_noised(schedule.sigma(t), generator)
    return Estimate.of_mean(path_kl_density(subject.network(x, t) - truth(x, t), t, schedule))


@metric("gradient part", unit="nats", headline=True, source="Khelifa et al. 2026", better="lower", paired="ratio")
def path_kl_gradient_part(subject: Subject) -> tuple[Estimate, Curve]:
    """Integral over t of sigma sigma_dot E|grad psi|^2 under p_t, grad psi the gradient field whose mean squared
    distance to s_theta - s under p_t is smallest: the part of the path KL that changes the distributions p_t."""
    if (components := math.prod(subject.problem.shape)) > MAX_COMPONENTS:
        raise NoValue(f"its basis is good for up to {MAX_COMPONENTS} components; here are {components}")
    schedule, generator, rows = subject.schedule, subject.generator("gradient part"), []
    for t in (torch.arange(BINS) + 0.5) / BINS:  # one time a bin, since psi is another function at each
        times = t.expand(subject.effort.per_bin["gradient part"])
        x = subject.problem.sample_noised(schedule.sigma(times), generator)
        centres = subject.problem.sample_noised(schedule.sigma(times[:CENTRES]), generator)
        width = subject.problem.nearest_mode(centres, schedule.sigma(times[:CENTRES]))[2]
        error = (subject.network(x, times) - subject.truth(x, times)).double()
        rows.append(schedule.sigma_dot(t) / schedule.sigma(t) * squared_gradient_part(error, x, centres, width))
    return with_curve(Estimate.of_mean, torch.stack(rows))


@shared
def _excess(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Return the excess of the loss at fresh noised points, the same in nats, and the path KL density there. The excess
    is |N_theta - T|^2 - |N - T|^2 with the target T; since E[T | x] = N, its mean is E|sigma D|^2. Weighted like the
    path KL (on the exponential schedule: times L x components) it must give the same number of nats."""
    problem, schedule, generator = subject.problem, subject.schedule, subject.generator("excess")
    t = stratified_times(subject.effort.per_bin["excess"], generator)
    x_0 = problem.sample_noised(torch.zeros_like(t), generator)  # permuted data, where the law is symmetric
    x, _, target, _ = add_noise(x_0, t, schedule, generator)
    output, exact = subject.network(x, t), subject.truth(x, t)
    excess = ((output - target).square() - (exact - target).square()).mean((-2, -1))
    in_nats = (schedule.sigma_dot(t) / schedule.sigma(t)) * excess * x[0].numel()
    return excess.view(BINS, -1), in_nats.view(BINS, -1), path_kl_density(output - exact, t, schedule).view(BINS, -1)


@metric("excess loss", better="lower")
def excess_loss(subject: Subject) -> Estimate:
    """Score-matching loss on fresh noised points less that of the exact score; mean over components."""
    return Estimate.of_mean(_excess(subject)[0])


@metric("path KL from the loss", unit="nats", better="lower")
def path_kl_from_loss(subject: Subject) -> Estimate:
    """The excess weighted by sigma_dot / sigma and summed over components: the path KL again."""
    return Estimate.of_mean(_excess(subject)[1])


@metric("disagreement of both path KL", unit="nats", better="closer to 0")
def path_kl_disagreement(subject: Subject) -> Estimate:
    """Path KL from the loss less path KL, at the same points: 0 within its error."""
    return Estimate.of_mean(_excess(subject)[1] - _excess(subject)[2])


@shared
def _errors(subject: Subject, where: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return |sigma D|^2 and |sigma s|^2, means over components, and whether a point is on a ridge, (bin, point)."""
    x, t = points_at(where, subject.truth, subject.effort.per_bin["score error"], subject.generator("score error"))
    exact = subject.truth(x, t)
    squares, sizes = (a.double().square().mean((-2, -1)) for a in (subject.network(x, t) - exact, exact))
    on_ridge = subject.problem.ridge_distance(x, subject.schedule.sigma(t)) < RIDGE
    return squares.view(BINS, -1), sizes.view(BINS, -1), on_ridge.view(BINS, -1)


@metric("score error", better="lower", where=WHERE)
def score_error(subject: Subject, where: str) -> tuple[Estimate, Curve]:
    """Rms over components of sigma (s_theta - s)."""
    return with_curve(Estimate.of_root_mean, _errors(subject, where)[0])


@metric("size of the exact score", where=WHERE)
def exact_score_size(subject: Subject, where: str) -> tuple[Estimate, Curve]:
    """Rms over components of sigma s, for scale."""
    return with_curve(Estimate.of_root_mean, _errors(subject, where)[1])


@metric("relative score error", better="lower", where=WHERE)
def score_error_relative(subject: Subject, where: str) -> Estimate:
    """Rms of sigma (s_theta - s) over the rms of sigma s."""
    return Estimate.of_ratio(*_errors(subject, where)[:2]).root()


@metric("median score error", better="lower", where=WHERE)
def score_error_median(subject: Subject, where: str) -> tuple[Estimate, Curve]:
    """Median over points of the rms over components of sigma (s_theta - s)."""
    return with_curve(Estimate.of_median, _errors(subject, where)[0].sqrt())


@metric("score error {} ridges", better="lower", where=WHERE, variants={"on": "less", "off": "more"})
def score_error_ridges(subject: Subject, variant: str, where: str) -> Estimate:
    """Rms over components of sigma (s_theta - s) where the density of the best mode is {} than e^2 times that of the
    second: near the border between two modes it is less."""
    squares, _, on_ridge = _errors(subject, where)
    chosen = on_ridge if variant == "on" else ~on_ridge
    if len(subject.problem.mode_weights()) == 1 or chosen.sum() < MIN_POINTS:
        raise NoValue("the law has a single mode, or too few points are there")
    return Estimate.of_root_mean(squares[chosen])


@metric("score error of the training set")
def data_limit(subject: Subject) -> tuple[Estimate, Curve]:
    """Rms over components of sigma (s_data - s) at noised points, s_data the exact score of the noised training set;
    over times at which more than 100 configurations contribute at half of the points, so that it means something. Where
    a network's error is as large, more data would help it; where it is larger, better training would."""
    x, t = points_at("noised", subject.truth, subject.effort.per_bin["data"], subject.generator("training set"))
    centres = subject.problem.permuted(subject.training_set)
    score, number = empirical_score(centres, x, subject.schedule.sigma(t))
    squares = (score - subject.truth(x, t)).double().square().mean((-2, -1)).view(BINS, -1)
    known = number.view(BINS, -1).median(1).values > MIN_CONFIGURATIONS
    if not known.any():
        raise NoValue(f"fewer than {MIN_CONFIGURATIONS} configurations contribute at any time")
    curve = Curve.of([Estimate.of_root_mean(row) if use else None for row, use in zip(squares, known, strict=True)])
    return Estimate.of_root_mean(squares[known]), curve


@metric("distance from memory", better="higher")
def distance_from_memory(subject: Subject) -> Estimate:
    """E|N_theta - N_e|^2 / (E|N_theta - N_e|^2 + E|N_theta - N|^2), N_e the exact normalised score of the noised
    training set, early times: 0 memorised, 1 the truth."""
    schedule, generator = subject.schedule, subject.generator("memory")
    times = torch.tensor([t for t in MEMORY_TIMES if schedule.sigma(torch.tensor(t)) < NARROW])
    if not len(times):
        raise NoValue(f"the noise is wider than {NARROW} at all times at which it is evaluated")
    t = times.repeat_interleave(subject.effort.memory)
    sigma, centres = schedule.sigma(t), subject.problem.permuted(subject.training_set)
    x = add_noise(centres[torch.randint(len(centres), t.shape, generator=generator)], t, schedule, generator).x
    output, others = subject.network(x, t), (empirical_score(centres, x, sigma)[0], subject.truth(x, t))
    to_data, to_truth = ((output - other).square().mean((-2, -1)).view(len(times), -1) for other in others)
    return Estimate.of_ratio(to_data, to_data + to_truth)
