"""The laws of the data, one Gaussian or a mixture: density, exact score and samples belong together.

What holds for any law whatever its numbers (the score is the gradient of the log-density, the density integrates to 1)
stands in test_properties.py.
"""

import math
from itertools import permutations

import pytest
import torch
from conftest import BASE, OTHERS, make_problem
from mixtures import for_laws, make_mixture
from pydantic import ValidationError
from scipy import stats

from utils.physics.laws import GaussianMixture
from utils.physics.torus import wrapped_normal_log_density


def summed(law, x, sigma):
    """Log-density as the sum over components and permutations, one after another."""
    orders = list(permutations(range(law.shape[0]))) if law.permutation_symmetric else [range(law.shape[0])]
    total, terms = sum(component.weight for component in law.components) * len(orders), []
    for weight, width, positions in law.components:
        sites, broadened = torch.tensor(positions, dtype=torch.double), (width**2 + sigma**2).sqrt()[:, None, None]
        for order in orders:
            atoms = wrapped_normal_log_density(x - sites[list(order)], broadened).sum((1, 2))
            terms.append(math.log(weight / total) + atoms)
    return torch.stack(terms).logsumexp(0)


@for_laws()
def test_density_is_the_sum_over_components_and_permutations_and_the_score_its_gradient(law, generator):
    x = torch.rand(4, *law.shape, generator=generator, dtype=torch.double).requires_grad_()
    width = torch.tensor([0.001, 0.05, 0.3, 0.8], dtype=torch.double)
    log_density = summed(law, x, width)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    # Rounding: the exponents are up to size / 8 sigma_eff^2, and the modes' shares are exponentials of them.
    narrowest = law.mode_widths(width).min(1).values
    precision = torch.finfo(torch.double).eps * (1 + x[0].numel() / narrowest**2)
    assert ((law.log_density(x, width) - log_density).abs() <= precision).all()
    off, size = ((law.score(x, width) - score).abs().amax((1, 2)), score.abs().amax((1, 2)))
    assert (off <= precision * torch.maximum(1 / narrowest, size)).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_mixture_of_one_is_the_toy_problem_whatever_its_weight(symmetric):
    toy, one = make_problem(OTHERS[2], 0.01, symmetric), make_mixture([(0.3, 0.01, OTHERS[2])], symmetric)
    x, sigma = torch.rand(50, 2, 2), torch.rand(50) / 2 + 1e-3
    for name in ("log_density", "score", "standardised"):
        assert torch.equal(getattr(one, name)(x, sigma), getattr(toy, name)(x, sigma)), name
    for name, argument in (("sample", 50), ("sample_noised", sigma)):
        drawn, same = (getattr(law, name)(argument, torch.Generator().manual_seed(1)) for law in (one, toy))
        assert torch.equal(drawn, same) and drawn.min() >= 0 and drawn.max() < 1


@for_laws()
def test_samples_are_not_permuted_and_have_the_shares_and_widths_of_their_components(law, generator):
    n = 20_000
    u, mode, _ = law.nearest_mode(law.sample(n, generator), torch.zeros(n))
    assert (mode % len(law.assignments) == 0).all()  # the first is the identity
    total = sum(component.weight for component in law.components)
    for k, component in enumerate(law.components):
        cloud, share = u[mode == k * len(law.assignments)], component.weight / total
        assert abs(len(cloud) / n - share) <= 4 * math.sqrt(share * (1 - share) / n)  # four standard errors, thrice
        assert abs(cloud.mean()) < 4 * component.width / cloud.numel() ** 0.5
        assert cloud.std().item() == pytest.approx(component.width, rel=4 / (2 * cloud.numel()) ** 0.5)


