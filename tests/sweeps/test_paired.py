"""Intervals hold what they say, pairing removes what seeds share, and the baselines are the right ones."""

import math

import numpy as np
import pytest
from rows import make_rows, path_kl
from scipy import stats

from utils.sweeps.paired import Group, groups, mean_over_seeds

DRAWS = np.random.default_rng(0).normal(3.0, 2.0, (400, 5))


def difference(values, baseline):
    """Return the paired difference of values and baseline, as Group.difference does."""
    return mean_over_seeds(np.subtract(values, baseline))


def test_interval_of_five_seeds_holds_the_truth_95_times_of_100():
    """The error of a share of 400 is 1.1 %; the interval of a normal law instead of Student's would hold 88 %."""
    held = [abs(found.value - 3) <= found.half_width for found in map(mean_over_seeds, DRAWS)]
    assert 0.92 < np.mean(held) < 0.98


def test_paired_difference_is_students_and_cancels_what_seeds_share():
    shared, own = 10 * DRAWS[0], np.array([0.1, 0.2, 0.15, 0.12, 0.18])
    found, error = difference(shared + own, shared), own.std(ddof=1) / math.sqrt(5)
    assert found.half_width == pytest.approx(stats.t(4).ppf(0.975) * error)
    assert found.p_value == pytest.approx(2 * stats.t(4).sf(0.15 / error))
    assert found.value == pytest.approx(0.15) and found.seeds == 5 and found.is_not_zero
    assert not difference(shared[::-1], shared).is_not_zero


def test_interval_of_a_ratio_of_means_holds_it_95_times_of_100_also_where_values_are_0():
    def runs(values):
        return {i: {"group": "ours", "baseline": "theirs", "strays": str(value)} for i, value in enumerate(values)}

    random = np.random.default_rng(1)
    shared = random.gamma(9, 1 / 9, (400, 20))  # by seed
    counts = [random.poisson(mean, shared.shape) * shared for mean in (3, 6)]
    found = [Group(runs(ours), runs(theirs)).log_ratio_of_means("strays") for ours, theirs in zip(*counts, strict=True)]
    held = [abs(one.value - math.log(0.5)) <= one.half_width for one in found]
    assert 0.91 < np.mean(held) < 0.98 and (counts[0] == 0).any()
    assert Group(runs([0]), runs([1])).log_ratio_of_means("strays") is None


def test_what_does_not_vary_has_no_p_value_of_chance():
    same, shifted = difference([0.0] * 5, [0.0] * 5), difference([2.0] * 5, [1.0] * 5)
    assert (same.value, same.half_width, same.is_not_zero) == (0, 0, False)
    assert (shifted.value, shifted.is_not_zero) == (1, False)
    assert math.isnan(same.p_value) and math.isnan(shifted.p_value) and math.isnan(shifted.half_width)


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan], [1.0, math.inf], [math.inf, math.inf]])
def test_one_seed_or_a_value_that_is_not_finite_has_no_interval(values):
    for found, shift in ((mean_over_seeds(values), 0), (difference(values, [0.5] * len(values)), 0.5)):
        assert found.value == pytest.approx(np.mean(values) - shift, nan_ok=True) and found.seeds == len(values)
        assert math.isnan(found.half_width) and math.isnan(found.p_value) and not found.is_not_zero


def test_groups_are_paired_with_the_same_training_without_regularizer():
    frozen = make_rows(0, overrides=["data.fresh_noise=false"])
    rows = make_rows(1.0, 0.5, 0) + frozen
    found = {group.row["group"]: group for group in groups(rows, rows)}
    assert len(found) == 4 and all(len(group.runs) == 3 for group in found.values())
    plain = found[make_rows(0, seeds=[7])[0]["group"]]
    assert plain.weight is None and plain.title == "no regularizer" and plain.difference("path_kl") is None
    assert (plain.mean("path_kl").value, plain.mean("path_kl").seeds) == (pytest.approx(2), 3)
    assert found[frozen[0]["group"]].row["training_settings"] == "data.fresh_noise=false"
    for weight in (0.5, 1.0):
        (group,) = (group for group in found.values() if group.weight == weight)
        difference = group.difference("path_kl")
        assert difference.value == pytest.approx(-weight / 10 - 0.001 * weight) and difference.is_not_zero
        assert group.title == f"fokker planck, weight {weight:g}" and group.baseline == plain.runs
        assert group.mean("stray_fraction") is None  # what no run has
    assert [group.weight for group in groups(rows, rows)][2:] == [0.5, 1.0]  # those without one are the first


def test_baseline_of_another_sweep_is_found_and_only_common_seeds_are_paired():
    ours, theirs = make_rows(0.5, seeds=(0, 1, 2)), make_rows(0, seeds=(1, 2, 3), run="other/x")
    baseline, group = groups(ours, [*theirs, *ours])
    assert (baseline.weight, group.weight) == (None, 0.5)
    assert list(baseline.runs) == ["1", "2", "3"] and baseline.row["run"] == "other/x"
    assert group.difference("path_kl").seeds == 2
    assert group.difference("path_kl").value == pytest.approx(np.mean([path_kl(s, 0.5) - path_kl(s) for s in (1, 2)]))
    (alone,) = groups(ours, ours)
    assert alone.difference("path_kl") is None and alone.mean("path_kl").seeds == 3
