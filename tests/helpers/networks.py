"""Networks whose score is wrong in a known way, points to look at them, and whether a number is what is expected."""

import torch

from utils.score.networks import ScoreNetwork
from utils.score.targets import add_noise

SHAPES = [(2, 1), (1, 1), (3, 1), (2, 2)]  # (atoms, dimensions)


class Zero(ScoreNetwork):
    """N = 0 everywhere."""

    def normalised_score(self, x, t):
        return torch.zeros_like(x)


class Curl(ScoreNetwork):
    """N = (1 + t) (sin 2 pi y, -sin 2 pi x): a rotation of two atoms that no density has as its gradient."""

    def normalised_score(self, x, t):
        phase = 2 * torch.pi * x
        return torch.stack([torch.sin(phase[:, 1]), -torch.sin(phase[:, 0])], 1) * (1 + t)[:, None, None]


def points(shape, generator, number=20):
    """Return configurations uniform on the torus and times, float64."""
    x, t = torch.rand(number, *shape, generator=generator), torch.rand(number, generator=generator)
    return x.double(), t.double()


def noised(problem, schedule, number, generator, times=(0.0, 1.0), dtype=torch.float32):
    """Return data of a law, permuted where it is symmetric, with the noise of times uniform between two."""
    t = (times[0] + (times[1] - times[0]) * torch.rand(number, generator=generator)).to(dtype)
    return add_noise(problem.sample_noised(0 * t, generator), t, schedule, generator)


def near(estimate, expected, errors=4.0):
    """Whether an estimate is within so many of its standard errors of a number."""
    return abs(estimate.value - expected) <= errors * estimate.standard_error


def orthogonal(error, functions):
    """Whether an error, (batch, ...), has no correlation with functions of x and t: its mean given x is 0."""
    products = [(error * function).flatten(1).sum(1) for function in functions]
    return all(abs(one.mean()) < 4.5 * one.std() / len(one) ** 0.5 for one in products)