@for_laws()
def test_noised_samples_have_the_shares_of_the_modes_and_their_distance_is_chi(law, generator):
    """Every sample has its own noise; the modes are so far apart that the nearest is the one it came from."""
    sigma = 0.001 + 0.01 * torch.rand(10_000, generator=generator).double()
    x = law.sample_noised(sigma, generator)
    u, mode, width = law.nearest_mode(x, sigma)
    own = torch.tensor([component.width for component in law.components]).double()[mode // len(law.assignments)]
    assert torch.allclose(width, torch.hypot(own, sigma), rtol=1e-6)
    standardised = law.standardised(x, sigma)
    assert torch.equal(standardised, u / width[:, None, None])
    r = standardised.flatten(1).norm(dim=1)
    assert stats.kstest(r.numpy(), stats.chi(x[0].numel()).cdf).pvalue > 1e-4
    counts = torch.bincount(mode, minlength=len(law.mode_weights()))
    assert len(counts) == 1 or stats.chisquare(counts, law.mode_weights() * len(x)).pvalue > 1e-4


@pytest.mark.parametrize("atoms_and_dimensions", [(2, 1), (1, 3), (4, 3)])
def test_a_stray_has_the_probability_exp_of_minus_12_5_and_the_mean_width_is_weighted(atoms_and_dimensions):
    """By the closed forms of the chi distribution's tail with 2, 3 and 12 degrees of freedom."""
    atoms, dimensions = atoms_and_dimensions
    positions = [[i / 4] * dimensions for i in range(atoms)]
    r = make_problem(positions).stray_radius
    mixture = make_mixture([(1.0, 0.1, positions), (2.0, 0.2, positions)])
    assert mixture.stray_radius == r and mixture.mean_width == pytest.approx((0.1 + 2 * 0.2) / 3)
    h = r**2 / 2
    tail = {
        2: math.exp(-h),
        3: math.erfc(r / math.sqrt(2)) + math.sqrt(2 / math.pi) * r * math.exp(-h),
        12: math.exp(-h) * sum(h**j / math.factorial(j) for j in range(6)),
    }
    assert tail[atoms * dimensions] == pytest.approx(math.exp(-12.5), rel=1e-9)


def test_nearest_mode_is_found_across_the_boundary_and_in_its_own_widths():
    x, sigma = torch.tensor([[[0.99], [0.52]], [[0.5], [0.01]]]), torch.zeros(2)
    u, mode, width = make_problem([[0.02], [0.5]]).nearest_mode(x, sigma)
    assert mode.tolist() == [0, 1] and width.tolist() == pytest.approx([0.01, 0.01])
    assert torch.allclose(u.flatten(), torch.tensor([-0.03, 0.02, 0.0, -0.01]), atol=1e-6)
    # At 0.5 both modes are 0.2 away: 10 widths of the one, 4 of the other.
    u, mode, width = make_mixture([(9.0, 0.02, [[0.3]]), (1.0, 0.05, [[0.7]])]).nearest_mode(x[:, :1] * 0 + 0.5, sigma)
    assert mode.tolist() == [1, 1] and u.flatten().tolist() == pytest.approx([-0.2, -0.2])


def test_ridge_distance_is_the_gap_between_the_two_best_modes():
    x, sigma = torch.tensor([[[0.5], [0.5]], [[0.25], [0.75]]]).double(), torch.full((2,), 0.1, dtype=torch.double)
    on, off = make_problem(sigma_d=0.1).ridge_distance(x, sigma).tolist()
    # In the mode both atoms are 1/2 from their other sites: two images of equal weight there, one here.
    assert (on, off) == pytest.approx((0, 2 * (0.5**2 / 0.04 - math.log(2))), abs=1e-8)
    assert make_problem(permutation_symmetric=False).ridge_distance(x, sigma).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("rows", [[], [[]], [[0.1], [0.1]], [[0.1], [0.2, 0.3]], [[1.0]], [[-0.1]], [[float("nan")]]])
def test_impossible_positions_are_refused(rows):
    with pytest.raises(ValidationError):
        make_problem(rows)
    with pytest.raises(ValidationError, match=r"gaussians\.0\.equilibrium_relative_coordinates"):
        make_mixture([(1.0, 0.1, rows)])


@pytest.mark.parametrize(
    ("gaussians", "fault"),
    [
        ([], "gaussians"),
        ("all", "gaussians"),
        ([3], "gaussians.0"),
        *(([(1.0, 0.1, BASE), (weight, 0.1, BASE)], "gaussians.1.weight") for weight in (0, -1.0, math.nan, "1", True)),
        *(([(1.0, width, BASE)], "gaussians.0.sigma_d") for width in (0, -0.1, 101, math.inf, None)),
        ([(1.0, 0.1, BASE), (1.0, 0.1, [[0.2]])], "the same number of atoms"),
        ([(1.0, 0.1, BASE), (1.0, 0.1, [[0.2, 0.3], [0.7, 0.9]])], "the same number of atoms"),
        ([(1.0, 0.1, [[i / 8] for i in range(6)])] * 2, "these are 1440"),
    ],
)
def test_impossible_mixtures_are_refused(gaussians, fault):
    with pytest.raises(ValidationError, match=fault):
        if gaussians and isinstance(gaussians[0], tuple):
            make_mixture(gaussians)
        GaussianMixture.model_validate({"gaussians": gaussians, "permutation_symmetric": True})
