"""A number and its standard error: the error is that of repeated estimates, and an interval holds what it says."""

import math

import pytest
import torch
from scipy.stats import kstest
from subjects import seeded

from utils.evaluation.estimates import BINS, Curve, Estimate, NoValue, stratified_times

REPEATS = 150  # their spread is known to 6 %; four such errors are allowed


@pytest.mark.parametrize(
    ("estimate", "true"),
    [
        (lambda u: Estimate.of_mean(u), 0.5),
        (lambda u: Estimate.of_mean(u.square()).root(), 1 / math.sqrt(3)),
        (lambda u: Estimate.of_ratio(u.square(), u), 2 / 3),
        (lambda u: Estimate.of_ratio(u.square(), u).root(), math.sqrt(2 / 3)),
        (lambda u: Estimate.of_median(u), 0.5),
        (lambda u: Estimate.of_share(int((u < 0.3).sum()), u.numel()), 0.3),
    ],
)
def test_standard_errors_are_honest_and_halve_their_square_with_twice_the_points(estimate, true):
    stated = []
    for n in (400, 800):
        found = [estimate(torch.rand(n, generator=seeded(seed))) for seed in range(REPEATS)]
        values, errors = (torch.tensor([e[i] for e in found]) for i in range(2))
        assert abs(values.mean() - true) < 4 * values.std() / REPEATS**0.5 + 1e-3  # a ratio's bias falls like 1/n
        assert errors.mean() == pytest.approx(values.std().item(), rel=0.24)
        assert {e.number_of_points for e in found} == {n}
        stated.append(errors.square().mean())
    assert stated[0] / stated[1] == pytest.approx(2, rel=0.1)


def test_stratified_error_leaves_out_what_differs_between_bins():
    draws = [torch.arange(BINS)[:, None] + torch.rand(BINS, 10, generator=seeded(seed)) for seed in range(200)]
    found = [Estimate.of_mean(d) for d in draws]
    spread = torch.tensor([e.value for e in found]).std().item()
    assert found[0].standard_error == pytest.approx(spread, rel=0.25)
    assert found[0].standard_error < 0.1 * Estimate.of_mean(draws[0].flatten()).standard_error


@pytest.mark.parametrize(("successes", "trials"), [(0, 1000), (3, 10), (9978, 10_000)])
def test_interval_of_a_share_ends_where_its_normal_law_leaves_it_out(successes, trials):
    """Wilson's ends are those shares p with (k/n - p)^2 = z^2 p (1 - p) / n: above 0 also where none was found."""
    found = Estimate.of_share(successes, trials)
    for p in found.interval:
        assert (found.value - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / trials, rel=1e-6, abs=1e-15)
    value, error, _, interval = found.scaled(3)
    expected = [3 * number for number in (found.value, found.standard_error, *found.interval)]
    assert [value, error, *interval] == pytest.approx(expected)


def test_root_and_ratio_have_a_value_only_where_there_is_one():
    assert Estimate(-0.2, 0.1, 10).root() == Estimate(0, 0, 10)  # an unbiased estimate of a square may be negative
    with pytest.raises(NoValue, match="a mean that is 0"):
        Estimate.of_ratio(torch.ones(3), torch.zeros(3))


def test_times_are_uniform_in_their_bins_whose_centres_are_those_of_a_curve():
    t = stratified_times(2_000, seeded()).view(BINS, -1)
    place = BINS * t - torch.arange(BINS)[:, None]
    assert place.min() >= 0 and place.max() <= 1 + 1e-5  # rounding of float32
    assert kstest(place.flatten().numpy(), "uniform").pvalue > 1e-3
    curve = Curve.of([Estimate.of_mean(row) for row in t])
    for centre, mean, error in zip(*curve, strict=True):
        assert abs(centre - mean) < 4 * error < 0.1 / BINS
    assert Curve.of([None, Estimate(1.0, None, 3)]) == ([0.25, 0.75], [None, 1.0], [None, None])
