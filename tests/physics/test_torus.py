"""The torus and the wrapped normal law, against brute force."""

import math

import pytest
import torch

from utils.physics import torus

SIGMAS = [0.001, 0.01, 0.1, 0.2, 0.3, torus.CROSSOVER_SIGMA - 1e-9, torus.CROSSOVER_SIGMA, 0.5, 1.0, 3.0]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_wrapped_normal_is_the_sum_over_images(sigma):
    u = torch.linspace(-1.5, 1.5, 1201, dtype=torch.double).requires_grad_()
    exponents = -((u[:, None] + torch.arange(-60, 61)) ** 2) / (2 * sigma**2)
    log_density = exponents.logsumexp(1) - math.log(math.sqrt(2 * math.pi) * sigma)
    (score,) = torch.autograd.grad(log_density.sum(), u, create_graph=True)
    (curvature,) = torch.autograd.grad(score.sum(), u)
    width = torch.tensor(sigma, dtype=torch.double)
    # Relative rounding of float64, times the size of the exponent u^2 / 2 sigma^2.
    assert torch.allclose(torus.wrapped_normal_log_density(u, width), log_density, rtol=1e-13, atol=1e-14)
    # Halfway between images the score vanishes by cancellation of two images, so the error is absolute there.
    first, second = torus.wrapped_normal_derivatives(u, width)
    for ours in (torus.wrapped_normal_score(u, width), first):
        assert torch.allclose(ours, score, rtol=1e-12, atol=1e-13 / sigma**2)
    assert torch.allclose(second, curvature, rtol=1e-11, atol=1e-13 / sigma**4)


def test_float32_is_as_accurate_as_the_minimal_image_allows(generator):
    u = torch.rand(50_000, generator=generator) - 0.5
    sigma = 0.001 * 2000 ** torch.rand(50_000, generator=generator)
    u[:3], sigma[:3] = torch.tensor([-0.5, 0.0, 0.5]), 0.001
    score, log_density = (
        (function(u, sigma) - function(u.double(), sigma.double())).abs()
        for function in (torus.wrapped_normal_score, torus.wrapped_normal_log_density)
    )
    assert (score * sigma**2).max() < 1.5e-7  # a rounding or two of numbers below 1/2 (float32 has 6e-8)
    assert (log_density / (1 + (u / sigma) ** 2 / 2 + sigma.log().abs())).max() < 4e-7  # and of the terms of the sum


def test_gradients_through_the_branch_not_taken_are_finite():
    # At 3/7 three undamped harmonics sum to -1: without care the branch not taken is the logarithm of 0.
    u = torch.cat([torch.linspace(-0.5, 0.49, 50), 3 / 7 + torch.arange(-20, 21) / 2**25]).repeat(3, 1).requires_grad_()
    sigma = torch.tensor([[1e-8], [0.2], [50.0]]).requires_grad_()
    for function in (torus.wrapped_normal_log_density, torus.wrapped_normal_score):
        for gradient in torch.autograd.grad(function(u, sigma).sum(), (u, sigma)):
            assert torch.isfinite(gradient).all()
