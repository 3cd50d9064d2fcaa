"""The score of noised configurations, as if they were all the data."""

import pytest
import torch

from utils.physics.empirical import empirical_score
from utils.physics.torus import wrapped_normal_log_density


@pytest.mark.parametrize("shape", [(2, 1), (1, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize(("sigma", "tolerance"), [(0.001, 1e-10), (0.05, 1e-10), (0.2, 3e-4), (0.5, 1e-10)])
def test_it_is_the_gradient_of_the_mixture_of_kernels(shape, sigma, tolerance, generator):
    """Two images of three are exact to exp(-1 / 2 sigma^2) of the weight; at 0.2 that is 3.7e-6, times 1 / sigma and a
    few in the score of a single component."""
    centres, x = (torch.rand(n, *shape, generator=generator).double() for n in (50, 1_000))  # two blocks of three atoms
    noise = torch.full((len(x),), sigma, dtype=torch.double)
    score, number = empirical_score(centres, x, noise)
    kernels = wrapped_normal_log_density(x.requires_grad_()[:, None] - centres, sigma).sum((2, 3))
    (expected,) = torch.autograd.grad(sigma * kernels.logsumexp(1).sum(), x)
    assert score.shape == x.shape and (score - expected).abs().max() <= tolerance * expected.abs().max()
    assert torch.allclose(number, 1 / kernels.softmax(1).square().sum(1), rtol=100 * tolerance)
