"""Whether a field is a score: residual, curl, circulation and consistency, where their values are known."""

import pytest
import torch
from conftest import make_network, make_problem
from networks import Curl, near
from subjects import Given, make_subject, seeded

from utils.evaluation import field_metrics as metrics
from utils.evaluation.estimates import BINS, points_at
from utils.physics.noise_schedule import ExponentialSchedule
from utils.score.networks import AnalyticalScoreNetwork
from utils.score.residuals import fokker_planck_residual


def test_curl_of_a_rotation_is_one_half_and_on_the_diagonal_all_of_it(truth, schedule, monkeypatch):
    """tr J J is proportional to -cos cos, whose mean is 0 under uniform points; at x = y it is -tr J J^T."""
    subject = make_subject(Curl(schedule, (2, 1)), truth, per_bin=300)
    assert near(metrics.curl(subject, "uniform"), 0.5)
    x, t = points_at("uniform", truth, 10, seeded())
    diagonal = x[:, :1].expand(-1, 2, 1), t
    monkeypatch.setattr(metrics, "points_at", lambda *_: diagonal)
    assert metrics.curl(make_subject(Curl(schedule, (2, 1)), truth), "uniform").value == pytest.approx(1, abs=1e-12)


def test_circulation_of_a_constant_is_the_constant_and_of_a_periodic_derivative_nothing(truth):
    """The latter integrates to 0 on every single line, all the way round, not only on average."""
    constant = Given(truth, lambda x, t: torch.tensor([[2.0], [-3.0]]).expand_as(x))  # no curl, and yet no gradient
    assert [c.value for c in metrics.circulation(make_subject(constant, truth))] == pytest.approx([2, -3], abs=1e-6)
    wave = Given(truth, lambda x, t: torch.sin(2 * torch.pi * x))
    for circulation in metrics.circulation(make_subject(wave, truth)):
        assert abs(circulation.value) < 1e-6 and circulation.standard_error < 1e-6  # float32


def test_residual_scalars_are_the_mean_and_median_of_the_residual(truth, schedule):
    subject = make_subject(make_network(schedule), truth, per_bin=30)
    points = [a.double() for a in points_at("noised", truth, 30, subject.generator("field"))]
    for form in metrics.FORMS:
        squares = fokker_planck_residual(subject.precise, *points, form).square().mean(1)
        scalar, curve = metrics.residual(subject, form, "noised")
        assert scalar.value == pytest.approx(squares.mean().sqrt().item(), rel=1e-9) and scalar.value > 1e-3
        assert curve.value == pytest.approx(squares.view(BINS, -1).mean(1).sqrt().tolist(), rel=1e-9)
        median = metrics.residual_median(subject, form, "noised")
        assert median.value == pytest.approx(squares.sqrt().median().item(), rel=0.02)  # torch takes the lower of two


@pytest.mark.parametrize(("fraction", "share"), [(0.9, 0.2), (0.5, 1.0)])
def test_consistency_gap_and_error_of_too_small_a_score_are_their_known_size(fraction, share, monkeypatch):
    """One Gaussian, hardly wrapped: a step takes the mean of u, the displacement, to u (1 - a g / width^2) with the
    fraction a of the score, so the gap is linear in u; with a = 1, for any width, it vanishes."""
    schedule = ExponentialSchedule(sigma_min=0.001, sigma_max=0.05)
    truth = AnalyticalScoreNetwork(make_problem([[0.5]], permutation_symmetric=False), schedule)
    t = torch.full((20_000,), 0.6)
    points = truth.problem.sample_noised(schedule.sigma(t), seeded()), t
    monkeypatch.setattr(metrics, "points_at", lambda *_: points)
    subject = make_subject(Given(truth, lambda x, t: fraction * truth(x, t)), truth)
    (error, _), (gap, _) = metrics.consistency_error(subject, "noised"), metrics.consistency_gap(subject, "noised")

    variances = schedule.sigma(torch.linspace(0.55, 0.6, 6).double()) ** 2
    widths = 0.01**2 + variances
    mean = torch.prod(1 - fraction * variances.diff() / widths[1:])
    slope = fraction * variances[-1].sqrt() * (1 / widths[-1] - mean / widths[0])  # of sigma times the gap, in u
    exact = (slope**2 * widths[-1]).item()
    assert near(error, exact) and near(gap, exact)
    precise = gap if fraction == 0.5 else error  # the gap where it is large, the error also where it is small
    assert precise.standard_error < 0.2 * exact and error.standard_error < share * gap.standard_error
