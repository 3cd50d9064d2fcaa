"""What the theory promises of each regularizer, on the exact score and on any network."""

import functools

import networks
import pytest
import torch
from conftest import BASE, OTHERS, make_network, make_problem
from mixtures import for_laws
from networks import Zero, orthogonal, points
from subjects import SCHEDULES, Given

from utils.physics.noise_schedule import time_grid
from utils.physics.torus import displacement, wrapped_normal_log_density, wrapped_normal_score
from utils.score.derivatives import derivatives
from utils.score.networks import AnalyticalScoreNetwork, Energy
from utils.score.regularizers import (
    AnalyticalRegression,
    Conservative,
    Consistency,
    DualScoreMatching,
    EmpiricalRegression,
    FokkerPlanck,
    SecondOrderScoreMatching,
    kernel_derivatives,
)
from utils.score.residuals import fokker_planck_residual, hutchinson_residuals, residual_from
from utils.score.samplers import predictor_corrector
from utils.score.targets import Noised

FORMS = ["score_fpe", "advective"]
SECOND, DUAL = SecondOrderScoreMatching(weight=1.0), DualScoreMatching(weight=1.0)
EMPIRICAL = EmpiricalRegression(weight=1.0, points="uniform", references=256, min_effective_sample_size=100.0)
CONSERVATIVE = Conservative(weight=1.0, points="uniform")
ALL = [
    *(SECOND, DUAL, EMPIRICAL, CONSERVATIVE),
    AnalyticalRegression(weight=1.0, points="uniform"),
    AnalyticalRegression(weight=1.0, points="noised", batch_size=7),
    *(FokkerPlanck(weight=1.0, points="uniform", residual=form) for form in FORMS),
    FokkerPlanck(weight=1.0, points="noised", weighting="none"),
    FokkerPlanck(weight=1.0, points="noised", second_derivatives="hutchinson"),
    Consistency(weight=1.0, points="uniform"),
    Consistency(weight=1.0, points="noised"),
    Consistency(weight=1.0, points="noised", loss="martingale_product"),
    Consistency(weight=1.0, points="uniform", guide="analytical"),
]
noised = functools.partial(networks.noised, dtype=torch.double)


class ExactDensity(AnalyticalScoreNetwork):
    """The exact score, with its log-density beside it, as an energy network has it."""

    def log_density(self, x, t):
        return self.problem.log_density(x, self.schedule.sigma(t)) + 3.0


def value(regularizer, network, batch, truth, seed=0):
    """Return the value with the data of the batch as the training set; of a batch (x, t) nothing else is asked."""
    batch, generator = Noised(*batch, *batch[: 4 - len(batch)]), torch.Generator().manual_seed(seed)
    return regularizer.on_batch(network, batch, training_set=batch.x_0, truth=truth, generator=generator)


