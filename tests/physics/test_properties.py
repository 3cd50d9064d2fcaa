"""Random laws and schedules (hypothesis): what holds for the base case holds for all of them.

The cases are the same in every run. Others: `pytest tests/physics/test_properties.py --hypothesis-profile=wide`.
"""

import math

import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from utils.physics.laws import MIN_DISTANCE, GaussianMixture, ToyProblem
from utils.physics.noise_schedule import ExponentialSchedule, LinearSchedule, time_grid
from utils.physics.torus import displacement, wrap
from utils.score.derivatives import value_and_divergence
from utils.score.networks import AnalyticalScoreNetwork
from utils.score.samplers import predictor_corrector

some = settings(max_examples=settings().max_examples // 8)
DTYPES = st.sampled_from([torch.float32, torch.float64])
WIDTHS = st.floats(math.log(1e-3), math.log(2)).map(math.exp)
FAR = {torch.float32: 3, torch.float64: 1000}  # cells that x may be away: float32 keeps 1e-7 of such numbers


@st.composite
def laws(draw, most_atoms=3, most_dimensions=2, most_gaussians=3):
    """One Gaussian, or a mixture of up to three (one is a mixture, too)."""
    atoms, dimensions = draw(st.integers(1, most_atoms)), draw(st.integers(1, most_dimensions))
    row = st.tuples(*[st.floats(0, 1, exclude_max=True)] * dimensions)
    gaussians = []
    for _ in range(draw(st.integers(1, most_gaussians))):
        rows = draw(st.lists(row, min_size=atoms, max_size=atoms))
        apart = torch.tensor(rows, dtype=torch.double)
        assume((displacement(apart[:, None], apart).abs().amax(-1) + torch.eye(atoms)).min() > MIN_DISTANCE)
        gaussians.append({"equilibrium_relative_coordinates": rows, "sigma_d": draw(WIDTHS)})
    symmetric = draw(st.booleans())
    if len(gaussians) == 1 and draw(st.booleans()):
        return ToyProblem(**gaussians[0], permutation_symmetric=symmetric)
    weighted = [gaussian | {"weight": draw(st.floats(1e-3, 1e3))} for gaussian in gaussians]
    return GaussianMixture(gaussians=weighted, permutation_symmetric=symmetric)


@st.composite
def schedules(draw):
    sigma_min, factor = draw(WIDTHS), draw(st.floats(1.01, 40))
    kind = draw(st.sampled_from([ExponentialSchedule, LinearSchedule]))
    return kind(sigma_min=sigma_min, sigma_max=sigma_min * factor)


@st.composite
def points(draw, shape, dtype=torch.double, number=8):
    """Configurations in the cell: random ones, and every coordinate 0, 1/2 or the last number below 1."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.rand(number, *shape, generator=generator, dtype=dtype)
    for row, special in enumerate((0.0, 0.5, 1 - torch.finfo(dtype).eps / 2)):
        x[row] = special
    return x


@some
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), DTYPES)
@example(0.75, 0.25, torch.float32)
@example(-1e-9, -1e-45, torch.float32)
@example(-1.0, 1.0, torch.float32)
def test_wrap_is_in_the_cell_and_the_displacement_is_the_nearest_image(one, other, dtype):
    x, y = torch.tensor([one], dtype=dtype), torch.tensor([other], dtype=dtype)
    assert all(0 <= wrap(z) < 1 and wrap(wrap(z)) == wrap(z) for z in (x, y))
    u = displacement(wrap(x), wrap(y))
    assert -0.5 <= u < 0.5
    back = (wrap(y) + u - wrap(x)).item()
    assert abs(back - round(back)) < 4 * torch.finfo(dtype).eps  # two sums of numbers below 2


@given(laws(), st.data(), WIDTHS, DTYPES)
@settings(some, max_examples=2 * some.max_examples)
def test_law_is_finite_periodic_and_symmetric_and_its_score_the_gradient(law, data, width, dtype):
    x = data.draw(points(law.shape, dtype)).requires_grad_()
    sigma = torch.full((len(x),), width, dtype=dtype)
    log_density, score = law.log_density(x, sigma), law.score(x, sigma)
    assert log_density.shape == (len(x),) and score.shape == x.shape and score.dtype == dtype
    assert torch.isfinite(log_density).all() and torch.isfinite(score).all()
    # Rounding of x moves an exponent by eps / sigma_eff^2 for each component.
    slack = 64 * x[0].numel() * torch.finfo(dtype).eps / law.mode_widths(sigma).min().item() ** 2
    cells = data.draw(st.integers(-FAR[dtype], FAR[dtype]))
    assert torch.allclose(law.log_density(x + cells, sigma), log_density, rtol=1e-5, atol=slack * (1 + abs(cells)))
    order = torch.tensor(data.draw(st.permutations(range(law.shape[0]))))
    if law.permutation_symmetric:
        assert torch.allclose(law.log_density(x[:, order], sigma), log_density, rtol=1e-5, atol=slack)
    if dtype == torch.float64:
        (gradient,) = torch.autograd.grad(log_density.sum(), x)
        # Rounding: the shares of the modes are exponentials of numbers of order 1 / 2 sigma_eff^2.
        scale = law.mode_widths(sigma).min().item() ** -2
        assert torch.allclose(score, gradient, rtol=1e-9, atol=1e-12 * max(scale**1.5, 1))


@some
@given(laws(most_atoms=2, most_dimensions=1), st.floats(0.02, 1))
def test_law_is_normalised(law, sigma):
    n, atoms = math.ceil(2 / sigma), law.shape[0]  # the trapezoidal rule errs by exp(-2 (pi sigma n)^2)
    grid = torch.arange(n, dtype=torch.double) / n
    x = torch.cartesian_prod(*[grid] * atoms).reshape(-1, atoms, 1)
    density = law.log_density(x, torch.full((len(x),), sigma, dtype=torch.double)).exp()
    assert abs(density.mean().item() - 1) < 1e-12


@some
@given(laws(), schedules(), st.data(), DTYPES, st.integers(1, 8), st.integers(0, 2))
def test_exact_network_is_finite_at_all_times_and_leads_into_the_cell(law, schedule, data, dtype, steps, corrections):
    x = data.draw(points(law.shape, dtype))
    truth = AnalyticalScoreNetwork(law, schedule)
    for t in (0.0, data.draw(st.floats(0, 1)), 1.0):
        times = torch.full((len(x),), t, dtype=dtype)
        value, divergence = value_and_divergence(truth, x, times)
        assert value.shape == x.shape and divergence.shape == (len(x),)
        assert torch.isfinite(value).all() and torch.isfinite(divergence).all()
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    x = predictor_corrector(truth, x, time_grid(steps), corrector_steps=corrections, generator=generator)
    assert ((x >= 0) & (x < 1)).all()
