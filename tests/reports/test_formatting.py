"""Numbers as text: with two digits of half of their 95 % interval, whatever they are."""

import math

import pytest

from utils.evaluation.estimates import Estimate
from utils.reports.formatting import half_width, with_interval


@pytest.mark.parametrize(
    ("value", "half", "options", "text"),
    [
        (0.0432721, 0.0025223, {}, "0.0433 ± 0.0025"),
        (0.0432721, 0.0025223, {"digits": 1}, "0.043 ± 0.003"),
        (0.0432721, 0.0025223, {"sign": True}, "+0.0433 ± 0.0025"),
        (-3.2e-5, 1.1e-6, {"sign": True}, "(−3.20 ± 0.11)×10⁻⁵"),  # noqa: RUF001
        (-0.25, 0.0, {}, "−0.25"),  # noqa: RUF001
        (0.0432721, math.nan, {}, "0.04327"),
        (0.0, 0.0, {"sign": True}, "0"),
        (0.0, 0.002, {}, "0.0000 ± 0.0020"),
        (math.inf, 1.0, {}, "inf"),
        (-math.inf, math.nan, {}, "-inf"),
        (math.nan, 1.0, {"sign": True}, "not a number"),
    ],
)
def test_digits_are_those_of_the_half_width(value, half, options, text):
    assert with_interval(value, half, **options) == text


@pytest.mark.parametrize("value", [0.0, 5e-324, -1.7e308, 1e-310, 99999.6, 0.99996, math.inf, math.nan])
@pytest.mark.parametrize("half", [0.0, 5e-324, 1e-5, 3.0, 1e300, math.nan, math.inf])
def test_no_number_is_too_odd_to_write(value, half):
    expected = 0 < half < math.inf and math.isfinite(value)
    assert (" ± " in with_interval(value, half, sign=True)) == expected


def test_half_width_is_that_of_the_estimates_own_interval_or_else_the_normal_one():
    """0.95 of a normal distribution lies within 1.959964 standard deviations."""
    assert half_width(Estimate(0.5, 0.1, 10)) == pytest.approx(0.1959964, abs=1e-7)
    assert half_width(Estimate(0.0, 0.0, 50, (0.0, 0.07))) == 0.035
    assert half_width(Estimate(0.5, None, 1)) == 0
