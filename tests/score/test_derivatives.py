"""Both ways to the derivatives agree with torch's own and with each other, values and gradients alike."""

import itertools

import pytest
import torch
from conftest import make_network
from networks import SHAPES, points
from torch.func import jacrev, vmap

from utils.physics.noise_schedule import LinearSchedule
from utils.score.derivatives import Derivatives, by_autodiff, by_forward_mode, value_and_divergence


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("equivariant", [True, False])
def test_all_derivatives_are_those_of_torch(shape, equivariant, schedule, generator):
    network = make_network(schedule, shape, equivariant).double()
    x, t = points(shape, generator, 6)

    def field(x, t):
        return network(x.view(1, *shape), t[None]).flatten()

    functions = (field, jacrev(field, 1), jacrev(field), jacrev(jacrev(field)))
    *first, hessian = (vmap(one)(x.flatten(1), t) for one in functions)  # of the last, (point, i, k, l)
    exact = Derivatives(*first, torch.einsum("bikk->bi", hessian), torch.einsum("bkki->bi", hessian))
    names = {"all": exact._fields, "laplacian": exact._fields[:4], "jacobian": ("value", "jacobian")}
    for way, wanted in itertools.product((by_forward_mode, by_autodiff), names):
        ours = way(network, x, t, wanted)
        assert tuple(name for name in exact._fields if getattr(ours, name) is not None) == names[wanted]
        for name in names[wanted]:
            # float64 rounding over four layers; the second derivatives carry (2 pi)^2
            assert torch.allclose(getattr(ours, name), getattr(exact, name), rtol=1e-11, atol=1e-13), name
    value, divergence = value_and_divergence(network, x, t)
    assert torch.allclose(value.flatten(1), exact.value, atol=1e-15)
    assert torch.allclose(divergence, torch.einsum("bii->b", exact.jacobian), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("wanted", ["all", "laplacian", "jacobian"])
def test_gradients_with_respect_to_the_weights_agree(wanted, generator):
    """The gradient of the activation is written by hand; also on the linear schedule."""
    network = make_network(LinearSchedule(sigma_min=0.001, sigma_max=0.2), (2, 2)).double()
    x, t = points((2, 2), generator, 6)
    weights = [torch.randn(6, 4, generator=generator).double() for _ in range(5)]

    def loss(way):
        d = way(network, x, t, wanted)
        terms = [d.value, d.time, d.jacobian.sum(1), d.laplacian, d.grad_divergence]
        return sum((w * torch.sin(term)).sum() for w, term in zip(weights, terms, strict=True) if term is not None)

    parameters = list(network.parameters())
    ours, exact = (torch.autograd.grad(loss(way), parameters) for way in (by_forward_mode, by_autodiff))
    for mine, theirs in zip(ours, exact, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-11)


def test_float32_is_enough_for_training(schedule, generator):
    network, (x, t) = make_network(schedule), points((2, 1), generator, 200)
    single = by_forward_mode(network, x.float(), t.float())
    double = by_forward_mode(network.double(), x, t)
    for ours, exact in zip(single, double, strict=True):
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
