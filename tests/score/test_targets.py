"""Targets of score matching: their mean is the exact score, and they vary less than the denoising target."""

import pytest
import torch
from conftest import BASE, OTHERS, make_problem
from mixtures import make_mixture
from networks import noised, orthogonal

from utils.physics.torus import displacement
from utils.score.targets import StableTargets, TargetScoreMatching

STABLE = StableTargets(type="stable", references=64, min_effective_sample_size=40.0)


def made(rule, data, problem, schedule, training_set=None, seed=1):
    training_set = problem.sample(8192, torch.Generator().manual_seed(5)) if training_set is None else training_set
    generator = torch.Generator().manual_seed(seed)
    return rule(data, training_set, problem=problem, schedule=schedule, generator=generator)


def exact(problem, schedule, data):
    sigma = schedule.sigma(data.t)
    return sigma[:, None, None] * problem.score(data.x, sigma)


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_stable_target_is_the_denoising_one_up_to_a_noise_and_then_near_the_exact_score(
    coordinates, schedule, generator
):
    problem = make_problem(coordinates)
    data = noised(problem, schedule, 4_000, generator)
    target, truth = made(STABLE, data, problem, schedule), exact(problem, schedule, data)
    changed = (target != data.target).flatten(1).any(1)
    sigma = schedule.sigma(data.t)
    # At a mode's centre and sigma = r sigma_d the effective share of the references is (1 + 2 / r^2)^(n / 2) over
    # (1 + 1 / r^2)^n in n components: 40 of 64 at r = 0.5 in one, 0.8 in two, and chance moves that by a few.
    assert not changed[sigma < (0.003 if data.x[0].numel() == 1 else 0.005)].any()
    assert changed[sigma > 0.06].float().mean() > 0.9
    # One part in about 60 of the variance is left, and all points of a block have the same references.
    far = changed & (sigma > 0.06)
    errors = [(one - truth)[far].square().mean() for one in (target, data.target)]
    assert errors[0] < 0.06 * errors[1]


@pytest.mark.parametrize("references", [64, 256])
def test_bias_above_the_switch_is_below_the_share_that_the_effective_sample_size_gives(references, schedule, generator):
    """At one time just above the switch, over many draws of references: the mean error along the exact score itself,
    by which a self-normalised average of n shrinks or stretches it, is below 1 / n."""
    problem, size = make_problem(), 0.6 * references
    rule = StableTargets(type="stable", references=references, min_effective_sample_size=size)
    data = noised(problem, schedule, 40_000, generator, times=(0.57, 0.57001))  # noise of 0.0205, twice the width
    target, truth = made(rule, data, problem, schedule), exact(problem, schedule, data)
    changed = (target != data.target).flatten(1).any(1)
    assert changed.float().mean() > 0.5
    products = ((target - truth) * truth)[changed].mean((1, 2)) / truth[changed].square().mean()
    # Points of a block share their references, so their errors go together: blocks are the independent draws.
    blocks = torch.stack([block.mean() for block in products.split(400)])
    assert abs(products.mean()) < 1 / size + 4 * blocks.std() / len(blocks) ** 0.5


def test_switch_follows_the_width_of_the_data_without_being_told(schedule, generator):
    lowest = []
    for width in (0.005, 0.01, 0.03):
        problem = make_problem(sigma_d=width)
        data = noised(problem, schedule, 8_000, generator)
        changed = (made(STABLE, data, problem, schedule) != data.target).flatten(1).any(1)
        lowest.append(schedule.sigma(data.t)[changed].quantile(0.02).item() / width)
    assert all(0.8 < ratio < 2.5 for ratio in lowest)


def test_component_that_few_references_are_of_keeps_the_denoising_target_where_it_is_alone(schedule, generator):
    """Three of a hundred data are in the second component: two of 64 references."""
    problem = make_mixture([(97.0, 0.01, [[0.25], [0.75]]), (3.0, 0.01, [[0.05], [0.45]])])
    data = noised(problem, schedule, 30_000, generator, times=(0.6, 0.62))  # noise of 0.025
    changed = (made(STABLE, data, problem, schedule) != data.target).flatten(1).any(1)
    rare = displacement(data.x, torch.tensor([[0.05], [0.45]])).abs().amax((1, 2)) < 0.05
    assert rare.sum() > 100 and not changed[rare].any() and changed[~rare].float().mean() > 0.5


def test_references_are_drawn_anew_by_the_generator_and_permuted_where_the_law_is(schedule, generator):
    for symmetric in (True, False):
        problem = make_problem(permutation_symmetric=symmetric)
        data = noised(problem, schedule, 1_000, generator, times=(0.9, 1.0))
        first, again, other = (made(STABLE, data, problem, schedule, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)
        wrong = make_problem(permutation_symmetric=not symmetric)
        gaps = [(first - exact(law, schedule, data)).square().mean() for law in (problem, wrong)]
        assert gaps[0] < 0.05 * gaps[1]


def test_target_score_matching_has_no_variance_for_one_gaussian_of_its_length(schedule, generator):
    problem = make_problem(permutation_symmetric=False)
    data = noised(problem, schedule, 1_000, generator, times=(0.0, 0.6))  # nothing wraps
    rule = TargetScoreMatching(type="target_score_matching", length=0.01)
    assert torch.allclose(made(rule, data, problem, schedule), exact(problem, schedule, data), atol=3e-4)
    assert not torch.allclose(data.target, exact(problem, schedule, data), atol=0.5)


@pytest.mark.parametrize("length", [0.003, 0.03])
def test_target_score_matching_has_the_exact_score_as_its_mean(length, schedule, generator):
    """Its error is orthogonal to functions of x and t, also on the torus and for a mixture of unequal widths."""
    problem = make_mixture([(1.0, 0.01, [[0.25], [0.75]]), (2.0, 0.03, [[0.4], [0.6]])], permutation_symmetric=False)
    data = noised(problem, schedule, 40_000, generator, times=(0.3, 1.0))
    rule = TargetScoreMatching(type="target_score_matching", length=length)
    truth = exact(problem, schedule, data)
    angle = 2 * torch.pi * data.x
    assert orthogonal(made(rule, data, problem, schedule) - truth, [truth, angle.sin(), angle.cos(), (2 * angle).sin()])
