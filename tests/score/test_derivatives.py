"""Both ways to the derivatives agree with each other and with finite differences, values and gradients alike."""

import pytest
import torch
from conftest import OTHERS, make_network, make_problem

from utils.physics.noise_schedule import LinearSchedule
from utils.score.derivatives import by_autodiff, by_forward_mode, derivatives
from utils.score.networks import AnalyticalScoreNetwork

SHAPES = [(2, 1), (1, 1), (3, 1), (2, 2)]


def points(shape, generator, number=6):
    x, t = torch.rand(number, *shape, generator=generator), torch.rand(number, generator=generator)
    return x.double(), t.double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("equivariant", [True, False])
def test_forward_mode_equals_automatic_differentiation(shape, equivariant, schedule, generator):
    network = make_network(schedule, shape, equivariant).double()
    x, t = points(shape, generator)
    exact = by_autodiff(network, x, t)
    every = ["value", "time", "jacobian", "laplacian", "grad_divergence"]
    for wanted, names in (("all", every), ("laplacian", every[:4]), ("jacobian", ["value", "jacobian"])):
        ours = by_forward_mode(network, x, t, wanted)
        for way in (ours, by_autodiff(network, x, t, wanted)):
            assert [name for name in every if getattr(way, name) is not None] == names
        for name in names:
            # float64 rounding over four layers; the second derivatives carry (2 pi)^2
            assert torch.allclose(getattr(ours, name), getattr(exact, name), rtol=1e-11, atol=1e-13), name
    assert torch.allclose(exact.value, network(x, t).flatten(1), atol=1e-15)


@pytest.mark.parametrize("wanted", ["all", "laplacian", "jacobian"])
def test_gradients_with_respect_to_the_weights_agree(wanted, generator):
    """The gradient of the activation is written by hand; also on the linear schedule."""
    network = make_network(LinearSchedule(sigma_min=0.001, sigma_max=0.2), (2, 2)).double()
    x, t = points((2, 2), generator)
    weights = [torch.randn(6, 4, generator=generator).double() for _ in range(5)]

    def loss(way):
        d = way(network, x, t, wanted)
        terms = [d.value, d.time, d.jacobian.sum(1), d.laplacian, d.grad_divergence]
        return sum((w * torch.sin(term)).sum() for w, term in zip(weights, terms, strict=True) if term is not None)

    parameters = list(network.parameters())
    ours, exact = (torch.autograd.grad(loss(way), parameters) for way in (by_forward_mode, by_autodiff))
    for mine, theirs in zip(ours, exact, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("which", ["perceptron", "analytical"])
@pytest.mark.parametrize("shape", [0, 2])
def test_derivatives_are_those_of_finite_differences(which, shape, schedule, generator):
    problem = make_problem(OTHERS[2] if shape else [[0.25], [0.75]])
    network = make_network(schedule, problem.shape).double()
    network = network if which == "perceptron" else AnalyticalScoreNetwork(problem, schedule)
    x, _ = points(problem.shape, generator)
    t = torch.linspace(0.7, 0.95, 6).double()  # where the exact score is smooth on the scale of the step
    d, h, size = derivatives(network, x, t), 1e-4, x[0].numel()
    units = torch.eye(size).double().view(size, *problem.shape)

    def at(shift):
        return network(x + h * shift, t).flatten(1)

    def close(ours, difference):
        # Central differences err by h^2 times two more derivatives, each 1/sigma_eff < 20 here.
        assert (ours - difference).abs().max() < 1e-4 * max(1, difference.abs().max())

    close(d.time, (network(x, t + h) - network(x, t - h)).flatten(1) / (2 * h))
    close(d.jacobian, torch.stack([(at(e) - at(-e)) / (2 * h) for e in units], -1))
    close(d.laplacian, sum(at(e) - 2 * at(0 * e) + at(-e) for e in units) / h**2)
    mixed = [
        sum((at(e + f) - at(e - f) - at(f - e) + at(-e - f))[:, k] for k, f in enumerate(units)) / (4 * h**2)
        for e in units
    ]
    close(d.grad_divergence, torch.stack(mixed, 1))


def test_float32_is_enough_for_training(schedule, generator):
    network, (x, t) = make_network(schedule), points((2, 1), generator, 200)
    single = by_forward_mode(network, x.float(), t.float())
    double = by_forward_mode(network.double(), x, t)
    for ours, exact in zip(single, double, strict=True):
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
