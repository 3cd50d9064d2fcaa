"""What the theory promises of each regularizer, on the exact score and on any network."""

import pytest
import torch
from conftest import BASE, OTHERS, make_network, make_problem
from mixtures import for_laws
from networks import Zero
from pydantic import ValidationError
from subjects import Given

from utils.physics.noise_schedule import ExponentialSchedule, LinearSchedule, time_grid
from utils.physics.torus import displacement, wrapped_normal_score
from utils.score.derivatives import derivatives
from utils.score.networks import AnalyticalScoreNetwork
from utils.score.regularizers import AnalyticalRegression, Consistency, FokkerPlanck
from utils.score.residuals import fokker_planck_residual, hutchinson_residuals, residual_from
from utils.score.samplers import predictor_corrector

FORMS = ["score_fpe", "advective"]
SCHEDULES = [ExponentialSchedule(sigma_min=0.001, sigma_max=0.2), LinearSchedule(sigma_min=0.01, sigma_max=0.2)]
ALL = [
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


def noised(problem, schedule, number, generator, t=None):
    t = torch.rand(number, generator=generator).double() if t is None else torch.full((number,), t).double()
    return problem.sample_noised(schedule.sigma(t), generator), t


def value(regularizer, network, x, t, truth, seed=0):
    return regularizer(network, x, t, truth=truth, generator=torch.Generator().manual_seed(seed))


@for_laws(lambda law: law.permutation_symmetric)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_score_solves_the_fokker_planck_equation(law, schedule, generator):
    """Rounding: the terms cancel, and the largest, sigma^2 times second derivatives of N, grows like 1/sigma_eff^2."""
    truth = AnalyticalScoreNetwork(law, schedule)
    x, t = noised(law, schedule, 100, generator)
    for where, tolerance in ((x, 1e-12), (torch.rand(x.shape, generator=generator).double(), 1e-9)):
        d = derivatives(truth, where, t)
        assert all(residual_from(d, truth, t, form).abs().max() < tolerance for form in FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_residual_and_penalties_are_their_definition_in_terms_of_the_score(form, schedule, generator):
    """eps = d_t s - sigma sigma_dot grad(div s + |s|^2), or the advective form, by automatic differentiation of s."""
    network, jacrev = make_network(schedule).double(), torch.func.jacrev
    x, t = torch.rand(3, 2, 1, generator=generator).double(), torch.rand(3, generator=generator).double()

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
        assert torch.allclose(value(loss, network, x, t, None), residual.square().mean(), rtol=1e-9)


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
    assert value(loss, network, x, t, None, seed=0).item() == pytest.approx(product.mean().item())


@pytest.mark.parametrize("t", [0.3, 0.6, 0.9])
def test_the_exact_score_is_a_martingale_along_exact_reverse_trajectories(t, truth, problem, schedule, generator):
    """s(x_t, t) = E[s(x_t', t') | x_t] tested against functions of x_t, over pairs drawn forward: an exact kernel."""
    n, earlier = 30_000, t - 0.2
    before, after = (schedule.sigma(torch.tensor(time).double()) for time in (earlier, t))
    start, _ = noised(problem, schedule, n, generator, earlier)
    x = (start + (after**2 - before**2).sqrt() * torch.randn(start.shape, generator=generator).double()) % 1
    times = [torch.full((n,), time).double() for time in (earlier, t)]
    kernel = wrapped_normal_score(displacement(x, start), (after**2 - before**2).sqrt())
    here = truth.score(x, times[1])
    for there in (truth.score(start, times[0]), kernel):
        for test in (torch.sin(2 * torch.pi * x), torch.cos(4 * torch.pi * x), here * after):
            terms = ((there - here) * test).sum((1, 2))
            assert abs(terms.mean()) < 4.5 * terms.std() / n**0.5  # 18 such tests: four and a half standard errors


def test_consistency_gap_of_the_exact_score_on_a_ridge_vanishes_with_the_step(truth, generator):
    """At a fixed span of time. On a ridge the score turns; at noised points the gap is 0, says test_evaluate.py."""
    aside = 0.003 * (2 * torch.rand(4_000, generator=generator).double() - 1)
    ridge, t = torch.stack([0.5 + aside, 0.5 - aside], 1)[:, :, None], torch.full((4_000,), 0.7).double()
    settings = {"weight": 1.0, "points": "noised", "loss": "martingale_product"}
    coarse, fine = (
        value(Consistency(**settings, time_steps=20 * n, number_of_steps=n), truth, ridge, t, truth) for n in (2, 20)
    )
    assert coarse > 6 and fine < coarse / 3  # 8.6 and 0.6, each +- 0.5


def test_trajectories_lie_on_the_grid_and_start_there(problem, schedule, generator):
    regularizer = Consistency(weight=1.0, points="noised", time_steps=20)
    x, t = noised(problem, schedule, 20_000, generator)
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
    network, (x, t) = make_network(schedule).double(), noised(problem, schedule, 200, generator)
    regularizer = Consistency(weight=1.0, points="noised", loss=loss, guide=guide)
    start, times = regularizer.start(truth, x, t, torch.Generator().manual_seed(0))
    same = torch.Generator().manual_seed(0)
    torch.randn(x.shape, generator=same, dtype=x.dtype)  # what `start` drew
    mover = truth if guide else network
    ends = [predictor_corrector(mover, start, times, generator=same).detach() for _ in range(2)]
    output, (later, earlier) = network(start, times[-1]), schedule.sigma(times[[-1, 0]])[..., None, None]
    target = later * wrapped_normal_score(displacement(start, ends[0]), (later**2 - earlier**2).sqrt())
    first, second = (later * network.score(end, times[0]) - output for end in ends)
    expected = (output.square() - 2 * output * target if loss == "kernel_score" else first * second).mean()
    found = value(regularizer, network, x, t, truth)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    gradients = (torch.autograd.grad(one, list(network.parameters())) for one in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_one_step_and_steps_that_do_not_fit_are_refused():
    for steps in (1, 101):
        with pytest.raises(ValidationError):
            Consistency(weight=1.0, points="uniform", number_of_steps=steps)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_regularizer_takes_every_shape_and_teaches_the_network(regularizer, coordinates, dtype, generator):
    schedule, problem = SCHEDULES[0], make_problem(coordinates)
    truth, network = AnalyticalScoreNetwork(problem, schedule), make_network(schedule, problem.shape).to(dtype)
    x, t = (tensor.to(dtype) for tensor in noised(problem, schedule, 16, generator))
    loss = value(regularizer, network, x, t, truth)
    assert loss.shape == () and loss.dtype == dtype and torch.isfinite(loss)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients) and gradients[-2].abs().max() > 0
    with torch.no_grad():  # as in validation
        assert torch.allclose(value(regularizer, network, x, t, truth), loss, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("regularizer", [r for r in ALL if not isinstance(r, FokkerPlanck)], ids=repr)
def test_no_gradient_reaches_the_truth_or_the_guide(regularizer, truth, problem, schedule, generator):
    guide, (x, t) = make_network(schedule, seed=5).double(), noised(problem, schedule, 16, generator)
    loss = value(regularizer, make_network(schedule).double(), x, t, guide)
    assert set(torch.autograd.grad(loss, list(guide.parameters()), allow_unused=True)) == {None}


@pytest.mark.parametrize("regularizer", [r for r in ALL if isinstance(r, FokkerPlanck | Consistency)], ids=repr)
def test_the_trap_a_score_of_zero_satisfies_every_self_consistency(regularizer, truth, problem, schedule, generator):
    x, t = noised(problem, schedule, 16, generator)
    assert value(regularizer, Zero(schedule, (2, 1)), x, t, truth) == 0


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_regression_is_the_squared_distance_to_the_exact_score(factor, truth, problem, schedule, generator):
    x, t = noised(problem, schedule, 16, generator)
    network = Given(truth, lambda x, t: factor * truth(x, t))
    loss = value(AnalyticalRegression(weight=1.0, points="noised"), network, x, t, truth)
    assert torch.allclose(loss, (factor - 1) ** 2 * truth(x, t).square().mean(), atol=1e-15)
    uniform = value(AnalyticalRegression(weight=1.0, points="uniform"), network, x, t, truth)
    assert (uniform == 0) == (factor == 1)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
def test_equal_generators_give_equal_values(regularizer, truth, problem, schedule, generator):
    network, (x, t) = make_network(schedule).double(), noised(problem, schedule, 16, generator)
    first, again, other = (value(regularizer, network, x, t, truth, seed) for seed in (0, 0, 1))
    assert first == again
    random = regularizer.points == "uniform" or not isinstance(regularizer, AnalyticalRegression | FokkerPlanck)
    random = random or getattr(regularizer, "second_derivatives", "") == "hutchinson"
    assert (first != other) == random
