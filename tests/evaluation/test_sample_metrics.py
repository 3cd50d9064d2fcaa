"""Samples of known laws: exact ones pass every test, and a fault is found to be as large as it is."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from conftest import BASE, OTHERS, make_problem
from mixtures import make_mixture
from networks import near
from subjects import exact_samples, make_subject, seeded, widened

from utils.evaluation import sample_metrics as metrics
from utils.evaluation.estimates import NoValue
from utils.physics.torus import wrap
from utils.score.networks import AnalyticalScoreNetwork

SIGMA_0 = math.sqrt(0.01**2 + 0.001**2)


def two_gaussians(schedule, weights=(1.0, 4.0), widths=(0.01, 0.03), positions=([[0.2]], [[0.7]])):
    return AnalyticalScoreNetwork(make_mixture([*zip(weights, widths, positions, strict=True)]), schedule)


def test_a_mixture_is_told_from_one_with_its_weights_or_widths_exchanged(schedule):
    """Of 5,000 samples one fifth is in the first mode: a law that expects four fifths there cannot be overlooked."""
    truth = two_gaussians(schedule)
    x = exact_samples(truth, 5_000)
    exact = make_subject(truth, truth, x)
    assert near(metrics.mode_occupancy(exact), 1) and metrics.mode_occupancy_p_value(exact).value > 1e-3
    swapped, exchanged = two_gaussians(schedule, weights=(4.0, 1.0)), two_gaussians(schedule, widths=(0.03, 0.01))
    other, narrow = (make_subject(law, law, x) for law in (swapped, exchanged))
    assert metrics.mode_occupancy(other).value == pytest.approx(0.25, abs=0.02)  # three errors; 1/5 where 4/5 should be
    assert metrics.mode_occupancy_p_value(other).value < 1e-9
    assert metrics.radial_p_value(other).value > 1e-3 and near(metrics.width_ratio(other), 1)  # in widths all is well
    assert metrics.radial_p_value(narrow).value < 1e-9 and metrics.stray_fraction(narrow)[0].value > 0.05


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_overlapping_modes_have_no_occupancy_and_no_radial_distribution(factor, schedule):
    """They overlap where their distance is less than the sum of their stray radii, across the seam as well."""
    law = two_gaussians(schedule).problem
    distance = factor * law.stray_radius * law.mode_widths(torch.tensor([0.001])).sum().item()
    truth = two_gaussians(schedule, positions=([[0.95]], [[0.95 + distance - 1]]))
    for name in ("mode_occupancy", "mode_occupancy_p_value", "radial_ks", "radial_p_value"):
        with pytest.raises(NoValue, match="modes overlap") if factor < 1 else nullcontext():
            assert getattr(metrics, name)(make_subject(truth, truth)).value >= 0


def test_strays_are_those_farther_than_five_widths_from_every_mode(truth):
    modes, r = truth.problem.modes(), 5 * SIGMA_0 / math.sqrt(2)
    between = torch.tensor([[[0.5], [0.5]], [[0.0], [0.0]]])
    x = wrap(torch.cat([modes, modes + 0.999 * r, modes - 1.001 * r, between]))
    expected = [0, 0, 4.995, 4.995, 5.005, 5.005, *[math.sqrt(1 / 8) / SIGMA_0] * 2]
    radii = metrics.radii(truth.problem, x, truth.schedule.sigma(torch.tensor(0.0)))
    assert radii.tolist() == pytest.approx(expected, abs=1e-4)  # rounding of float32 on the cell
    estimate, _ = metrics.stray_fraction(make_subject(truth, truth, x))
    assert estimate[:3] == pytest.approx((0.5, math.sqrt(0.25 / 8), 8))


def test_curves_take_the_width_of_their_time_and_the_scalar_is_that_of_the_end(truth):
    """At 6 widths of the end all are strays, and their log-density is (2 - 36) / 2 nats below that of exact samples;
    at t = 0.5 and 1 the modes are wider than that."""
    x = wrap(truth.problem.modes()[:1] + 6 * SIGMA_0 * torch.tensor([[[1.0], [0.0]]])).repeat(2_000, 1, 1)
    start = truth.problem.sample_noised(truth.schedule.sigma(torch.ones(2_000)), seeded(1))
    subject = make_subject(truth, truth, {1.0: start, 0.5: x, 0.0: x})
    strays, curve = metrics.stray_fraction(subject)
    assert strays.value == 1 and curve.t == [1.0, 0.5, 0.0] and curve.value == [0, 0, 1]
    drift, curve = metrics.law_drift(subject)
    assert near(drift, -17) and curve.t == [1.0, 0.5, 0.0] and curve.value[2] == drift.value
    assert abs(curve.value[0]) < 4 * curve.standard_error[0]


@pytest.mark.parametrize("width", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_width_ratio_of_samples_of_known_width_whatever_strays(coordinates, width, schedule):
    truth, n = AnalyticalScoreNetwork(make_problem(coordinates), schedule), 4_000
    modes = truth.problem.modes()
    chosen = modes[torch.randint(len(modes), (n,), generator=seeded())]
    close = wrap(chosen + width * SIGMA_0 * torch.randn(chosen.shape, generator=seeded(1)))
    far = wrap(modes[:1].expand(50, *modes[0].shape) + 0.12)
    estimate = metrics.width_ratio(make_subject(truth, truth, torch.cat([close, far])))
    assert abs(estimate.value - width) < 4.5 * estimate.standard_error + (0.02 if width > 1 else 0)  # the cut at 5
    assert estimate.standard_error == pytest.approx(width / math.sqrt(2 * close.numel()), rel=0.05)
    assert estimate.number_of_points == pytest.approx(n, abs=0.02 * n)


def near_modes(problem, counts):
    """So many samples of the law about each mode, and strays, all of them nearest to the first mode."""
    chosen = problem.modes().repeat_interleave(torch.tensor(counts), 0)
    strays = problem.modes()[:1].expand(300, *problem.shape) + 0.12
    return wrap(chosen + SIGMA_0 * torch.randn(chosen.shape, generator=seeded())), wrap(strays)


def test_occupancy_is_of_the_cores_and_its_p_value_that_of_their_imbalance(truth):
    subject = make_subject(truth, truth, torch.cat(near_modes(truth.problem, (560, 440))))
    share = metrics.mode_occupancy(subject)
    assert share.value == 560 / 500 and share.number_of_points == 1_000
    assert share.interval[0] < share.value < share.interval[1] < share.value + 0.1
    z = (560 - 440) / math.sqrt(1_000)  # of a fair coin
    assert metrics.mode_occupancy_p_value(subject).value == pytest.approx(math.erfc(z / math.sqrt(2)), abs=1e-12)


def test_strays_are_no_ones_neighbours_and_those_across_the_seam_are(truth, schedule):
    """Strays would be a thousand times as far from the training set as the others. On both sides of 0, a sample is 2e-4
    from the only training point and an exact draw about 8e-3."""
    seam = AnalyticalScoreNetwork(make_problem([[0.0]]), schedule)
    x, data = torch.full((50, 1, 1), 1e-4), torch.full((1, 1, 1), 0.9999)
    assert 0.01 < metrics.nearest_neighbour_ratio(make_subject(seam, seam, x, training_set=data)).value < 0.05
    x, strays = near_modes(truth.problem, (500, 500))
    data = truth.problem.sample(1_000, seeded(5))
    found = metrics.nearest_neighbour_ratio(make_subject(truth, truth, torch.cat([x, strays]), training_set=data))
    assert near(found, 1) and found.standard_error < 0.125 and found.number_of_points == 1_000
    for metric in (metrics.width_ratio, metrics.mode_occupancy, metrics.nearest_neighbour_ratio):
        with pytest.raises(NoValue, match="hardly a sample is near a mode"):
            metric(make_subject(truth, truth, strays))


def test_radial_interval_leaves_out_0_where_the_p_value_is_below_5_percent_and_the_distance_is_known(truth):
    """Exact and slightly wide radii: for many points the band is that of Kolmogorov's test. The laws of r for
    widths 1 and w are furthest apart where their densities cross, at r^2 = 4 w^2 ln w / (w^2 - 1)."""
    decided = []
    for width, seed in itertools.product((1.0, 1.03, 1.06), range(40)):
        x = truth.problem.modes()[:1] + width * SIGMA_0 * torch.randn(1_000, 2, 1, generator=seeded(seed))
        subject = make_subject(truth, truth, wrap(x))
        p_value = metrics.radial_p_value(subject).value
        if abs(p_value - 0.05) > 0.005:
            decided.append((metrics.radial_ks(subject).interval[0] > 0, p_value < 0.05))
    assert all(left_out == small for left_out, small in decided) and {small for _, small in decided} == {True, False}
    for w in (1.06, 1.5):
        crossing, x = 4 * w**2 * math.log(w) / (w**2 - 1), widened(truth, exact_samples(truth, 6_000), w)
        distance = metrics.radial_ks(make_subject(truth, truth, x))
        assert near(distance, math.exp(-crossing / (2 * w**2)) - math.exp(-crossing / 2))


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_transport_finds_a_shift_across_the_seam_and_relabels_atoms(coordinates, schedule):
    problem = make_problem(coordinates)
    x = exact_samples(AnalyticalScoreNetwork(problem, schedule), 400)
    for same in (x, x.flip(1) if problem.shape[0] == 2 else x):
        assert metrics.transport_distance(x, same, problem, 200).value < 1e-6
    blockwise = torch.cat([block[torch.randperm(200, generator=seeded(1))] for block in x.split(200)])
    x, y = (0.999 + x) % 1, (0.999 + blockwise + 0.0005) % 1
    size = 0.0005 * math.sqrt(x[0].numel())  # a common shift of all is transported point by point
    assert metrics.transport_distance(x, y, problem, 200).value == pytest.approx(size, rel=1e-3)
    fixed = make_problem([[0.25], [0.6]], permutation_symmetric=False)  # not half a cell apart, where images compete
    x = exact_samples(AnalyticalScoreNetwork(fixed, schedule), 100)
    assert metrics.transport_distance(x, x.flip(1), fixed).value == pytest.approx(math.sqrt(2) * 0.35, rel=0.01)


def test_transport_takes_whole_blocks_alone(truth):
    """The few samples of a smaller block lie far from each other: they are no part of the same mean."""
    x, y = (exact_samples(truth, 1_010, seed) for seed in (1, 2))
    whole = metrics.transport_distance(x[:1_000], y[:1_000], truth.problem)
    assert metrics.transport_distance(x, y, truth.problem) == whole and whole.number_of_points == 1_000
    assert whole.standard_error > 0
    for n in (499, 501):
        alone = metrics.transport_distance(x[:n], y[:n], truth.problem)
        assert alone.standard_error is None and alone.number_of_points == min(n, 500)
        assert alone.value == pytest.approx(whole.value, rel=0.1)


def test_transport_distance_has_that_of_two_exact_sets_as_its_control(truth):
    x = exact_samples(truth, 500)
    exact, wide = (make_subject(truth, truth, widened(truth, x, factor), transport=400) for factor in (1, 1.5))
    control = metrics.wasserstein_2_control(exact)
    assert control == metrics.wasserstein_2_control(wide) and control.number_of_points == 400
    assert metrics.wasserstein_2(exact).value == pytest.approx(control.value, rel=0.2)
    assert metrics.wasserstein_2(wide).value > 1.5 * control.value
