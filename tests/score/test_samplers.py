"""The sampler on the exact score: known widths, composition, invariance."""

import gc

import pytest
import torch
from conftest import make_problem

from utils.evaluation.sample_metrics import sampler_width_ratio, stationary_width, width_ratio
from utils.physics.noise_schedule import time_grid
from utils.physics.torus import wrap
from utils.score.networks import AnalyticalScoreNetwork
from utils.score.samplers import predictor_corrector


@pytest.mark.parametrize(("steps", "expected"), [(21, 1.147), (50, 1.061), (100, 1.032)])
def test_exact_score_reaches_the_width_of_the_oracle_recursion(steps, expected, truth, problem, schedule, generator):
    # `expected` is known to three decimals, in units of sigma_d; its target is sigma_0 / sigma_d = 1.005.
    oracle = sampler_width_ratio(problem, schedule, time_grid(steps))
    assert oracle * stationary_width(problem, schedule) / problem.sigma_d == pytest.approx(expected, abs=6e-4)
    x = predictor_corrector(truth, torch.rand(8_000, 2, 1, generator=generator), time_grid(steps), generator=generator)
    width = width_ratio(x, problem, stationary_width(problem, schedule))
    assert width.number_of_points == 8_000  # no strays
    assert abs(width.value - oracle) < 4 * width.standard_error


def test_time_grid_may_be_walked_in_parts(truth, generator):
    times, x = time_grid(12), torch.rand(50, 2, 1, generator=generator)
    whole = predictor_corrector(truth, x, times, corrector_steps=1, generator=torch.Generator().manual_seed(1))
    same = torch.Generator().manual_seed(1)
    for part in (times[8:], times[3:9], times[:4]):
        x = predictor_corrector(truth, x, part, corrector_steps=1, generator=same)
    assert torch.equal(x, whole)
    assert ((whole >= 0) & (whole < 1)).all()


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
    x, grid = torch.rand(2, 2, 1, generator=torch.Generator().manual_seed(0)), time_grid(10)
    together = predictor_corrector(truth, x, torch.stack([grid[:4], grid[5:9]], 1), generator=torch.Generator())
    separate = [
        predictor_corrector(truth, x.clone(), times, generator=torch.Generator())[i]
        for i, times in enumerate((grid[:4], grid[5:9]))
    ]
    assert torch.allclose(together, torch.stack(separate), atol=1e-6)


@pytest.mark.parametrize("t", [0.3, 0.8])
def test_corrector_leaves_the_exact_law_alone_and_leads_to_it(t, schedule, generator):
    """A grid that stands still leaves only the corrector."""
    problem = make_problem(permutation_symmetric=False)
    truth, n = AnalyticalScoreNetwork(problem, schedule), 4_000
    sigma = schedule.sigma(torch.full((n,), t))
    width = problem.effective_sigma(sigma[0]).item()
    for start in (problem.sample_noised(sigma, generator), problem.sample(n, generator)):
        # The epsilon makes a step e = 0.02 sigma_eff^2: 300 steps are 12 relaxation times, and the width is off by e/4.
        epsilon = 2 * 0.02 * width**2 * 0.001**2 / sigma[0].item() ** 2
        x = predictor_corrector(
            truth, start, torch.full((2,), t), corrector_steps=300, corrector_epsilon=epsilon, generator=generator
        )
        u, _ = problem.nearest_mode(x)
        if width < 0.1:  # where modes overlap the nearest-mode width is not that of one Gaussian
            assert u.std().item() / width == pytest.approx(1, abs=0.005 + 4 / (4 * n) ** 0.5)
        score = truth.score(x, torch.full((n,), t)).double()
        fisher = (score**2).sum((1, 2)) * width**2  # E|s|^2 = 2 / sigma_eff^2 for two components, less where wrapped
        exact = truth.score(problem.sample_noised(sigma, generator), torch.full((n,), t)).double()
        reference = (exact**2).sum((1, 2)) * width**2
        error = (fisher.var() / n + reference.var() / n).sqrt()
        assert abs(fisher.mean() - reference.mean()) < 4 * error + 0.02 * reference.mean()


def test_no_gradient_passes(truth):
    x = torch.rand(3, 2, 1, requires_grad=True)
    assert not predictor_corrector(truth, x, time_grid(2)).requires_grad


def test_memory_does_not_grow_with_the_number_of_steps(truth, generator):
    """Counted are all tensors with as many rows as there are samples, which are alive when a step begins."""
    alive = []

    def count(*_):
        looked = len(alive) in (3, 18)  # it takes a tenth of a second
        objects = gc.get_objects() if looked else []
        alive.append(sum(type(one) is torch.Tensor and 37 in one.shape for one in objects))

    truth.register_forward_pre_hook(count)
    predictor_corrector(truth, torch.rand(37, 2, 1, generator=generator), time_grid(20), generator=generator)
    assert len(alive) == 20 and 1 <= alive[18] <= alive[3]
