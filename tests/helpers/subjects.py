"""What is evaluated in the tests of the metrics: networks of known faults, and subjects with few points."""

import dataclasses

import torch
from conftest import BASE, OTHERS, make_problem
from mixtures import make_mixture

from utils.evaluation.registry import Effort, Subject
from utils.physics.noise_schedule import ExponentialSchedule, LinearSchedule
from utils.physics.torus import wrap
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

PROBLEMS = [make_problem(coordinates) for coordinates in (BASE, *OTHERS)] + [make_mixture()]
SCHEDULES = [kind(sigma_min=0.001, sigma_max=0.2) for kind in (ExponentialSchedule, LinearSchedule)]
KINDS = tuple(Effort().per_bin)
FEW = Effort(100, dict.fromkeys(KINDS, 4), transport=100, ode_points=4, ode_samples=4, memory=4)


class Given(ScoreNetwork):
    """Its normalised score is a function of x and t, for the problem of another network."""

    def __init__(self, other, function):
        super().__init__(other.schedule, other.shape)
        self.function = function

    def normalised_score(self, x, t):
        return self.function(x, t)


def wrong_width(truth, sigma_d):
    return AnalyticalScoreNetwork(truth.problem.model_copy(update={"sigma_d": sigma_d}), truth.schedule)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def exact_samples(truth, n, seed=0):
    return truth.problem.sample_noised(truth.schedule.sigma(torch.zeros(n)), seeded(seed))


def widened(truth, x, factor):
    """Return samples whose distances from their modes are so many times as large."""
    u, index, _ = truth.problem.nearest_mode(x, truth.schedule.sigma(torch.zeros(len(x))))
    return wrap(truth.problem.modes()[index] + factor * u)


def make_subject(network, truth, samples=None, *, training_set=None, seed=0, per_bin=None, **effort):
    """Return a subject with few points, but where more are asked for; samples may be given by time. Else exact ones."""
    samples = exact_samples(truth, 100, seed) if samples is None else samples
    training_set = truth.problem.sample(100, seeded(seed)) if training_set is None else training_set
    if per_bin is not None:
        effort["per_bin"] = dict.fromkeys(KINDS, per_bin) if isinstance(per_bin, int) else per_bin
    states = samples if isinstance(samples, dict) else {0.0: samples}
    return Subject(network, truth, training_set, states, seed, dataclasses.replace(FEW, **effort))
