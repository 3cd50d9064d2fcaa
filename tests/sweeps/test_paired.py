"""Intervals that hold what they should as often as they say, pairing that removes what seeds share, and groups."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.sweeps.paired import groups, mean_over_seeds, paired_difference

DRAWS = np.random.default_rng(0).normal(3.0, 2.0, (400, 5))


def row(group, seed, value, baseline="plain", weight="", **more):
    facts = {"group": group, "baseline": baseline, "training_seed": str(seed), "weight": str(weight), "oracle": "False"}
    return facts | {"experiment": group, "regularizer_settings": "", "path_kl": str(value)} | more


def test_students_interval_of_five_seeds_holds_the_truth_in_95_of_100_cases():
    held = [abs(mean.value - 3) <= mean.half_width for mean in map(mean_over_seeds, DRAWS)]
    assert 0.92 < np.mean(held) < 0.98  # +- 2 % with 400 repeats


def test_paired_difference_is_students_and_cancels_what_seeds_share():
    shared, own = 10 * DRAWS[0], np.array([0.1, 0.2, 0.15, 0.12, 0.18])
    found = paired_difference(shared + own, shared)
    error = own.std(ddof=1) / math.sqrt(5)
    assert (found.value, found.half_width) == pytest.approx((0.15, stats.t(4).ppf(0.975) * error))
    assert found.p_value == pytest.approx(2 * stats.t(4).sf(0.15 / error))
    assert found.is_not_zero and not paired_difference(shared[::-1], shared).is_not_zero


@pytest.mark.parametrize("values", [[1.0], [2.0] * 5, [1.0, math.nan], [1.0, math.inf]])
def test_what_does_not_vary_or_is_no_number_has_no_interval_and_no_star(values):
    mean = mean_over_seeds(values)
    assert math.isnan(mean.half_width) and not mean.is_not_zero and mean.seeds == len(values)


def test_groups_are_compared_with_the_same_training_without_a_regularizer_seed_by_seed():
    plain = [row("plain", seed, 1.0 + seed) for seed in range(3)]
    penalised = [row("penalty", seed, 0.9 + seed + 0.01 * seed, weight=0.5) for seed in (1, 2, 7)]
    first, second = groups([*penalised, *plain], [*penalised, *plain])
    assert (first.weight, second.weight) == (None, 0.5)
    assert first.difference("path_kl") is None
    difference = second.difference("path_kl")
    assert difference.seeds == 2  # seed 7 has no baseline
    assert difference.value == pytest.approx((-0.09 - 0.08) / 2)
    assert second.mean("path_kl").seeds == 3
    assert second.title == "penalty, weight 0.5"


def test_baseline_of_another_sweep_comes_with_the_groups_and_a_missing_one_leaves_no_difference():
    plain, penalised = [row("plain", 0, 1.0)], [row("penalty", 0, 0.5, weight=1.0)]
    assert [group.row["group"] for group in groups(penalised, plain + penalised)] == ["plain", "penalty"]
    (alone,) = groups(penalised, penalised)
    assert alone.difference("path_kl") is None and alone.mean("path_kl").value == 0.5


def test_number_that_no_run_has_is_no_mean():
    (group,) = groups([row("plain", 0, 1.0)], [])
    assert group.mean("never_computed") is None
