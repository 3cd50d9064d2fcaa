"""The split of an error into the gradient that moves p_t and the rest, on fields whose split is known."""

import pytest
import torch
from conftest import BASE, OTHERS, make_problem
from mixtures import make_mixture
from subjects import SCHEDULES, Given, make_subject

from utils.evaluation.estimates import NoValue
from utils.evaluation.gradient_part import WIDER, WIDEST, bump_gradients, squared_gradient_part
from utils.evaluation.score_metrics import path_kl, path_kl_gradient_part
from utils.score.networks import AnalyticalScoreNetwork


def split(problem, error, points=2_000):
    """Return the path KL and its gradient part for a given error of the normalised score."""
    truth = AnalyticalScoreNetwork(problem, SCHEDULES[0])
    network = Given(truth, lambda x, t: truth(x, t) + error(truth, x, t))
    subject = make_subject(network, truth, per_bin=points, path_kl=20_000)
    return path_kl(subject).value, path_kl_gradient_part(subject)


def gradient(truth, x, t):
    """0.1 s: the gradient of 0.1 log p_t, with all that it has between the modes."""
    return 0.1 * truth(x, t)


def rotation(truth, x, t):
    """A grad(p f) / p with A antisymmetric, for which div(p e) = div(A grad(p f)) = 0; f = sin 2 pi (x_1 - x_2) + 2."""
    s, phase = truth(x, t).flatten(1), 2 * torch.pi * (x[:, 0, 0] - x[:, -1, -1])
    slope = torch.zeros_like(s)
    slope[:, 0], slope[:, -1] = 2 * torch.pi * phase.cos(), -2 * torch.pi * phase.cos()
    flow = (phase.sin() + 2)[:, None] * s + truth.schedule.sigma(t)[:, None] * slope
    turned = torch.zeros_like(s)
    turned[:, 0], turned[:, -1] = flow[:, -1], -flow[:, 0]
    return 0.05 * turned.view_as(x)


LAWS = [make_problem(), make_mixture([(1.0, 0.01, BASE), (4.0, 0.03, [[0.4], [0.6]])]), make_problem(OTHERS[1])]


@pytest.mark.parametrize("law", LAWS, ids=["two", "mixture", "three"])
def test_gradient_is_found_whole_and_what_moves_nothing_not_at_all(law):
    """In three components the bumps are sparser."""
    missed = 0.04 if law.shape == (2, 1) else 0.15
    whole, (found, curve) = split(law, gradient)
    assert found.value == pytest.approx(whole, rel=missed)
    still, (nothing, _) = split(law, rotation)
    assert abs(nothing.value) < missed * still
    both, (part, _) = split(law, lambda *at: gradient(*at) + rotation(*at))
    assert part.value == pytest.approx(whole, rel=2 * missed) and both > 1.5 * whole
    assert len(curve.t) == 20 and found.standard_error < 0.05 * found.value


def test_errors_of_the_fit_cancel(generator):
    """Noise has no gradient part: a fit finds one of 0.04 in its own points, and one of -0.04 in others."""
    x, centres = (LAWS[0].sample_noised(torch.full((n,), 0.01), generator) for n in (2_000, 120))
    noise = [torch.randn(x.shape, generator=generator) for _ in range(20)]
    found = [squared_gradient_part(one, x, centres, torch.full((120,), 0.01)).mean() for one in noise]
    assert abs(torch.stack(found).mean()) < 0.015


def test_gradients_of_the_bumps(generator):
    x = torch.rand(5, 2, 1, generator=generator).double().requires_grad_()
    centres, width = torch.rand(3, 2, 1, generator=generator).double(), torch.tensor([0.01, 0.03, 0.5])
    w = 2 * torch.pi * (WIDER * width.double()).clamp(max=WIDEST)
    bumps = ((2 * torch.pi * (x[:, None] - centres)).cos() - 1).sum((2, 3)).div(w**2).exp()
    exact = [torch.autograd.grad(one, x, retain_graph=True)[0].flatten(1) for one in bumps.sum(0)]
    found = bump_gradients(x.detach(), centres, width) / w
    assert torch.allclose(found * 2 * torch.pi, torch.stack(exact, -1), rtol=1e-9, atol=1e-12)


def test_in_one_component_all_but_the_circulation_is_a_gradient():
    """There e - psi' = c / p, with the integral of psi' once around 0: for e constant c = e / integral of 1 / p, and
    under a narrow p nearly all is a gradient."""
    whole, (found, _) = split(make_problem(OTHERS[0]), lambda truth, x, t: torch.full_like(x, 0.1))
    assert 0.85 * whole < found.value < whole


def test_many_components_have_none():
    with pytest.raises(NoValue, match="up to 3 components; here are 4"):
        split(make_problem(OTHERS[2]), gradient, points=4)
