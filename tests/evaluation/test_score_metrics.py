"""The error of the score, where it is known: against a constant error, a wrong width, and a network that remembers."""

import math

import pytest
import torch
from conftest import make_problem
from networks import Zero, near
from subjects import PROBLEMS, SCHEDULES, Given, make_subject, seeded, wrong_width

from utils.evaluation import score_metrics as metrics
from utils.evaluation.estimates import BINS, NoValue, points_at
from utils.evaluation.registry import WHERE
from utils.physics.empirical import empirical_score
from utils.physics.noise_schedule import ExponentialSchedule
from utils.score.networks import AnalyticalScoreNetwork


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_constant_error_is_its_size_in_every_average(problem, schedule):
    """Its path KL is rate times components times its square. All in float32, of a score up to 20 times as large."""
    truth = AnalyticalScoreNetwork(problem, schedule)
    subject = make_subject(Given(truth, lambda x, t: truth(x, t) + 0.3), truth, path_kl=500, per_bin=20)
    estimate = metrics.path_kl(subject)
    assert estimate.value == pytest.approx(math.log(200) * math.prod(problem.shape) * 0.09, rel=1e-5)
    assert estimate.standard_error < 1e-5 and estimate.number_of_points == 500
    for scalar, curve in (metrics.score_error(subject, "uniform"), metrics.score_error_median(subject, "uniform")):
        assert scalar.value == pytest.approx(0.3, rel=1e-5)
        assert curve.value == pytest.approx([0.3] * BINS, rel=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_path_kl_follows_from_the_excess_loss(schedule, symmetric):
    """Without wrapping N is linear, D known: the path KL of a wrong sigma_d is a one-dimensional integral."""
    truth = AnalyticalScoreNetwork(make_problem(permutation_symmetric=symmetric), schedule)
    subject = make_subject(wrong_width(truth, 0.02), truth, path_kl=40_000, per_bin=1_000)
    direct, from_loss = metrics.path_kl(subject), metrics.path_kl_from_loss(subject)
    assert near(metrics.path_kl_disagreement(subject), 0)
    assert abs(from_loss.value - direct.value) < 4 * math.hypot(from_loss.standard_error, direct.standard_error)
    t = torch.linspace(0, 1, 20_001).double()
    sigma, rate = schedule.sigma(t), schedule.sigma_dot(t)
    width, wrong = 0.01**2 + sigma**2, 0.02**2 + sigma**2
    exact = torch.trapezoid(2 * sigma * rate * width * (1 / wrong - 1 / width) ** 2, t).item()
    assert near(direct, exact)
    if isinstance(schedule, ExponentialSchedule):  # L x components x excess, and the weights are constant
        assert from_loss.value == pytest.approx(schedule.rate * 2 * metrics.excess_loss(subject).value, rel=1e-5)


@pytest.mark.parametrize("problem", [*PROBLEMS, make_problem(permutation_symmetric=False)])
@pytest.mark.parametrize("where", WHERE)
def test_twice_the_truth_has_a_relative_error_of_1_and_the_size_of_the_truth_as_its_error(problem, where, schedule):
    truth = AnalyticalScoreNetwork(problem, schedule)
    twice = make_subject(Given(truth, lambda x, t: 2 * truth(x, t)), truth, per_bin=40)
    assert metrics.score_error_relative(twice, where).value == pytest.approx(1, abs=1e-6)
    sizes = truth(*points_at(where, truth, 40, twice.generator("score error"))).square().mean((-2, -1))
    for scalar, curve in (metrics.exact_score_size(twice, where), metrics.score_error(twice, where)):
        assert scalar.value == pytest.approx(sizes.mean().sqrt().item(), rel=1e-5)
        assert curve.value == pytest.approx(sizes.view(BINS, -1).mean(1).sqrt().tolist(), rel=1e-5)


def test_a_point_is_on_a_ridge_where_a_mode_weighs_less_than_e_squared_times_the_other(truth, monkeypatch):
    """At x_2 = x_1 + r about 1/2 the squared distances from the modes differ by r: r / (2 width^2) nats."""
    t = torch.full((BINS * 50,), 0.5)
    nats = 10 * torch.rand(len(t), generator=seeded())
    r = 2 * truth.problem.mode_widths(truth.schedule.sigma(t))[:, 0] ** 2 * nats
    points = torch.stack([0.5 - r / 2, 0.5 + r / 2], 1)[:, :, None], t
    monkeypatch.setattr(metrics, "points_at", lambda *_: points)
    network = Given(truth, lambda x, t: truth(x, t) + torch.where(nats < 2, 0.3, 0.1)[:, None, None])
    subject, on_ridge = make_subject(network, truth), int((nats < 2).sum())
    for variant, number, error in (("on", on_ridge, 0.3), ("off", len(t) - on_ridge, 0.1)):
        found = metrics.score_error_ridges(subject, variant, "noised")
        assert found.number_of_points == pytest.approx(number, abs=1)  # rounding of float32
        assert found.value == pytest.approx(error, rel=0.01)  # of one point on the wrong side
    monkeypatch.undo()
    single = AnalyticalScoreNetwork(make_problem([[0.4]]), truth.schedule)
    for subject, variant in ((make_subject(truth, truth), "on"), (make_subject(single, single), "off")):
        with pytest.raises(NoValue, match="a single mode, or too few points"):
            metrics.score_error_ridges(subject, variant, "noised")


def test_distance_from_memory_is_0_for_the_training_set_by_heart_and_1_for_the_truth(truth):
    data, other = (truth.problem.sample(500, seeded(i)) for i in range(2))
    centres, sigma = truth.problem.permuted(data), truth.schedule.sigma
    by_heart = Given(truth, lambda x, t: empirical_score(centres, x, sigma(t))[0])
    assert metrics.distance_from_memory(make_subject(by_heart, truth, training_set=data)).value == 0
    assert metrics.distance_from_memory(make_subject(truth, truth, training_set=data)).value == 1
    assert 0 < metrics.distance_from_memory(make_subject(by_heart, truth, training_set=other)).value < 1
    noisy = AnalyticalScoreNetwork(truth.problem, ExponentialSchedule(sigma_min=0.05, sigma_max=0.2))
    with pytest.raises(NoValue, match=r"wider than 0\.05 at all times"):
        metrics.distance_from_memory(make_subject(noisy, noisy))


def test_distance_from_memory_is_taken_where_the_noised_training_set_is(truth, monkeypatch):
    """One point, a = (0.02, -0.01) from a mode, twice with its relabelling: E|N_e|^2 = 1 and, since nothing wraps or
    overlaps, E|N|^2 = sigma^2 (|a|^2 / 2 + sigma^2) / width^4."""
    monkeypatch.setattr(metrics, "MEMORY_TIMES", (0.3,))
    point = torch.tensor([[[0.27], [0.74]]])
    subject = make_subject(Zero(truth.schedule, (2, 1)), truth, training_set=point, memory=3_000)
    variance = truth.schedule.sigma(torch.tensor(0.3)).item() ** 2
    exact = variance * ((0.02**2 + 0.01**2) / 2 + variance) / (0.01**2 + variance) ** 2
    found = metrics.distance_from_memory(subject)
    assert near(found, 1 / (1 + exact)) and found.standard_error < 0.0125 and found.number_of_points == 3_000


def test_training_set_has_an_error_that_falls_with_its_size_and_no_value_where_few_make_the_score(truth):
    errors = []
    for size in (400, 6_400):
        data = truth.problem.sample(size, seeded())
        curve = metrics.data_limit(make_subject(truth, truth, training_set=data, per_bin=40))[1]
        assert curve.value[0] is None and curve.value[-1] is not None
        errors.append(curve.value[-1])
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.5)  # the root of the ratio of the sizes
    with pytest.raises(NoValue, match="fewer than 100 configurations"):
        metrics.data_limit(make_subject(truth, truth, training_set=data[:20]))
