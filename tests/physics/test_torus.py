"""The torus and the wrapped normal law, against brute force."""

import numpy as np
import pytest
import torch

from utils.physics.torus import CROSSOVER_SIGMA, wrapped_normal_log_density, wrapped_normal_score

SIGMAS = [0.001, 0.01, 0.1, 0.2, 0.3, CROSSOVER_SIGMA - 1e-9, CROSSOVER_SIGMA, 0.5, 1.0, 3.0]


def brute_force(u, sigma):
    """Log-density and score by 121 images in extended precision."""
    u = np.asarray(u, np.longdouble)[:, None] + np.arange(-60, 61)
    exponents = -(u**2) / (2 * np.longdouble(sigma) ** 2)
    weights = np.exp(exponents - exponents.max(1, keepdims=True))
    log_density = np.log(weights.sum(1)) + exponents.max(1) - np.log(np.sqrt(2 * np.longdouble(np.pi)) * sigma)
    return log_density, -(weights * u).sum(1) / weights.sum(1) / np.longdouble(sigma) ** 2


@pytest.mark.parametrize("sigma", SIGMAS)
def test_wrapped_normal_is_the_brute_force_sum(sigma):
    u = np.linspace(-1.5, 1.5, 1201)
    log_density, score = brute_force(u, sigma)
    ours = torch.tensor(u), torch.tensor(sigma, dtype=torch.double)
    # Relative rounding of float64, times the size of the exponent u^2 / 2 sigma^2.
    np.testing.assert_allclose(wrapped_normal_log_density(*ours), log_density.astype(float), rtol=1e-13, atol=1e-14)
    # Halfway between images the score vanishes by cancellation of two images, so the error is absolute there.
    np.testing.assert_allclose(wrapped_normal_score(*ours), score.astype(float), rtol=1e-12, atol=1e-13 / sigma**2)


def test_float32_is_as_accurate_as_the_minimal_image_allows(generator):
    u = torch.rand(50_000, generator=generator) - 0.5
    sigma = 0.001 * 2000 ** torch.rand(50_000, generator=generator)
    u[:3], sigma[:3] = torch.tensor([-0.5, 0.0, 0.5]), 0.001
    score, log_density = (
        (function(u, sigma) - function(u.double(), sigma.double())).abs()
        for function in (wrapped_normal_score, wrapped_normal_log_density)
    )
    assert (score * sigma**2).max() < 1.5e-7  # a rounding or two of numbers below 1/2 (float32 has 6e-8)
    assert (log_density / (1 + (u / sigma) ** 2 / 2 + sigma.log().abs())).max() < 4e-7  # and of the terms of the sum


def test_gradients_through_the_branch_not_taken_are_finite():
    # At 3/7 three undamped harmonics sum to -1: without care the branch not taken is the logarithm of 0.
    u = torch.cat([torch.linspace(-0.5, 0.49, 50), 3 / 7 + torch.arange(-20, 21) / 2**25]).repeat(3, 1).requires_grad_()
    sigma = torch.tensor([[1e-8], [0.2], [50.0]]).requires_grad_()
    for function in (wrapped_normal_log_density, wrapped_normal_score):
        for gradient in torch.autograd.grad(function(u, sigma).sum(), (u, sigma)):
            assert torch.isfinite(gradient).all()