@for_laws(lambda law: law.permutation_symmetric)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_score_solves_the_fokker_planck_equation(law, schedule, generator):
    """Rounding: the terms cancel, and the largest, sigma^2 times second derivatives of N, grows like 1/sigma_eff^2."""
    truth = AnalyticalScoreNetwork(law, schedule)
    x, t, *_ = noised(law, schedule, 100, generator)
    for where, tolerance in ((x, 1e-12), (torch.rand(x.shape, generator=generator).double(), 1e-9)):
        d = derivatives(truth, where, t)
        assert all(residual_from(d, truth, t, form).abs().max() < tolerance for form in FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_residual_and_penalties_are_their_definition_in_terms_of_the_score(form, schedule, generator):
    """eps = d_t s - sigma sigma_dot grad(div s + |s|^2), or the advective form, by automatic differentiation of s."""
    network, jacrev, (x, t) = make_network(schedule).double(), torch.func.jacrev, points((2, 1), generator, 3)

    def score(y, time):
        return network.score(y.view(1, 2, 1), time.view(1)).flatten()

    def right_side(y, time):
        if form == "score_fpe":
            return torch.func.grad(lambda y: jacrev(score)(y, time).trace() + score(y, time).square().sum())(y)
        laplacian = torch.einsum("ikk->i", jacrev(jacrev(score))(y, time))
        return 2 * jacrev(score)(y, time) @ score(y, time) + laplacian

    sigma, sigma_dot = schedule.sigma(t)[:, None], schedule.sigma_dot(t)[:, None]
    slope = torch.stack([jacrev(score, argnums=1)(*point) for point in zip(x.flatten(1), t, strict=True)])
    eps = slope - sigma * sigma_dot * torch.stack([right_side(*point) for point in zip(x.flatten(1), t, strict=True)])
    dimensionless = sigma**2 / sigma_dot * eps
    assert torch.allclose(fokker_planck_residual(network, x, t, form), dimensionless, rtol=1e-9, atol=1e-11)
    for weighting, residual in (("dimensionless", dimensionless), ("none", eps)):
        loss = FokkerPlanck(weight=1.0, points="noised", residual=form, weighting=weighting)
        assert torch.allclose(value(loss, network, (x, t), None), residual.square().mean(), rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_hutchinson_product_is_unbiased_for_the_square_and_the_square_is_not(form, schedule, generator):
    network, copies = make_network(schedule, (3, 1), permutation_equivariant=False).double(), 150
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # curved enough that the estimate is a noisy one
    x, t = torch.rand(4, 3, 1, generator=generator).double(), torch.ones(4).double()
    exact = fokker_planck_residual(network, x, t, form).square().mean().item()
    x, t = x.repeat(copies, 1, 1), t.repeat(copies)
    first, second = hutchinson_residuals(network, x, t, form, torch.Generator().manual_seed(0))
    product, square = ((first * other).detach().view(copies, -1).mean(1) for other in (second, first))
    assert abs(product.mean() - exact) < 4 * product.std() / copies**0.5
    assert (square - product).mean() > 4 * (square - product).std() / copies**0.5
    loss = FokkerPlanck(weight=1.0, points="noised", residual=form, second_derivatives="hutchinson")
    assert value(loss, network, (x, t), None).item() == pytest.approx(product.mean().item())


@pytest.mark.parametrize("t", [0.3, 0.6, 0.9])
def test_the_exact_score_is_a_martingale_along_exact_reverse_trajectories(t, truth, problem, schedule, generator):
    """s(x_t, t) = E[s(x_t', t') | x_t] tested against functions of x_t, over pairs drawn forward: an exact kernel."""
    n, earlier = 30_000, t - 0.2
    before, after = (schedule.sigma(torch.tensor(time).double()) for time in (earlier, t))
    start = problem.sample_noised(before.expand(n), generator)
    x = (start + (after**2 - before**2).sqrt() * torch.randn(start.shape, generator=generator).double()) % 1
    times = [torch.full((n,), time).double() for time in (earlier, t)]
    kernel = wrapped_normal_score(displacement(x, start), (after**2 - before**2).sqrt())
    here = truth.score(x, times[1])
    functions = (torch.sin(2 * torch.pi * x), torch.cos(4 * torch.pi * x), here * after)
    assert all(orthogonal(there - here, functions) for there in (truth.score(start, times[0]), kernel))


def test_trajectories_lie_on_the_grid_and_start_there(problem, schedule, generator):
    regularizer = Consistency(weight=1.0, points="noised", time_steps=20)
    x, t, *_ = noised(problem, schedule, 20_000, generator)
    start, times = regularizer.start(make_network(schedule), x, t, generator)
    assert times.shape == (6, len(x)) and torch.isin(times, time_grid(20, torch.double)).all()
    assert torch.allclose(times.diff(dim=0), torch.full_like(times[1:], 1 / 20), atol=1e-12)
    assert (times[-1] >= t).all() and (times[-1] - t).max() < 0.25 + 1e-9
    # The points are carried on to p_t at the time of the grid: unit variance in units of sigma_eff.
    narrow = times[-1] < 0.7
    u = problem.standardised(start[narrow], schedule.sigma(times[-1][narrow]))
    assert u.var().item() == pytest.approx(1, abs=4 * (2 / u.numel()) ** 0.5)


@pytest.mark.parametrize("loss", ["kernel_score", "martingale_product"])
@pytest.mark.parametrize("guide", [None, "analytical"])
def test_consistency_losses_are_their_formulas_and_no_gradient_passes_through_trajectories(
    loss, guide, truth, problem, schedule, generator
):
    """N^2 - 2 N N*, or the product of the gaps along two trajectories; guided ones are all of the exact score."""
    network, batch = make_network(schedule).double(), noised(problem, schedule, 200, generator)
    regularizer = Consistency(weight=1.0, points="noised", loss=loss, guide=guide)
    start, times = regularizer.start(truth, batch.x, batch.t, torch.Generator().manual_seed(0))
    same = torch.Generator().manual_seed(0)
    torch.randn(start.shape, generator=same, dtype=start.dtype)  # what `start` drew
    mover = truth if guide else network
    ends = [predictor_corrector(mover, start, times, generator=same).detach() for _ in range(2)]
    output, (later, earlier) = network(start, times[-1]), schedule.sigma(times[[-1, 0]])[..., None, None]
    target = later * wrapped_normal_score(displacement(start, ends[0]), (later**2 - earlier**2).sqrt())
    first, second = (later * network.score(end, times[0]) - output for end in ends)
    expected = (output.square() - 2 * output * target if loss == "kernel_score" else first * second).mean()
    found = value(regularizer, network, batch, truth)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    gradients = (torch.autograd.grad(one, list(network.parameters())) for one in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
@pytest.mark.parametrize(
    ("coordinates", "dtype"), [(BASE, torch.float64), *((c, torch.float32) for c in [BASE, *OTHERS])]
)
def test_each_takes_every_shape_teaches_the_network_and_repeats_its_numbers(regularizer, coordinates, dtype, generator):
    truth = AnalyticalScoreNetwork(make_problem(coordinates), SCHEDULES[0])
    kind = {"kind": Energy, "length": 0.01} if regularizer.needs_log_density else {}
    network = make_network(truth.schedule, truth.shape, **kind).to(dtype)
    batch = networks.noised(truth.problem, truth.schedule, 64, generator, dtype=dtype)
    loss, again, other = (value(regularizer, network, batch, truth, seed) for seed in (0, 0, 1))
    assert loss.shape == () and loss.dtype == dtype and torch.isfinite(loss) and torch.equal(loss, again)
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    with torch.no_grad():  # as in validation
        assert torch.allclose(value(regularizer, network, batch, truth), loss, rtol=1e-4, atol=1e-6)
    if truth.shape != (1, 1):  # a field of one component has no curl, and but one second derivative
        random = regularizer.points == "uniform" or isinstance(regularizer, Consistency)
        assert (loss != other) == (random or "hutchinson" in repr(regularizer))
    if truth.shape != (1, 1) or regularizer is not CONSERVATIVE:
        assert gradients[-2].abs().max() > 0


@pytest.mark.parametrize("regularizer", [r for r in ALL if isinstance(r, AnalyticalRegression | Consistency)], ids=repr)
def test_no_gradient_reaches_the_truth_or_the_guide(regularizer, problem, schedule, generator):
    guide, batch = make_network(schedule, seed=5).double(), noised(problem, schedule, 16, generator)
    loss = value(regularizer, make_network(schedule).double(), batch, guide)
    assert set(torch.autograd.grad(loss, list(guide.parameters()), allow_unused=True)) == {None}


@pytest.mark.parametrize("regularizer", [r for r in ALL if isinstance(r, FokkerPlanck | Consistency)], ids=repr)
def test_the_trap_a_score_of_zero_satisfies_every_self_consistency(regularizer, truth, problem, schedule, generator):
    assert value(regularizer, Zero(schedule, (2, 1)), noised(problem, schedule, 16, generator), truth) == 0


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_regression_is_the_squared_distance_to_the_exact_score(factor, truth, problem, schedule, generator):
    batch, network = noised(problem, schedule, 16, generator), Given(truth, lambda x, t: factor * truth(x, t))
    loss = value(AnalyticalRegression(weight=1.0, points="noised"), network, batch, truth)
    assert torch.allclose(loss, (factor - 1) ** 2 * truth(batch.x, batch.t).square().mean(), atol=1e-15)
    uniform = value(AnalyticalRegression(weight=1.0, points="uniform"), network, batch, truth)
    assert (uniform == 0) == (factor == 1)


@pytest.mark.parametrize("coordinates", [BASE, OTHERS[2]])
def test_matrix_of_second_order_score_matching_has_the_exact_jacobian_as_its_mean(coordinates, schedule, generator):
    """sigma J = E[H + (T - N)(T - N)^T | x], tested against functions of x and t."""
    problem = make_problem(coordinates)
    truth, batch = AnalyticalScoreNetwork(problem, schedule), noised(problem, schedule, 4_000, generator, (0.3, 1.0))
    sigma = schedule.sigma(batch.t)[:, None]
    first, second = kernel_derivatives(batch.x, batch.x_0, sigma)
    d = derivatives(truth, batch.x, batch.t, wanted="jacobian")
    noise = first - d.value.detach()
    error = sigma[:, :, None] * d.jacobian.detach() - torch.diag_embed(second) - noise[:, :, None] * noise[:, None]
    phase = 2 * torch.pi * batch.x.flatten(1)[:, None]
    assert orthogonal(error, [phase.sin(), phase.cos(), sigma[:, :, None] * d.jacobian.detach(), torch.ones(1)])
    assert torch.allclose(value(SECOND, truth, batch, truth), error.square().mean())
    assert value(SECOND, Zero(schedule, problem.shape), batch, truth) > error.square().mean()


def test_second_order_score_matching_moves_the_jacobian_alone(problem, truth, schedule, generator):
    network = make_network(schedule).double()
    value(SECOND, network, noised(problem, schedule, 50, generator), truth).backward()
    last = network.layers[-1]  # its bias shifts N and leaves J
    assert last.weight.grad.any() and (last.bias.grad is None or not last.bias.grad.any())


@pytest.mark.parametrize("coordinates", [BASE, OTHERS[2]])
def test_derivative_in_time_of_the_exact_log_density_is_the_mean_of_the_kernels(coordinates, schedule, generator):
    """d_t log p_t = E[d_t log K | x], for a network whose log-density has any constant."""
    problem = make_problem(coordinates)
    truth, batch = ExactDensity(problem, schedule), noised(problem, schedule, 20_000, generator, (0.3, 1.0))
    t, sigma = batch.t.clone().requires_grad_(), schedule.sigma(batch.t)
    (slope,) = torch.autograd.grad(truth.log_density(batch.x, t).sum(), t)
    clean = t.detach().clone().requires_grad_()  # of the kernel itself, by automatic differentiation
    u = displacement(batch.x, batch.x_0)
    log_kernel = wrapped_normal_log_density(u, schedule.sigma(clean)[:, None, None]).sum()
    (of_kernel,) = torch.autograd.grad(log_kernel, clean)
    error = (sigma / schedule.sigma_dot(batch.t) * (slope - of_kernel))[:, None]
    phase = 2 * torch.pi * batch.x.flatten(1)
    assert orthogonal(error, [phase.sin(), phase.cos(), slope[:, None], torch.ones(1)])
    assert torch.allclose(value(DUAL, truth, batch, truth), error.square().mean() / problem.modes()[0].numel())


def test_dual_score_matching_of_an_energy_network_has_the_derivative_of_its_factor(problem, truth, schedule, generator):
    network, h = make_network(schedule, kind=Energy, length=0.03).double(), 1e-5
    batch = noised(problem, schedule, 50, generator)
    slope = (network.log_density(batch.x, batch.t + h) - network.log_density(batch.x, batch.t - h)) / (2 * h)
    sigma = schedule.sigma(batch.t)
    first, second = kernel_derivatives(batch.x, batch.x_0, sigma[:, None])
    error = slope / schedule.rate - (second + first.square()).sum(1)
    assert torch.allclose(value(DUAL, network, batch, truth), error.square().mean() / 2, rtol=1e-5)


def test_empirical_regression_is_near_zero_on_the_exact_score_and_not_elsewhere(problem, truth, schedule, generator):
    """Of 256 references at least 100 count, so the score is known to 1 / sqrt(100), in units
    of what one configuration tells, at most about 1."""
    batch = noised(problem, schedule, 2_000, generator)
    exact = value(EMPIRICAL, truth, batch, truth)
    assert 0 < exact < 1e-3
    assert value(EMPIRICAL, Given(truth, lambda x, t: 0.8 * truth(x, t)), batch, truth) > 5 * exact
    never = EmpiricalRegression(weight=1.0, points="uniform", references=20, min_effective_sample_size=100.0)
    assert value(never, make_network(schedule).double(), batch, truth) == 0
    whole = EmpiricalRegression(weight=1.0, points="uniform", references=None, min_effective_sample_size=100.0)
    assert 0 < value(whole, truth, batch, truth) < 1e-3


def test_conservative_penalty_vanishes_on_gradients_and_not_on_any_network(problem, truth, schedule, generator):
    batch = noised(problem, schedule, 50, generator)
    energy = make_network(schedule, kind=Energy, length=0.03).double()
    assert value(CONSERVATIVE, truth, batch, truth) < 1e-20  # float64 rounding, squared
    assert value(CONSERVATIVE, energy, batch, truth) < 1e-20
    network = make_network(schedule).double()
    jacobian = derivatives(network, batch.x, batch.t).jacobian
    expected = (jacobian[:, 0, 1] - jacobian[:, 1, 0]).square().mean() / 8  # two of four entries, and a quarter
    noised_points = Conservative(weight=1.0, points="noised")
    assert torch.allclose(value(noised_points, network, batch, truth), expected)
