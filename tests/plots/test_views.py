"""What is drawn is what the law says."""

import numpy as np
import pytest
import torch
from conftest import BASE, OTHERS, make_problem

from utils.plots import views


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS[1:]])
@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_plane_made_of_two_lines_is_the_exact_log_density(coordinates, t, schedule):
    problem, t = make_problem(coordinates), torch.tensor(t).double()
    x = views.plane(problem, torch.arange(views.DENSITY_POINTS) / views.DENSITY_POINTS).double()
    exact = problem.log_density(x, schedule.sigma(t).expand(len(x))).view(2 * (views.DENSITY_POINTS,))
    # float64 rounding of numbers up to 1 / 2 sigma_d^2 = 5,000 nats
    np.testing.assert_allclose(views.Field(problem, schedule).log_density(t), exact, atol=1e-11)


def test_line_leads_through_both_modes_along_its_direction(problem):
    positions, x, direction = views.line_through_modes(problem, 401)
    assert torch.allclose(positions, torch.linspace(0, 1, 401), atol=1e-6)
    for mode, position in zip(problem.modes(), (0.25, 0.75), strict=True):
        assert torch.allclose(x[(positions - position).abs().argmin()], mode, atol=1e-6)
    assert torch.allclose((x[101] - x[100]) / direction, torch.full((2, 1), 0.0025 * 2**0.5), atol=1e-6)
