"""The density of the probability-flow ODE's samples, against closed forms and against the samples themselves."""

import math

import pytest
import torch
from conftest import make_network, make_problem
from mixtures import make_mixture
from networks import near
from subjects import Given, make_subject, seeded, wrong_width
from torch.distributions import Normal

from utils.evaluation import ode_metrics as metrics
from utils.evaluation.estimates import Estimate, NoValue
from utils.physics.noise_schedule import ExponentialSchedule
from utils.score.networks import AnalyticalScoreNetwork

NARROW = ExponentialSchedule(sigma_min=0.001, sigma_max=0.06)  # at t = 1 the seam is 8 widths away


def end_variance(network, truth):
    """The score of width w carries the exact Gaussian at t = 1 back to one of this variance: the ODE is linear."""
    wrong, exact = network.problem.sigma_d**2, truth.problem.sigma_d**2
    return (wrong + 0.001**2) * (exact + 0.06**2) / (wrong + 0.06**2)


@pytest.mark.parametrize("law", [make_problem(), make_mixture([(1.0, 0.02, [[0.3]]), (2.5, 0.04, [[0.8]])])])
def test_truth_has_no_divergence(law, schedule):
    truth = AnalyticalScoreNetwork(law, schedule)
    subject = make_subject(truth, truth, ode_points=20, ode_samples=40)
    found, strays = metrics.ode_kl(subject), metrics.ode_stray_fraction(subject)
    assert near(found, 0, 1) and found.standard_error < 2e-3  # all of it is the solver's
    assert (found.number_of_points, strays.number_of_points, strays.value) == (20, 40, 0)


def test_samples_are_drawn_from_the_density_that_their_paths_give():
    """A wrong width of a Gaussian, so wide that some are strays."""
    truth = AnalyticalScoreNetwork(make_problem([[0.3]]), NARROW)
    network = wrong_width(truth, 0.03)
    start = truth.problem.sample_noised(NARROW.sigma(torch.ones(1_000).double()), seeded())
    x, _ = metrics.probability_flow(network, start, (1, 0), density=False)
    v = end_variance(network, truth)
    u = (x - 0.3).flatten()
    assert near(Estimate.of_mean(u**2), v)
    log_q = -0.5 * (u**2 / v + math.log(2 * math.pi * v))
    assert torch.allclose(metrics.ode_log_density(network, truth, x), log_q, rtol=0, atol=1e-2)
    subject = make_subject(network, truth, ode_points=40, ode_samples=2_000)
    radius = truth.problem.stray_radius * math.sqrt((0.01**2 + 0.001**2) / v)
    beyond = 2 * Normal(0, 1).cdf(torch.tensor(-radius)).item()
    assert beyond > 0.03 and near(metrics.ode_stray_fraction(subject), beyond)


def test_kl_of_a_wrong_width_is_the_closed_form():
    """Unsymmetrised and hardly wrapped: the KL divergence of two isotropic Gaussians in two dimensions."""
    truth = AnalyticalScoreNetwork(make_problem(permutation_symmetric=False), NARROW)
    network = wrong_width(truth, 0.015)
    ratio = (0.01**2 + 0.001**2) / end_variance(network, truth)
    exact = ratio - 1 - math.log(ratio)
    found = metrics.ode_kl(make_subject(network, truth, ode_points=1_000))
    assert found.standard_error < 0.12 * exact and near(found, exact)


def test_control_variate_takes_off_the_noise_and_leaves_the_mean():
    """Of two Gaussians, q a little wider than p; by hand, and beside the mean of the same draws."""
    x = torch.randn(1_000, dtype=torch.float64, generator=seeded())
    p, q = Normal(0, 1), Normal(0.05, 1.1)
    draws, none = p.log_prob(x) - q.log_prob(x), Estimate.of_share(0, 100)
    exact = torch.distributions.kl_divergence(p, q).item()
    found, plain = metrics.mean_log_ratio(draws, none), Estimate.of_mean(draws)
    assert near(found, exact) and found.standard_error < 0.25 * plain.standard_error
    some = Estimate.of_share(5, 100)  # a share of q lies where p has no draws: its density here is so much lower
    found = metrics.mean_log_ratio(draws - math.log(0.95), some)
    assert near(found, exact - math.log(0.95)) and found.standard_error > 0.8 * some.standard_error


def test_density_of_a_network_integrates_to_1_on_a_grid():
    """A broad law and an untrained network: smooth, so the sum over the grid is exact to the solver's tolerance."""
    schedule = ExponentialSchedule(sigma_min=0.1, sigma_max=0.2)
    truth = AnalyticalScoreNetwork(make_problem(sigma_d=0.05), schedule)
    network = make_subject(make_network(schedule), truth).precise
    for parameter in network.parameters():
        parameter.mul_(2)
    axis = torch.arange(24).double() / 24
    density = metrics.ode_log_density(network, truth, torch.cartesian_prod(axis, axis)[:, :, None]).exp()
    assert density.mean().item() == pytest.approx(1, abs=1e-4)
    assert density.std() > 0.1  # it is not the uniform one


def test_what_cannot_be_solved_gives_no_value(truth):  # nor what needs too many evaluations, says test_evaluate.py
    with pytest.raises(NoValue, match="infinite or not a number"):
        metrics.ode_stray_fraction(make_subject(Given(truth, lambda x, t: x / 0), truth))
