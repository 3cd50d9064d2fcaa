"""The sampler on the exact score: known widths, composition, invariance."""

import pytest
import torch
from conftest import make_network, make_problem
from mixtures import make_mixture

from utils.physics.noise_schedule import time_grid
from utils.physics.torus import wrap
from utils.randomness import keyed_generator
from utils.score.networks import AnalyticalScoreNetwork
from utils.score.samplers import CHUNK, Sampling, predictor_corrector, sampler_width_ratio


def test_oracle_recursion_has_known_widths(schedule):
    for steps, expected in ((21, 1.147), (50, 1.061), (100, 1.032)):  # in units of sigma_d; the target is 1.005
        oracle = sampler_width_ratio(0.01, schedule, time_grid(steps))
        assert oracle * 1.01**0.5 == pytest.approx(expected, abs=6e-4)
    assert sampler_width_ratio(0.01, schedule, torch.zeros(2)) == pytest.approx(1)  # a grid that stands still


@pytest.mark.parametrize(("law", "steps"), [(make_problem(), 21), (make_problem(), 100), (make_mixture(), 100)])
def test_exact_score_reaches_the_weights_and_the_widths_of_the_oracle(law, steps, schedule, generator):
    truth, n, times = AnalyticalScoreNetwork(law, schedule), 4_000, time_grid(steps)
    x = predictor_corrector(truth, torch.rand(n, 2, 1, generator=generator), times, generator=generator)
    u, mode, _ = law.nearest_mode(x, torch.full((n,), 0.001))
    several = len(law.components) > 1  # then the grid costs up to 0.02 of a share, and 0.01 of a width
    for k, component in enumerate(law.components):
        cloud = u[mode // 2 == k]
        assert abs(len(cloud) / n - component.weight / sum(c.weight for c in law.components)) < 0.05
        width = (component.width**2 + 1e-6) ** 0.5 * sampler_width_ratio(component.width, schedule, times)
        found, errors = cloud.square().mean().sqrt().item(), 4 / (2 * cloud.numel()) ** 0.5
        assert found == pytest.approx(width, rel=0.01 * several + errors)
        assert cloud.flatten(1).norm(dim=1).max() < 6.5 * width  # no strays: exp(-21) of each


def test_time_grid_may_be_walked_in_parts_and_no_gradient_passes(truth, generator):
    times, x = time_grid(12), torch.rand(50, 2, 1, generator=generator, requires_grad=True)
    whole = predictor_corrector(truth, x, times, corrector_steps=1, generator=torch.Generator().manual_seed(1))
    same = torch.Generator().manual_seed(1)
    for part in (times[8:], times[3:9], times[:4]):
        x = predictor_corrector(truth, x, part, corrector_steps=1, generator=same)
    assert torch.equal(x, whole) and not whole.requires_grad


def test_one_step_of_predictor_and_corrector_is_its_formula(truth, schedule):
    x, times = torch.tensor([[[0.3], [0.9]]], dtype=torch.double), torch.tensor([0.2, 0.5], dtype=torch.double)
    same = torch.Generator().manual_seed(3)
    z, other_z = (torch.randn(1, 2, 1, generator=same, dtype=torch.double) for _ in range(2))
    g = schedule.sigma(times[1]) ** 2 - schedule.sigma(times[0]) ** 2
    expected = wrap(x + g * truth.score(x, times[1:]) + g.sqrt() * z)
    e = 0.5 * 2.5e-8 * schedule.sigma(times[0]) ** 2 / 0.001**2
    expected = wrap(expected + e * truth.score(expected, times[:1]) + (2 * e).sqrt() * other_z)
    sampled = predictor_corrector(truth, x, times, corrector_steps=1, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(sampled, expected, atol=1e-15)


def test_every_sample_may_have_its_own_times(truth):
    x, parts = torch.rand(2, 2, 1, generator=torch.Generator().manual_seed(0)), (time_grid(10)[:4], time_grid(10)[5:9])
    together = predictor_corrector(truth, x, torch.stack(parts, 1), generator=torch.Generator())
    for i, times in enumerate(parts):
        alone = predictor_corrector(truth, x, times, generator=torch.Generator())
        assert torch.allclose(together[i], alone[i], atol=1e-6)


@pytest.mark.parametrize("t", [0.3, 0.8])
def test_corrector_leaves_the_exact_law_alone_and_leads_to_it(t, schedule, generator):
    """A grid that stands still leaves only the corrector."""
    problem, n, e = make_problem(permutation_symmetric=False), 2_000, 0.05
    truth, times = AnalyticalScoreNetwork(problem, schedule), torch.full((n,), t)
    sigma = schedule.sigma(times)
    width = (0.01**2 + sigma[0].item() ** 2) ** 0.5
    exact = truth.score(problem.sample_noised(sigma, generator), times).double()
    # Steps of e sigma_eff^2: 120 of them are 12 relaxation times of the variance.
    epsilon = 2 * e * width**2 * 0.001**2 / sigma[0].item() ** 2
    for start in (problem.sample_noised(sigma, generator), problem.sample(n, generator)):
        steps = {"corrector_steps": 120, "corrector_epsilon": epsilon}
        x = predictor_corrector(truth, start, torch.full((2,), t), **steps, generator=generator)
        score = truth.score(x, times).double()
        ours, theirs = ((s**2).sum((1, 2)) * width**2 for s in (score, exact))  # 2 where nothing is wrapped
        assert abs(ours.mean() - theirs.mean()) < 4 * ((ours.var() + theirs.var()) / n).sqrt() + e / 2 * theirs.mean()


@pytest.mark.parametrize("start", ["uniform", "exact"])
def test_samples_are_drawn_in_chunks_and_kept_on_the_way(start, schedule):
    network, law = make_network(schedule), make_mixture()
    sampling = Sampling(number_of_samples=CHUNK + 3, time_steps=7, corrector_steps=1, start=start, seed=5)
    kept = sampling.draw(network, law)
    assert list(kept) == sampling.times.flip(0).tolist()  # at most STOPS = 11 times
    generator = keyed_generator(5, "sampling")
    for n, part in ((CHUNK, slice(CHUNK)), (3, slice(CHUNK, None))):
        at_one = schedule.sigma(torch.ones(n))
        x = law.sample_noised(at_one, generator) if start == "exact" else torch.rand(n, 2, 1, generator=generator)
        assert torch.equal(kept[1.0][part], x)
        x = predictor_corrector(network, x, sampling.times, corrector_steps=1, generator=generator)
        assert torch.equal(kept[0.0][part], x)
