"""Regularizers that need what the points are noised from, or the training set: identities on the exact score."""

import pytest
import torch
from conftest import BASE, OTHERS, make_network, make_problem
from networks import Zero
from subjects import Given

from utils.files import UserError
from utils.physics.noise_schedule import ExponentialSchedule
from utils.physics.torus import displacement, wrap, wrapped_normal_log_density, wrapped_normal_score
from utils.runs.loading import configure
from utils.score.derivatives import derivatives
from utils.score.networks import AnalyticalScoreNetwork, Energy
from utils.score.regularizers import (
    Conservative,
    DualScoreMatching,
    EmpiricalRegression,
    SecondOrderScoreMatching,
    kernel_derivatives,
)
from utils.score.targets import Noised

SCHEDULE = ExponentialSchedule(sigma_min=0.001, sigma_max=0.2)
SECOND, DUAL = SecondOrderScoreMatching(weight=1.0), DualScoreMatching(weight=1.0)
EMPIRICAL = EmpiricalRegression(weight=1.0, points="uniform", references=256, min_effective_sample_size=100.0)
CONSERVATIVE = Conservative(weight=1.0, points="uniform")


class ExactDensity(AnalyticalScoreNetwork):
    """The exact score, with its log-density beside it, as an energy network has it."""

    def log_density(self, x, t):
        return self.problem.log_density(x, self.schedule.sigma(t)) + 3.0


def noised(problem, n, generator, times=(0.0, 1.0)):
    """Permuted data, noised at times uniform between two, float64."""
    t = (times[0] + (times[1] - times[0]) * torch.rand(n, generator=generator)).double()
    x_0, sigma = problem.sample_noised(torch.zeros_like(t), generator), SCHEDULE.sigma(t)[:, None, None]
    x = wrap(x_0 + sigma * torch.randn(x_0.shape, generator=generator).double())
    return Noised(x, t, sigma * wrapped_normal_score(displacement(x, x_0), sigma), x_0)


def value(regularizer, network, batch, problem, seed=0):
    training_set = problem.sample(500, torch.Generator().manual_seed(5))
    known = {"training_set": training_set, "truth": AnalyticalScoreNetwork(problem, SCHEDULE)}
    return regularizer.on_batch(network, batch, **known, generator=torch.Generator().manual_seed(seed))


def orthogonal(error, functions):
    """Whether an error, (batch, ...), has no correlation with functions of x and t: its mean given x is 0."""
    for function in functions:
        products = (error * function).flatten(1).sum(1)
        if abs(products.mean()) > 4.5 * products.std() / len(products) ** 0.5:
            return False
    return True


@pytest.mark.parametrize("coordinates", [BASE, OTHERS[2]])
def test_matrix_of_second_order_score_matching_has_the_exact_jacobian_as_its_mean(coordinates, generator):
    """sigma J = E[H + (T - N)(T - N)^T | x], tested against functions of x and t."""
    problem = make_problem(coordinates)
    truth, batch = AnalyticalScoreNetwork(problem, SCHEDULE), noised(problem, 4_000, generator, (0.3, 1.0))
    sigma = SCHEDULE.sigma(batch.t)[:, None]
    first, second = kernel_derivatives(batch.x, batch.x_0, sigma)
    d = derivatives(truth, batch.x, batch.t, wanted="jacobian")
    noise = first - d.value.detach()
    error = sigma[:, :, None] * d.jacobian.detach() - torch.diag_embed(second) - noise[:, :, None] * noise[:, None]
    phase = 2 * torch.pi * batch.x.flatten(1)[:, None]
    assert orthogonal(error, [phase.sin(), phase.cos(), sigma[:, :, None] * d.jacobian.detach(), torch.ones(1)])
    assert torch.allclose(value(SECOND, truth, batch, problem), error.square().mean())
    assert value(SECOND, Zero(SCHEDULE, problem.shape), batch, problem) > error.square().mean()


def test_second_order_score_matching_moves_the_jacobian_alone(generator):
    problem, network = make_problem(), make_network(SCHEDULE).double()
    value(SECOND, network, noised(problem, 50, generator), problem).backward()
    last = network.layers[-1]  # its bias shifts N and leaves J
    assert last.weight.grad.any() and (last.bias.grad is None or not last.bias.grad.any())


