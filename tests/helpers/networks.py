"""Networks whose score is wrong in a known way, and whether a number agrees with what that gives."""

import torch

from utils.score.networks import ScoreNetwork


class Zero(ScoreNetwork):
    """N = 0 everywhere."""

    def normalised_score(self, x, t):
        return torch.zeros_like(x)


class Curl(ScoreNetwork):
    """N = (1 + t) (sin 2 pi y, -sin 2 pi x): a rotation of two atoms that no density has as its gradient."""

    def normalised_score(self, x, t):
        phase = 2 * torch.pi * x
        return torch.stack([torch.sin(phase[:, 1]), -torch.sin(phase[:, 0])], 1) * (1 + t)[:, None, None]


def near(estimate, expected, errors=4.0):
    """Whether an estimate is within so many of its standard errors of a number."""
    return abs(estimate.value - expected) <= errors * estimate.standard_error
