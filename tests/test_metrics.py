"""The metrics, where their value is known."""

import math

import pytest
import torch
from conftest import BASE, OTHERS, make_problem

from utils import metrics
from utils.noise_schedule import LinearSchedule, time_grid
from utils.score_networks import AnalyticalScoreNetwork
from utils.torus import wrap

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


# Measured widths of a mode in units of sigma_d, on linspace(0, 1, N + 1); the target is sigma_0 = 1.005 sigma_d.
@pytest.mark.parametrize(("steps", "width"), [(21, 1.147), (50, 1.061), (100, 1.032), (500, 1.010)])
def test_width_that_the_predictor_reaches(steps, width, problem, schedule):
    ratio = metrics.sampler_width_ratio(problem, schedule, time_grid(steps))
    assert ratio * SIGMA_0 / problem.sigma_d == pytest.approx(width, abs=6e-4)  # known to three decimals


def test_width_that_the_predictor_reaches_converges_to_the_stationary_one(problem, schedule):
    excess = [metrics.sampler_width_ratio(problem, schedule, time_grid(n)) - 1 for n in (1_000, 2_000)]
    assert excess[0] / excess[1] == pytest.approx(2, rel=0.02)  # first order in the step
    assert metrics.stationary_width(problem, schedule) == pytest.approx(SIGMA_0, rel=1e-12)
