"""The laws of the data, one Gaussian or a mixture: density, exact score and samples belong together.

What holds for any law whatever its numbers (the score is the gradient of the log-density, the density integrates to 1)
stands in test_properties.py.
"""

import math
from functools import partial
from itertools import permutations

import pytest
import torch
from conftest import BASE, OTHERS, make_problem
from mixtures import for_laws, make_mixture
from mpmath import mp
from pydantic import ValidationError
from scipy import special, stats


@for_laws()
def test_density_and_score_agree_with_a_sum_in_forty_digits(law, generator):
    """A sum over components, permutations and images, written apart from the code, and its numerical derivative."""

    def log_density(sigma, *x):
        orders = [*permutations(range(law.shape[0]))] if law.permutation_symmetric else [range(law.shape[0])]
        terms = []
        for weight, width, positions in law.components:
            variance = mp.mpf(width) ** 2 + mp.mpf(sigma) ** 2
            for order in orders:
                offsets = [a - b for a, b in zip(x, (c for site in order for c in positions[site]), strict=True)]
                images = [[mp.exp(-((u + k) ** 2) / (2 * variance)) for k in range(-8, 9)] for u in offsets]
                terms.append(weight * mp.fprod(map(mp.fsum, images)) / mp.sqrt(2 * mp.pi * variance) ** len(x))
        return mp.log(mp.fsum(terms) / len(orders) / mp.fsum(component.weight for component in law.components))

    widths = torch.tensor([0.001, 0.02, 0.3, 0.8]).double()  # every point has its own
    x, unit = torch.rand(4, *law.shape, generator=generator).double(), torch.eye(math.prod(law.shape)).int().tolist()
    with mp.workdps(40):
        rows = zip(widths.tolist(), x.flatten(1).tolist(), strict=True)
        points = [(width, [*map(mp.mpf, one)]) for width, one in rows]
        exact = torch.tensor([float(log_density(width, *one)) for width, one in points], dtype=torch.double)
        slopes = [[float(mp.diff(partial(log_density, width), one, k)) for k in unit] for width, one in points]
    # Rounding: the exponents are up to size / 8 sigma_eff^2, and the modes' shares are exponentials of them.
    narrowest, score = law.mode_widths(widths).min(1).values, torch.tensor(slopes, dtype=torch.double)
    precision = torch.finfo(torch.double).eps * (1 + x[0].numel() / narrowest**2)
    assert ((law.log_density(x, widths) - exact).abs() <= precision).all()
    off, size = (one.abs().amax(1) for one in (law.score(x, widths).flatten(1) - score, score))
    assert (off <= precision * torch.maximum(1 / narrowest, size)).all()


@for_laws()
def test_samples_have_the_shares_of_their_modes_and_their_distance_is_chi(law, generator):
    """Every noised sample has its own noise. The data are not permuted: theirs are the first modes of the components.
    The modes are so far apart that the nearest is the one that a sample came from."""
    n, weights, orders = 10_000, law.mode_weights(), len(law.assignments)
    unpermuted = torch.arange(len(weights)) % orders == 0
    noise = 0.001 + 0.01 * torch.rand(n, generator=generator).double()
    noised, data = law.sample_noised(noise, generator), law.sample(n, generator)
    for x, sigma, shares in ((noised, noise, weights), (data, 0 * noise, weights * unpermuted * orders)):
        u, mode, width = law.nearest_mode(x, sigma)
        own = torch.tensor([component.width for component in law.components]).double()[mode // orders]
        assert torch.allclose(width, torch.hypot(own, sigma), rtol=1e-6)
        standardised = law.standardised(x, sigma)
        assert torch.allclose(standardised, u / width[:, None, None], rtol=1e-6)
        r = standardised.flatten(1).norm(dim=1)
        assert stats.kstest(r.numpy(), stats.chi(x[0].numel()).cdf).pvalue > 1e-4
        counts = torch.bincount(mode, minlength=len(weights))[shares > 0]
        assert counts.sum() == n and (len(counts) == 1 or stats.chisquare(counts, shares[shares > 0] * n).pvalue > 1e-4)
    wide = law.sample_noised(torch.full((n,), 0.3), generator)
    assert wide.min() >= 0 and wide.max() < 1


@pytest.mark.parametrize(("atoms", "dimensions"), [(2, 1), (1, 3), (4, 3)])
def test_a_stray_has_the_probability_exp_of_minus_12_5_and_the_mean_width_is_weighted(atoms, dimensions):
    positions = [[i / 4] * dimensions for i in range(atoms)]
    r = make_problem(positions).stray_radius
    mixture = make_mixture([(1.0, 0.1, positions), (2.0, 0.2, positions)])
    assert mixture.stray_radius == r and mixture.mean_width == pytest.approx((0.1 + 2 * 0.2) / 3)
    tail = special.gammaincc(atoms * dimensions / 2, r**2 / 2)  # of the chi distribution
    assert tail == pytest.approx(math.exp(-12.5), rel=1e-9)


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
        *(([(1.0, 0.1, BASE), (weight, 0.1, BASE)], "gaussians.1.weight") for weight in (0, 1e13)),
        *(([(1.0, width, BASE)], "gaussians.0.sigma_d") for width in (0, 101)),
        *(([(1.0, 0.1, BASE), (1.0, 0.1, rows)], "the same number of atoms") for rows in (OTHERS[0], OTHERS[2])),
        ([(1.0, 0.1, [[i / 8] for i in range(6)])] * 2, "these are 1440"),
    ],
)
def test_impossible_mixtures_are_refused(gaussians, fault):
    with pytest.raises(ValidationError, match=fault):
        make_mixture(gaussians)
