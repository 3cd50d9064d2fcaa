"""The score of noised configurations, as if they were all the data."""

import pytest
import torch

from utils.physics.empirical import empirical_score
from utils.physics.torus import displacement, wrapped_normal_log_density, wrapped_normal_score


def brute_force(centres, x, sigma):
    u, sigma = displacement(x[:, None], centres), sigma[:, None, None, None]
    weights = torch.softmax(wrapped_normal_log_density(u, sigma).sum((2, 3)), 1)
    score = (weights[..., None, None] * sigma * wrapped_normal_score(u, sigma)).sum(1)
    return score, 1 / weights.square().sum(1)


@pytest.mark.parametrize("shape", [(2, 1), (1, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize(("sigma", "tolerance"), [(0.001, 1e-10), (0.05, 1e-10), (0.2, 3e-4), (0.5, 1e-10)])
def test_it_is_the_weighted_sum_over_centres(shape, sigma, tolerance, generator):
    """Two images of three are exact to exp(-1 / 2 sigma^2) of the weight; at 0.2 that is 3.7e-6, times 1 / sigma and a
    few in the score of a single component."""
    centres, x = (torch.rand(n, *shape, generator=generator).double() for n in (50, 3_000))  # more than a block
    sigma = torch.full((len(x),), sigma).double()
    score, number = empirical_score(centres, x, sigma)
    expected, expected_number = brute_force(centres, x, sigma)
    assert score.shape == x.shape and (score - expected).abs().max() <= tolerance * expected.abs().max()
    assert torch.allclose(number, expected_number, rtol=100 * tolerance)


def test_one_centre_gives_the_score_of_the_kernel_and_many_that_of_their_distribution(problem, schedule, generator):
    x, sigma = torch.rand(200, 2, 1, generator=generator), torch.full((200,), 0.1)
    one = problem.modes()[:1]
    score, number = empirical_score(one, x, sigma)
    assert torch.allclose(score, 0.1 * wrapped_normal_score(displacement(x, one), 0.1), atol=1e-5)
    assert torch.allclose(number, torch.ones(200))
    x = problem.sample_noised(sigma, generator)
    score, number = empirical_score(problem.permuted(problem.sample(20_000, generator)), x, sigma)
    # Each of 20,000 has the spread sigma_d / sigma = 0.1 about its mode, so their mean, which moves the score at all
    # points alike, one of 0.0007.
    assert 0.0001 < (score - 0.1 * problem.score(x, sigma)).abs().median() < 3 * 0.0007
    assert number.min() > 1_000
