"""The data law: its density, its exact score and its samples belong together."""

import pytest
import torch
from conftest import BASE, OTHERS, make_problem
from pydantic import ValidationError

from utils.physics.torus import displacement, wrap, wrapped_normal_score

CASES = [(coordinates, symmetric) for coordinates in [BASE, *OTHERS] for symmetric in (True, False)]


@pytest.mark.parametrize(("coordinates", "symmetric"), CASES)
@pytest.mark.parametrize("sigma", [0.001, 0.03, 0.2, 0.8])
def test_score_is_the_gradient_of_the_log_density(coordinates, symmetric, sigma, generator):
    problem = make_problem(coordinates, permutation_symmetric=symmetric)
    x = torch.rand(200, *problem.shape, generator=generator, dtype=torch.double).requires_grad_()
    width = torch.full((200,), sigma, dtype=torch.double)
    (gradient,) = torch.autograd.grad(problem.log_density(x, width).sum(), x)
    # Rounding: assignment weights are exponentials of numbers of order 1 / 2 sigma_eff^2.
    scale = 1 / problem.effective_sigma(width[0]) ** 2
    assert torch.allclose(problem.score(x, width), gradient, atol=1e-12 * scale**1.5)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sigma", [0.02, 0.2, 0.6])
def test_density_integrates_to_one(symmetric, sigma):
    grid = torch.arange(400, dtype=torch.double) / 400
    x = torch.cartesian_prod(grid, grid)[:, :, None]
    density = make_problem(permutation_symmetric=symmetric).log_density(x, torch.full((len(x),), sigma).double()).exp()
    assert density.mean().item() == pytest.approx(1, abs=1e-12)  # trapezoidal rule on the torus: spectrally accurate


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS[1:]])
def test_symmetric_law_commutes_with_permutations_and_the_other_does_not(coordinates, generator):
    for symmetric in (True, False):
        problem = make_problem(coordinates, permutation_symmetric=symmetric)
        x = torch.rand(100, *problem.shape, generator=generator, dtype=torch.double)
        sigma = torch.full((100,), 0.1, dtype=torch.double)
        exchanged = torch.randperm(problem.shape[0], generator=generator).roll(1)
        exchanged = exchanged if not torch.equal(exchanged, exchanged.sort().values) else exchanged.flip(0)
        same = torch.allclose(problem.score(x[:, exchanged], sigma), problem.score(x, sigma)[:, exchanged])
        assert same == symmetric


def test_law_has_period_one(problem, generator):
    x, sigma = torch.rand(100, 2, 1, generator=generator, dtype=torch.double), torch.full((100,), 0.05).double()
    shifted = x + torch.tensor([[1.0], [-2.0]])
    assert torch.allclose(problem.log_density(shifted, sigma), problem.log_density(x, sigma))
    assert torch.allclose(problem.score(shifted, sigma), problem.score(x, sigma), atol=1e-9)


def test_samples_are_not_permuted_and_have_the_width_of_the_data(problem, generator):
    u = displacement(problem.sample(100_000, generator), torch.tensor(BASE))
    assert u.abs().max() < 0.06
    assert u.std().item() == pytest.approx(0.01, rel=4 / (2 * 200_000) ** 0.5)  # four standard errors


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sigma", [0.01, 0.2])
def test_noised_samples_follow_the_density(symmetric, sigma, generator):
    """Stein's identity: E_p[s . v + div v] = 0 for any periodic field v; here v = (sin 2 pi x1 cos 2 pi x2, 0) etc."""
    problem = make_problem([[0.2], [0.6]], permutation_symmetric=symmetric)
    x = problem.sample_noised(torch.full((200_000,), sigma).double(), generator)
    score, phase = problem.score(x, torch.full((len(x),), sigma).double()), 2 * torch.pi * (x - 0.1)
    field = torch.sin(phase) * torch.cos(phase.flip(1))
    divergence = (2 * torch.pi * torch.cos(phase) * torch.cos(phase.flip(1))).sum((1, 2))
    terms = (score * field).sum((1, 2)) + divergence
    assert abs(terms.mean()) < 4 * terms.std() / len(x) ** 0.5


def test_noised_samples_are_permuted_where_the_law_is_and_as_wide_as_it(generator):
    assert make_problem(sigma_d=0.04).effective_sigma(torch.tensor(0.03)).item() == pytest.approx(0.05)
    sigma = torch.full((20_000,), 0.02)
    for symmetric, expected in ((True, 0.5), (False, 0.0)):
        problem = make_problem(permutation_symmetric=symmetric)
        x = problem.sample_noised(sigma, generator)
        exchanged = (x[:, 0, 0] > 0.5).double().mean()
        assert abs(exchanged - expected) < 4 * 0.5 / 20_000**0.5  # four binomial standard errors
        assert problem.nearest_mode(x)[0].std().item() == pytest.approx(0.0005**0.5, rel=4 / (2 * 40_000) ** 0.5)


def test_floor_of_score_matching_has_its_closed_form(generator):
    """Without symmetrisation E|sigma grad log K|^2 - E|sigma s|^2 = sigma_d^2 / sigma_eff^2, while wrapping is rare."""
    problem, n = make_problem(permutation_symmetric=False), 400_000
    for sigma in (0.003, 0.02):
        width = torch.full((n,), sigma, dtype=torch.double)
        x_0 = problem.sample(n, generator).double()
        x = wrap(x_0 + sigma * torch.randn(x_0.shape, generator=generator, dtype=torch.double))
        target = sigma * wrapped_normal_score(displacement(x, x_0), sigma)
        difference = (target - sigma * problem.score(x, width)).square().mean((1, 2))
        expected = 0.01**2 / (0.01**2 + sigma**2)
        assert abs(difference.mean() - expected) < 4 * difference.std() / n**0.5


def test_nearest_mode_is_found_across_the_boundary():
    problem = make_problem([[0.02], [0.5]])
    u, index = problem.nearest_mode(torch.tensor([[[0.99], [0.52]], [[0.5], [0.01]]]))
    assert index.tolist() == [0, 1]
    assert torch.allclose(u.flatten(), torch.tensor([-0.03, 0.02, 0.0, -0.01]), atol=1e-6)


@pytest.mark.parametrize("rows", [[], [[]], [[0.1], [0.1]], [[0.1], [0.2, 0.3]], [[1.0]], [[-0.1]], [[float("nan")]]])
def test_impossible_positions_are_refused(rows):
    with pytest.raises(ValidationError):
        make_problem(rows)


def test_settings_are_immutable(problem):
    with pytest.raises(ValidationError):
        problem.sigma_d = 0.02
