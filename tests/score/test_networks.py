"""What the networks promise whatever their weights: the perceptron, the gradient of one, and the analytical network."""

import re

import pytest
import torch
from conftest import make_network, make_problem
from networks import SHAPES, points

from utils.score.derivatives import derivatives
from utils.score.networks import AnalyticalScoreNetwork, Energy


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


@pytest.mark.parametrize(("x", "t"), [((5, 1, 2), 5), ((5, 2), 5), ((2, 1), 2), ((5, 2, 1), 4), ((5, 2, 1), ())])
def test_a_call_with_a_wrong_shape_says_which_shape_is_wanted(x, t, truth):
    x, t = torch.rand(x), torch.rand(t)
    given = f"given x {tuple(x.shape)} and t {tuple(t.shape)}"
    wanted = f"(batch, 2, 1), which is (batch, atom, dimension), and t the shape (batch,); {given}"
    for call in (truth, truth.score):
        with pytest.raises(ValueError, match=re.escape(wanted)):
            call(x, t)


def make_energy(schedule, shape=(2, 1), equivariant=True):
    return make_network(schedule, shape, equivariant, kind=Energy, length=0.03).double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("equivariant", [True, False])
def test_score_is_the_gradient_of_the_log_density(shape, equivariant, schedule, generator):
    """By automatic differentiation of phi / r, for the gradients in x and those in the weights alike. The average over
    three atoms' orders holds 1/6 in float32."""
    network, (x, t) = make_energy(schedule, shape, equivariant), points(shape, generator)
    x.requires_grad_()
    (exact,) = torch.autograd.grad(network.log_density(x, t).sum(), x, create_graph=True)
    score = network.score(x, t)
    assert torch.allclose(score, exact, rtol=1e-7)
    weights = [weight for name, weight in network.named_parameters() if name != "layers.6.bias"]  # no gradient has it
    both = (torch.autograd.grad((one**3).sum(), weights, retain_graph=True) for one in (score, exact))
    for ours, theirs in zip(*both, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7 * theirs.abs().max().item())


@pytest.mark.parametrize("shape", SHAPES)
def test_log_density_has_period_one_and_the_symmetry_of_the_atoms(shape, schedule, generator):
    network, (x, t) = make_energy(schedule, shape), points(shape, generator)
    output, score = network.log_density(x, t), network.score(x, t)
    for permutation in network.permutations:
        assert torch.allclose(network.log_density(x[:, permutation], t), output, atol=1e-12)
        assert torch.allclose(network.score(x[:, permutation], t), score[:, permutation], atol=1e-12)
    assert torch.allclose(network.log_density(x + 2, t), output, atol=1e-12)
    assert not torch.allclose(network.log_density(x + 0.3, t), output, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_curl_and_circulation_vanish(shape, schedule, generator):
    network, (x, t) = make_energy(schedule, shape), points(shape, generator)
    jacobian = derivatives(network, x, t, wanted="jacobian").jacobian
    assert (jacobian - jacobian.mT).abs().max() < 1e-12 * jacobian.abs().max()
    x = x[:, None].repeat(1, 256, 1, 1)
    x[:, :, 0, 0] += torch.arange(256) / 256  # once around, which the trapezoid rule integrates to rounding
    loop = network(x.flatten(0, 1), t.repeat_interleave(256)).view(*x.shape)[..., 0, 0]
    assert loop.mean(1).abs().max() < 1e-12 * loop.abs().max()


def test_size_is_of_order_one_at_every_noise_where_the_score_is_that_of_one_mode(schedule, generator):
    """grad phi = r s: with l = sigma_d its components have variance 1 under p_t, as long as modes do not overlap."""
    problem = make_problem()
    truth = AnalyticalScoreNetwork(problem, schedule)
    for time in (0.0, 0.3, 0.6):
        t = torch.full((4_000,), time).double()
        x = problem.sample_noised(schedule.sigma(t), generator)
        gradient = truth.score(x, t) * make_network(schedule, kind=Energy, length=0.01).radius(t)[:, None, None]
        assert gradient.square().mean().item() == pytest.approx(1, abs=4 * (2 / gradient.numel()) ** 0.5)


def test_log_density_is_highest_where_the_data_are_once_it_is_trained(schedule, generator):
    """A few steps of score matching at high noise fix the sign."""
    problem, network = make_problem(), make_energy(schedule)
    optimizer, t = torch.optim.Adam(network.parameters(), 1e-2), torch.full((200,), 0.9).double()
    for _ in range(30):
        x = problem.sample_noised(schedule.sigma(t), generator)
        loss = (network(x, t) - AnalyticalScoreNetwork(problem, schedule)(x, t)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    modes, empty = problem.modes().double(), torch.tensor([[[0.25], [0.25]], [[0.75], [0.75]]]).double()
    assert network.log_density(modes, t[:2]).min() > network.log_density(empty, t[:2]).max() + 1
