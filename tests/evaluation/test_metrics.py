"""The metrics, where their value is known."""

import math

import pytest
import torch
from conftest import BASE, OTHERS, make_problem

from utils.evaluation import sample_metrics as metrics
from utils.evaluation.estimates import BINS, Points, by_bin, points_under_both_laws
from utils.physics.noise_schedule import LinearSchedule, time_grid
from utils.physics.torus import wrap
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

SIGMA_0 = math.sqrt(0.01**2 + 0.001**2)


class Off(AnalyticalScoreNetwork):
    """The exact normalised score plus an error that depends on t alone."""

    def __init__(self, truth, error):
        super().__init__(truth.problem, truth.schedule)
        self.error = error

    def forward(self, x, t):
        return super().forward(x, t) + self.error(t)[:, None, None]


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_path_kl_of_a_constant_error_is_rate_times_components_times_its_square(coordinates, schedule, generator):
    truth = AnalyticalScoreNetwork(make_problem(coordinates), schedule)
    estimate = metrics.path_kl(Off(truth, lambda t: 0.3 + 0 * t), truth, 500, generator)
    # float32 rounding of a score up to 20 times as large as the error
    assert estimate.value == pytest.approx(math.log(200) * truth.problem.modes()[0].numel() * 0.09, rel=1e-5)
    assert estimate.standard_error < 1e-5 and estimate.number_of_points == 500


def test_path_kl_integrates_sigma_sigma_dot_over_t(generator):
    """On the linear schedule sigma D = sigma^2 gives 2 integral of sigma^3 d sigma = (0.2^4 - 0.001^4) / 2."""
    schedule = LinearSchedule(sigma_min=0.001, sigma_max=0.2)
    truth = AnalyticalScoreNetwork(make_problem(), schedule)
    estimate = metrics.path_kl(Off(truth, lambda t: schedule.sigma(t) ** 2), truth, 20_000, generator)
    assert estimate.value == pytest.approx(0.2**4 / 2, abs=4.5 * estimate.standard_error)
    assert estimate.standard_error < 0.01 * estimate.value


def test_truth_is_without_error(truth, generator):
    assert metrics.path_kl(truth, truth, 100, generator)[:2] == (0, 0)


def test_standard_error_is_that_of_repeated_estimates_and_halves_when_points_quadruple(truth):
    network = Off(truth, lambda t: t)  # its path KL density, 2 L t^2, has mean 2 L / 3 and variance (2 L)^2 4 / 45
    few, many = (
        [metrics.path_kl(network, truth, n, torch.Generator().manual_seed(seed)) for seed in range(60)]
        for n in (100, 400)
    )
    for estimates, n in ((few, 100), (many, 400)):
        values = torch.tensor([estimate.value for estimate in estimates])
        expected = 2 * math.log(200) * math.sqrt(4 / 45 / n)
        assert values.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * 60))  # 60 values: 9 % each
        assert values.mean().item() == pytest.approx(2 * math.log(200) / 3, abs=4.5 * expected / math.sqrt(60))
        stated = torch.tensor([estimate.standard_error for estimate in estimates])
        assert stated.mean().item() == pytest.approx(expected, rel=0.03)
    assert sum(e.standard_error for e in few) / sum(e.standard_error for e in many) == pytest.approx(2, rel=0.03)


def test_score_error_of_a_constant_error_is_its_size_in_every_average(truth, generator):
    """In float32; the scale, the size of the score itself, is not that of the error."""
    points = points_under_both_laws(truth, 40, generator)["uniform"]
    scalars, curves = metrics.score_error(Off(truth, lambda t: 0.3 + 0 * t), truth, points)
    for name in ("score_error", "score_error_median", "score_error_off_ridges"):
        assert scalars[name].value == pytest.approx(0.3, rel=1e-5)
    for name in ("score_error", "score_error_median"):
        assert curves[name].value == pytest.approx([0.3] * BINS, rel=1e-5)
    size = by_bin(truth(*points).square().mean((-2, -1))).mean(1).sqrt()
    assert curves["size"].value == pytest.approx(size.tolist(), rel=1e-5)
    assert curves["score_error_relative"].value == pytest.approx((0.3 / size).tolist(), rel=1e-5)


