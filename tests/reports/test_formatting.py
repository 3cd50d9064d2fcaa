"""Numbers as text: with two digits of half of their 95 % interval, whatever they are."""

import itertools
import math

import pytest

from utils.evaluation.estimates import Estimate
from utils.reports.formatting import half_width, with_interval


def test_digits_are_those_of_the_half_width():
    assert with_interval(0.0432721, 0.0025223) == "0.0433 ± 0.0025"
    assert with_interval(0.0432721, 0.0025223, 1, sign=True) == "+0.043 ± 0.003"
    assert with_interval(-3.2e-5, 1.1e-6, sign=True) == "(−3.20 ± 0.11)×10⁻⁵"  # noqa: RUF001
    assert [with_interval(value, math.nan) for value in (-0.0432721, 0.0)] == ["−0.04327", "0"]  # noqa: RUF001
    assert [with_interval(value, 1.0) for value in (math.inf, -math.inf, math.nan)] == ["inf", "-inf", "not a number"]


def test_no_number_is_too_odd_to_write():
    values = (0.0, 5e-324, -1.7e308, 1e-310, 99999.6, 0.99996, math.inf, math.nan)
    for value, half in itertools.product(values, (0.0, 5e-324, 1e-5, 3.0, 1e300, math.nan, math.inf)):
        has_interval = 0 < half < math.inf and math.isfinite(value)
        assert (" ± " in with_interval(value, half, sign=True)) == has_interval


def test_half_width_is_the_longer_side_of_the_estimates_own_interval_or_else_the_normal_one():
    """0.95 of a normal distribution lies within 1.959964 standard deviations."""
    assert half_width(Estimate(0.5, 0.1, 10)) == pytest.approx(0.1959964, abs=1e-7)
    assert half_width(Estimate(0.0, 0.0, 50, (0.0, 0.07))) == 0.07
    assert half_width(Estimate(0.5, None, 1)) == 0
