"""Intervals that hold what they should as often as they say, and pairing that removes what seeds share."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.sweeps.paired import mean_over_seeds, paired_difference

DRAWS = np.random.default_rng(0).normal(3.0, 2.0, (400, 5))


def test_students_interval_of_five_holds_the_truth_and_the_bootstraps_less_often():
    """The reason why differences are judged by Student's t: 95 % against about 85 %, both +- 2 % with 400 repeats."""
    held = [(d.low <= 3 <= d.high) for d in (paired_difference(values, 0 * values) for values in DRAWS)]
    assert 0.92 < np.mean(held) < 0.98
    held = [(m.low <= 3 <= m.high) for m in map(mean_over_seeds, DRAWS[:150])]
    assert 0.72 < np.mean(held) < 0.92


def test_bootstrap_of_many_is_the_interval_of_the_mean():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    mean, half = mean_over_seeds(values), 1.96 * values.std() / 20
    assert mean.value == pytest.approx(values.mean()) and mean.seeds == 400
    assert (mean.low, mean.high) == pytest.approx((mean.value - half, mean.value + half), abs=0.15 * half)


def test_bootstrap_of_a_skewed_few_stays_among_what_they_can_be():
    """One stray seed in five: the mean of a resample is a binomial number of strays over five, whose 2.5 and 97.5 %
    are 0 and 3. An interval reflected about the mean would be below 0, which no share can be."""
    mean = mean_over_seeds([0.0, 0.0, 0.0, 0.0, 1.0])
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.2, *stats.binom(5, 0.2).ppf([0.025, 0.975]) / 5))


def test_paired_difference_is_students_and_cancels_what_seeds_share():
    shared, own = 10 * DRAWS[0], np.array([0.1, 0.2, 0.15, 0.12, 0.18])
    found = paired_difference(shared + own, shared)
    half = stats.t(4).ppf(0.975) * own.std(ddof=1) / math.sqrt(5)
    assert (found.low, found.high) == pytest.approx((0.15 - half, 0.15 + half))
    assert found.p_value == pytest.approx(2 * stats.t(4).sf(0.15 / (own.std(ddof=1) / math.sqrt(5))))
    assert found.is_significant and not paired_difference(shared[::-1], shared).is_significant


def test_what_does_not_vary_has_no_p_value_of_chance():
    same, shifted = paired_difference([0.0] * 5, [0.0] * 5), paired_difference([2.0] * 5, [1.0] * 5)
    assert (same.value, same.p_value, same.is_significant) == (0, 1, False)
    assert shifted.value == 1 and math.isnan(shifted.p_value) and not shifted.is_significant


def test_one_seed_or_a_number_that_is_none_has_no_interval():
    assert math.isnan(mean_over_seeds([1.0]).low) and mean_over_seeds([1.0]).value == 1
    assert math.isnan(paired_difference([1.0], [0.5]).low) and not paired_difference([1.0], [0.5]).is_significant
    assert math.isnan(mean_over_seeds([1.0, math.nan]).high)