def test_a_point_is_on_a_ridge_where_an_assignment_weighs_less_than_e_squared_times_the_other(truth, generator):
    """At x_2 = x_1 + r about 1/2 the squared distances from the modes differ by r: r / (2 sigma_eff^2) nats."""
    t = torch.full((20 * 50,), 0.5)
    width = truth.problem.effective_sigma(truth.schedule.sigma(t[:1])).item()
    nats = 10 * torch.rand(len(t), generator=generator)
    r = 2 * width**2 * nats
    x = torch.stack([0.5 - r / 2, 0.5 + r / 2], 1)[:, :, None]
    scalars, _ = metrics.score_error(Off(truth, lambda t: 0.3 + 0 * t), truth, Points(x, t))
    on_ridge = int((nats < 2).sum())
    assert scalars["score_error_on_ridges"].number_of_points == pytest.approx(on_ridge, abs=1)  # rounding of float32
    assert scalars["score_error_off_ridges"].number_of_points == pytest.approx(len(t) - on_ridge, abs=1)


class Zero(ScoreNetwork):
    """A score of nothing, which is as far from another one as that is large."""

    def forward(self, x, t):
        return 0 * x


def test_memorisation_is_judged_where_the_noised_training_set_is(truth, generator):
    """One point, a = (0.02, -0.01) from a mode, twice with its relabelling: E|N_e|^2 = 1 and, since nothing wraps or
    overlaps, E|N|^2 = sigma^2 (|a|^2 / 2 + sigma^2) / sigma_eff^4."""
    training_set, t = torch.tensor([[[0.27], [0.74]]]), torch.tensor([0.3])
    variance = truth.schedule.sigma(t).item() ** 2
    exact = variance * ((0.02**2 + 0.01**2) / 2 + variance) / (0.01**2 + variance) ** 2
    found = metrics.memorisation(Zero(truth.schedule), truth, training_set, t, 3_000, generator)
    assert abs(found.value - 1 / (1 + exact)) < 4 * found.standard_error < 0.05


def test_stray_fraction_counts_who_is_farther_than_five_widths_from_every_mode(problem):
    modes, r = torch.tensor([[[0.25], [0.75]], [[0.75], [0.25]]]), 5 * SIGMA_0 / math.sqrt(2)
    inside, outside = (modes + sign * factor * r for sign, factor in ((1, 0.999), (-1, 1.001)))
    between = torch.tensor([[[0.5], [0.5]], [[0.0], [0.0]]])
    x = wrap(torch.cat([modes, inside, outside, between]))
    distance = metrics.distance_to_nearest_mode(x, problem)
    expected = [0, 0, 0.999 * 5 * SIGMA_0, 0.999 * 5 * SIGMA_0, 1.001 * 5 * SIGMA_0, 1.001 * 5 * SIGMA_0]
    assert distance.tolist() == pytest.approx([*expected, math.sqrt(1 / 8), math.sqrt(1 / 8)], abs=1e-6)
    estimate = metrics.stray_fraction(distance, SIGMA_0)
    assert estimate[:3] == pytest.approx((0.5, math.sqrt(0.25 / 8), 8))


def test_distance_to_a_mode_is_periodic():
    problem = make_problem([[0.01], [0.5]])
    x = torch.tensor([[[0.98], [0.5]], [[0.5], [0.99]]])
    assert metrics.distance_to_nearest_mode(x, problem).tolist() == pytest.approx([0.03, 0.02], abs=1e-6)


