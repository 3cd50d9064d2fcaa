"""The noise schedules and the time grid."""

import pytest
import torch
from subjects import SCHEDULES

from utils.physics.noise_schedule import time_grid


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sigma_grows_from_smallest_to_largest_and_sigma_dot_is_its_derivative(schedule):
    t = torch.linspace(0, 1, 11, dtype=torch.double).requires_grad_()
    sigma = schedule.sigma(t)
    assert sigma[[0, -1]].tolist() == pytest.approx([0.001, 0.2], rel=1e-12)
    (derivative,) = torch.autograd.grad(sigma.sum(), t)
    assert torch.allclose(derivative, schedule.sigma_dot(t), rtol=1e-12)


def test_time_grid_wastes_no_step():
    assert torch.equal(time_grid(4), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert (SCHEDULES[0].sigma(time_grid(1000)).diff() > 0).all()
