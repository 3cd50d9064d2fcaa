"""Estimates: a number with its standard error, and the points at which a score is evaluated.

Times are stratified: each of the equal bins of [0,1] holds equally many points with t uniform in it, so that one set
serves a mean over t and a curve. Draws are (bin, point); their mean has the standard error sqrt(mean over bins of the
variance within a bin / number of points). Functions of means have that of their linear part (delta method). Where a
normal interval would be wrong, one of 95 % is given as well.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Generator, Tensor

from utils.score.networks import AnalyticalScoreNetwork

BINS = 20
CONFIDENCE = 0.95


class NoValue(Exception):
    """A number has no value here; the text says why."""


class Estimate(NamedTuple):
    """A value, its standard error (None where it has no meaning), the number of draws, and perhaps an interval."""

    value: float
    standard_error: float | None
    number_of_points: int
    interval: tuple[float, float] | None = None

    @classmethod
    def of_mean(cls, draws: Tensor) -> "Estimate":
        """Return the mean of independent draws, (draw,) or (bin, draw)."""
        draws = torch.atleast_2d(draws.double())
        within = draws.var(1).mean().item() if draws.shape[1] > 1 else 0.0
        return cls(draws.mean().item(), math.sqrt(within / draws.numel()), draws.numel())

    @classmethod
    def of_root_mean(cls, draws: Tensor) -> "Estimate":
        """Return the square root of the mean of draws >= 0, (draw,) or (bin, draw)."""
        return cls.of_mean(draws).root()

    @classmethod
    def of_ratio(cls, numerators: Tensor, denominators: Tensor) -> "Estimate":
        """Return mean(numerators) / mean(denominators), drawn together, each (draw,) or (bin, draw)."""
        numerators, denominators = numerators.double(), denominators.double()
        if not (below := denominators.mean().item()):
            raise NoValue("it is a ratio to a mean that is 0 up to rounding")
        ratio = numerators.mean().item() / below
        return cls.of_mean((numerators - ratio * denominators) / below)._replace(value=ratio)

    @classmethod
    def of_median(cls, draws: Tensor) -> "Estimate":
        """Return the median, with the binomial interval of its rank; the standard error is half of it over 1.96."""
        values = draws.flatten().double().numpy()
        low, high = map(float, stats.quantile_test(values, p=0.5).confidence_interval(CONFIDENCE))
        error = (high - low) / (2 * stats.norm.ppf((1 + CONFIDENCE) / 2))
        return cls(float(np.median(values)), float(error), len(values), (low, high))

    @classmethod
    def of_share(cls, successes: int, trials: int) -> "Estimate":
        """Return a share with its binomial standard error and Wilson's interval."""
        share = successes / trials
        low, high = map(float, stats.binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson"))
        return cls(share, math.sqrt(share * (1 - share) / trials), trials, (low, high))

    def root(self) -> "Estimate":
        """Return the square root, with the error of its linear part."""
        root = math.sqrt(max(self.value, 0.0))  # an unbiased estimate of a square may be negative
        error = (self.standard_error or 0.0) / (2 * root) if root else 0.0
        return Estimate(root, error, self.number_of_points)

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit."""
        interval = self.interval and (factor * self.interval[0], factor * self.interval[1])
        error = None if self.standard_error is None else factor * self.standard_error
        return Estimate(factor * self.value, error, self.number_of_points, interval)


def stratified_times(per_bin: int, generator: Generator) -> Tensor:
    """Return as many times in each of the equal bins of [0,1], (bin x point,)."""
    fraction = torch.rand(BINS, per_bin, generator=generator)
    return ((torch.arange(BINS)[:, None] + fraction) / BINS).flatten().clamp(max=1)


def points_at(where: str, truth: AnalyticalScoreNetwork, per_bin: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return points of the noisy marginal p_t ("noised"), or as many at the same times, "uniform" on the torus: x,
    (bin x point, atom, dimension), and t, (bin x point,), bin after bin."""
    t = stratified_times(per_bin, generator)
    x = truth.problem.sample_noised(truth.schedule.sigma(t), generator)
    return x if where == "noised" else torch.rand(x.shape, generator=generator), t


class Curve(NamedTuple):
    """Estimates against t; an entry is None where there were too few points."""

    t: list[float]
    value: list[float | None]
    standard_error: list[float | None]

    @classmethod
    def of(cls, estimates: list[Estimate | None], t: list[float] | None = None) -> "Curve":
        """Return the curve of one estimate for each bin, at the bins' centres, or at other times t."""
        t = [(i + 0.5) / len(estimates) for i in range(len(estimates))] if t is None else t
        return cls(t, [e and e.value for e in estimates], [e and e.standard_error for e in estimates])


def with_curve(estimate_of: Callable[[Tensor], Estimate], draws: Tensor) -> tuple[Estimate, Curve]:
    """Return an estimate from draws, (bin, point), and the curve of that from each bin."""
    return estimate_of(draws), Curve.of([estimate_of(row) for row in draws])
