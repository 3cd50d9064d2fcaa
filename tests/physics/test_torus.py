"""The torus and the wrapped normal law, against brute force and against each other."""

import numpy as np
import pytest
import torch

from utils.physics.torus import CROSSOVER_SIGMA, displacement, wrap, wrapped_normal_log_density, wrapped_normal_score

SIGMAS = [0.001, 0.01, 0.1, 0.2, 0.3, CROSSOVER_SIGMA - 1e-9, CROSSOVER_SIGMA, 0.5, 1.0, 3.0]


def brute_force(u, sigma):
    """Log-density and score by 121 images in extended precision."""
    u = np.asarray(u, np.longdouble)[:, None] + np.arange(-60, 61)
    exponents = -(u**2) / (2 * np.longdouble(sigma) ** 2)
    weights = np.exp(exponents - exponents.max(1, keepdims=True))
    log_density = np.log(weights.sum(1)) + exponents.max(1) - np.log(np.sqrt(2 * np.longdouble(np.pi)) * sigma)
    return log_density, -(weights * u).sum(1) / weights.sum(1) / np.longdouble(sigma) ** 2


@pytest.mark.parametrize("x", [-1e-9, -1.0, 0.0, 1.0, 2.5, 1e6, -1e-45])
def test_wrap_stays_below_one(x):
    assert 0 <= wrap(torch.tensor(x)) < 1


def test_displacement_is_the_minimal_image(generator):
    x, y = torch.rand(2, 1000, generator=generator, dtype=torch.double)
    u = displacement(x, y)
    assert ((u >= -0.5) & (u < 0.5)).all()
    assert torch.allclose(wrap(y + u), x, atol=1e-15)
    assert displacement(torch.tensor(0.75), torch.tensor(0.25)) == -0.5


@pytest.mark.parametrize("sigma", SIGMAS)
def test_wrapped_normal_is_the_brute_force_sum(sigma):
    u = np.linspace(-0.5, 0.5, 401)
    log_density, score = brute_force(u, sigma)
    ours = torch.tensor(u), torch.tensor(sigma, dtype=torch.double)
    # Relative rounding of float64, times the size of the exponent u^2 / 2 sigma^2.
    np.testing.assert_allclose(wrapped_normal_log_density(*ours), log_density.astype(float), rtol=1e-13, atol=1e-14)
    # At u = +-1/2 the score vanishes by cancellation of two images, so the error is absolute there.
    np.testing.assert_allclose(wrapped_normal_score(*ours), score.astype(float), rtol=1e-12, atol=1e-13 / sigma**2)


def test_float32_score_is_as_accurate_as_the_minimal_image_allows(generator):
    u = torch.rand(200_000, generator=generator) - 0.5
    sigma = 0.001 * 200 ** torch.rand(200_000, generator=generator)
    exact = wrapped_normal_score(u.double(), sigma.double())
    error = (wrapped_normal_score(u, sigma) - exact).abs() * sigma**2
    assert error.max() < 1.5e-7  # a rounding or two of numbers below 1/2 (float32 has 6e-8)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_is_the_gradient_of_the_log_density_and_has_period_one(sigma, generator):
    u = (4 * torch.rand(500, generator=generator, dtype=torch.double) - 2).requires_grad_()
    (gradient,) = torch.autograd.grad(wrapped_normal_log_density(u, sigma).sum(), u)
    score = wrapped_normal_score(u, sigma)
    assert torch.allclose(gradient, score, rtol=1e-9, atol=1e-10 / sigma**2)
    assert torch.allclose(wrapped_normal_score(u + 1, sigma), score, atol=1e-14 / sigma**2)


def test_gradients_through_the_branch_not_taken_are_finite():
    u = torch.linspace(-0.5, 0.49, 50).repeat(3, 1).requires_grad_()
    sigma = torch.tensor([[1e-4], [0.2], [50.0]]).requires_grad_()
    for function in (wrapped_normal_log_density, wrapped_normal_score):
        for gradient in torch.autograd.grad(function(u, sigma).sum(), (u, sigma)):
            assert torch.isfinite(gradient).all()
