"""Intervals and paired tests over seeds.

Seeds are few and differ widely, so the mean over seeds carries a bootstrap interval, and two ways of training are
compared on the same seeds: equal seeds see equal data, initial weights and noise, and what they share cancels. Whether
a difference is significant is judged by Student's t of the paired differences, which five seeds allow better than a
bootstrap (that of five numbers is too narrow: it covers about 85 instead of 95 % for normal ones).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9_999


class Mean(NamedTuple):
    """A mean over seeds with an interval of 95 %; without one (not-a-number) for a single seed."""

    value: float
    low: float
    high: float
    seeds: int


class Difference(NamedTuple):
    """A mean of paired differences, its interval of 95 % and the p-value of there being none.

    Interval and p-value are not-a-number where they cannot be had: of a single seed, or where all differ by the same.
    """

    value: float
    low: float
    high: float
    p_value: float
    seeds: int

    @property
    def is_significant(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Return the mean with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13)."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or not np.all(np.isfinite(values)):
        return Mean(float(values.mean()), math.nan, math.nan, len(values))
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="percentile", rng=0
    )
    low, high = found.confidence_interval
    return Mean(float(values.mean()), float(low), float(high), len(values))


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Return the mean of values - baseline, seed by seed, with Student's interval and two-sided p-value."""
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    mean, n = float(differences.mean()), len(differences)
    if not np.any(differences):  # no seed shed a stray, say
        return Difference(0.0, 0.0, 0.0, 1.0, n)
    if n < 2 or not np.all(np.isfinite(differences)) or np.all(differences == differences[0]):
        return Difference(mean, math.nan, math.nan, math.nan, n)
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(mean, float(low), float(high), float(test.pvalue), n)