@pytest.mark.parametrize("coordinates", [BASE, OTHERS[2]])
def test_derivative_in_time_of_the_exact_log_density_is_the_mean_of_the_kernels(coordinates, generator):
    """d_t log p_t = E[d_t log K | x], for a network whose log-density has any constant."""
    problem = make_problem(coordinates)
    truth, batch = ExactDensity(problem, SCHEDULE), noised(problem, 20_000, generator, (0.3, 1.0))
    t, sigma = batch.t.clone().requires_grad_(), SCHEDULE.sigma(batch.t)
    (slope,) = torch.autograd.grad(truth.log_density(batch.x, t).sum(), t)
    clean = t.detach().clone().requires_grad_()  # of the kernel itself, by automatic differentiation
    u = displacement(batch.x, batch.x_0)
    log_kernel = wrapped_normal_log_density(u, SCHEDULE.sigma(clean)[:, None, None]).sum()
    (of_kernel,) = torch.autograd.grad(log_kernel, clean)
    error = (sigma / SCHEDULE.sigma_dot(batch.t) * (slope - of_kernel))[:, None]
    phase = 2 * torch.pi * batch.x.flatten(1)
    assert orthogonal(error, [phase.sin(), phase.cos(), slope[:, None], torch.ones(1)])
    assert torch.allclose(value(DUAL, truth, batch, problem), error.square().mean() / problem.modes()[0].numel())


def test_dual_score_matching_of_an_energy_network_has_the_derivative_of_its_factor(generator):
    problem, batch = make_problem(), noised(make_problem(), 50, generator)
    network, h = make_network(SCHEDULE, kind=Energy, length=0.03).double(), 1e-5
    slope = (network.log_density(batch.x, batch.t + h) - network.log_density(batch.x, batch.t - h)) / (2 * h)
    sigma = SCHEDULE.sigma(batch.t)
    first, second = kernel_derivatives(batch.x, batch.x_0, sigma[:, None])
    error = slope / SCHEDULE.rate - (second + first.square()).sum(1)
    assert torch.allclose(value(DUAL, network, batch, problem), error.square().mean() / 2, rtol=1e-5)


def test_dual_score_matching_needs_an_energy_network():
    with pytest.raises(UserError, match=r"score_network\.type: should be energy for dual_score_matching, given"):
        configure("no_regularizer", ["regularizer={type: dual_score_matching, weight: 0.1}"])


def test_empirical_regression_is_near_zero_on_the_exact_score_and_not_elsewhere(generator):
    """256 references, of which at least 100 count, of 500 configurations: the score is known to 1 / sqrt(100), in units
    of what one configuration tells, at most about 1."""
    problem = make_problem()
    truth, batch = AnalyticalScoreNetwork(problem, SCHEDULE), noised(problem, 2_000, generator)
    exact = value(EMPIRICAL, truth, batch, problem)
    assert 0 < exact < 1e-3
    assert value(EMPIRICAL, Given(truth, lambda x, t: 0.8 * truth(x, t)), batch, problem) > 5 * exact
    never = EmpiricalRegression(weight=1.0, points="uniform", references=20, min_effective_sample_size=100.0)
    assert value(never, make_network(SCHEDULE).double(), batch, problem) == 0
    whole = EmpiricalRegression(weight=1.0, points="uniform", references=None, min_effective_sample_size=100.0)
    assert 0 < value(whole, truth, batch, problem) < 1e-3


def test_conservative_penalty_vanishes_on_gradients_and_not_on_any_network(generator):
    problem = make_problem()
    truth, batch = AnalyticalScoreNetwork(problem, SCHEDULE), noised(problem, 50, generator)
    energy = make_network(SCHEDULE, kind=Energy, length=0.03).double()
    assert value(CONSERVATIVE, truth, batch, problem) < 1e-20  # float64 rounding, squared
    assert value(CONSERVATIVE, energy, batch, problem) < 1e-20
    network = make_network(SCHEDULE).double()
    jacobian = derivatives(network, batch.x, batch.t).jacobian
    expected = (jacobian[:, 0, 1] - jacobian[:, 1, 0]).square().mean() / 8  # two of four entries, and a quarter
    noised_points = Conservative(weight=1.0, points="noised")
    assert torch.allclose(value(noised_points, network, batch, problem), expected)


@pytest.mark.parametrize("regularizer", [SECOND, DUAL, EMPIRICAL, CONSERVATIVE], ids=repr)
@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_each_takes_every_shape_teaches_the_network_and_repeats_its_numbers(regularizer, coordinates, generator):
    problem = make_problem(coordinates)
    kind = {"kind": Energy, "length": 0.01} if regularizer is DUAL else {}
    network = make_network(SCHEDULE, problem.shape, **kind)
    batch = Noised(*(part.float() for part in noised(problem, 64, generator)))
    loss, again = (value(regularizer, network, batch, problem) for _ in range(2))
    assert loss.shape == () and torch.isfinite(loss) and torch.equal(loss, again)
    if regularizer is not CONSERVATIVE or problem.shape != (1, 1):  # a field of one component has no curl
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        assert max(g.abs().max() for g in gradients if g is not None) > 0
    with torch.no_grad():  # as in validation
        assert torch.allclose(value(regularizer, network, batch, problem), loss, rtol=1e-4, atol=1e-6)