@pytest.mark.parametrize("width", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_width_ratio_of_samples_of_known_width_whatever_strays(coordinates, width, generator):
    problem = make_problem(coordinates)
    modes, n = problem.modes(), 4_000
    chosen = modes[torch.randint(len(modes), (n,), generator=generator)]
    near = wrap(chosen + width * SIGMA_0 * torch.randn(chosen.shape, generator=generator))
    far = wrap(modes[:1].expand(50, *modes[0].shape) + 0.12)
    estimate = metrics.width_ratio(torch.cat([near, far]), problem, SIGMA_0)
    assert abs(estimate.value - width) < 4.5 * estimate.standard_error + (0.02 if width > 1 else 0)  # the cut at 5
    assert estimate.standard_error == pytest.approx(width / math.sqrt(2 * near.numel()), rel=0.05)
    assert estimate.number_of_points == pytest.approx(n, abs=0.02 * n)


def near_modes(problem, counts, generator):
    """So many samples of the law about each mode, and strays, all of them nearest to the first mode."""
    chosen = problem.modes().repeat_interleave(torch.tensor(counts), 0)
    strays = problem.modes()[:1].expand(300, *problem.shape) + 0.12
    return wrap(chosen + SIGMA_0 * torch.randn(chosen.shape, generator=generator)), wrap(strays)


@pytest.mark.parametrize("counts", [(500, 500), (560, 440)])
def test_occupancy_is_of_the_cores_and_its_p_value_that_of_their_imbalance(counts, problem, generator):
    share, p_value = metrics.mode_occupancy(torch.cat(near_modes(problem, counts, generator)), problem, SIGMA_0)
    assert share.value == counts[0] / 500 and share.number_of_points == 1_000
    assert share.interval[0] < share.value < share.interval[1] < share.value + 0.1
    z = (counts[0] - counts[1]) / math.sqrt(1_000)  # of a fair coin
    assert p_value.value == pytest.approx(math.erfc(z / math.sqrt(2)), abs=1e-12)


def test_strays_are_no_ones_neighbours(truth, generator):
    """They would be a thousand times as far from the training set as the others."""
    data = truth.problem.sample(1_000, torch.Generator().manual_seed(5))
    x, strays = near_modes(truth.problem, (500, 500), generator)
    found = metrics.nearest_neighbour_ratio(torch.cat([x, strays]), data, truth, generator)
    assert abs(found.value - 1) < 4 * found.standard_error < 0.5 and found.number_of_points == 1_000


def test_radial_interval_leaves_out_0_where_the_p_value_is_below_5_percent(generator):
    """Exact and slightly wide radii: for many points the band is that of Kolmogorov's test."""
    found = [
        metrics.radial_law(width * torch.randn(1_000, 2, generator=generator).norm(dim=1), 1.0, 2)
        for width in (1.0, 1.03, 1.06)
        for _ in range(40)
    ]
    decided = [(ks.interval[0] > 0, p.value < 0.05) for ks, p in found if abs(p.value - 0.05) > 0.005]
    assert all(left_out == small for left_out, small in decided) and {small for _, small in decided} == {True, False}


def test_error_of_the_radial_distance_is_its_spread_where_the_laws_differ(generator):
    """300 repeats know it to 4 %; the largest of many gaps varies a little less than the gap at one place."""
    radii = 1.2 * torch.randn(300, 1_000, 2, generator=generator).norm(dim=2)
    found = [metrics.radial_law(row, 1.0, 2)[0] for row in radii]
    values, errors = (torch.tensor([ks[i] for ks in found]) for i in range(2))
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.17)


# Measured widths of a mode in units of sigma_d, on linspace(0, 1, N + 1); the target is sigma_0 = 1.005 sigma_d.
@pytest.mark.parametrize(("steps", "width"), [(21, 1.147), (50, 1.061), (100, 1.032), (500, 1.010)])
def test_width_that_the_predictor_reaches(steps, width, problem, schedule):
    ratio = metrics.sampler_width_ratio(problem, schedule, time_grid(steps))
    assert ratio * SIGMA_0 / problem.sigma_d == pytest.approx(width, abs=6e-4)  # known to three decimals


def test_width_that_the_predictor_reaches_converges_to_the_stationary_one(problem, schedule):
    excess = [metrics.sampler_width_ratio(problem, schedule, time_grid(n)) - 1 for n in (1_000, 2_000)]
    assert excess[0] / excess[1] == pytest.approx(2, rel=0.02)  # first order in the step
    assert metrics.stationary_width(problem, schedule) == pytest.approx(SIGMA_0, rel=1e-12)
