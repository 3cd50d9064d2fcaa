"""What the perceptron promises whatever its weights, and the analytical network beside it."""

import re

import pytest
import torch
from conftest import OTHERS, make_network, make_problem
from networks import SHAPES, points

from utils.score.networks import AnalyticalScoreNetwork


@pytest.mark.parametrize("shape", [*SHAPES, (4, 3)])
def test_equivariant_network_is_its_average_over_permutations_and_commutes_with_each(shape, schedule, generator):
    """1/N! sum_P P^-1 f(P x), one permutation after another."""
    network, (x, t) = make_network(schedule, shape).double(), points(shape, generator)
    output, expected = network(x, t), torch.zeros_like(x)
    for permutation in network.permutations:
        expected[:, permutation] += network.perceptron(x[:, permutation], t).view_as(x) / len(network.permutations)
        assert torch.allclose(network(x[:, permutation], t), output[:, permutation], atol=1e-14)
    assert torch.allclose(output, expected, atol=1e-14)


@pytest.mark.parametrize("equivariant", [True, False])
def test_network_has_period_one_but_is_not_translation_invariant(equivariant, schedule, generator):
    network, (x, t) = make_network(schedule, permutation_equivariant=equivariant).double(), points((2, 1), generator)
    output = network(x, t)
    assert torch.allclose(network(x + torch.tensor([[1.0], [-3.0]]), t), output, atol=1e-13)
    assert not torch.allclose(network(x + 0.3, t), output, atol=1e-3)
    assert torch.allclose(network(x.flip(1), t), output.flip(1), atol=1e-3) == equivariant


@pytest.mark.parametrize("coordinates", OTHERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_are_called_alike_and_the_analytical_one_is_the_exact_score(coordinates, dtype, schedule, generator):
    problem = make_problem(coordinates)
    x, t = (tensor.to(dtype) for tensor in points(problem.shape, generator))
    truth = AnalyticalScoreNetwork(problem, schedule)
    for network in (make_network(schedule, problem.shape).to(dtype), truth):
        output = network(x, t)
        assert output.shape == x.shape and output.dtype == dtype
        assert torch.allclose(network.score(x, t) * schedule.sigma(t)[:, None, None], output, rtol=1e-5)
    assert torch.allclose(truth.score(x, t), problem.score(x, schedule.sigma(t))) and not list(truth.parameters())


@pytest.mark.parametrize(("x", "t"), [((5, 1, 2), 5), ((5, 2), 5), ((2, 1), 2), ((5, 2, 1), 4), ((5, 2, 1), ())])
def test_a_call_with_a_wrong_shape_says_which_shape_is_wanted(x, t, truth):
    x, t = torch.rand(x), torch.rand(t)
    given = f"given x {tuple(x.shape)} and t {tuple(t.shape)}"
    wanted = f"(batch, 2, 1), which is (batch, atom, dimension), and t the shape (batch,); {given}"
    for call in (truth, truth.score):
        with pytest.raises(ValueError, match=re.escape(wanted)):
            call(x, t)
