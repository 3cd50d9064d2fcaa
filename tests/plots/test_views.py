"""What is drawn is what the law says, and a slice of it is called a slice."""

import numpy as np
import pytest
import torch
from conftest import BASE, OTHERS, make_problem
from mixtures import MIXTURES, make_mixture

from utils.physics.torus import displacement
from utils.plots import views
from utils.plots.views import Field, Line, Plane
from utils.score.networks import AnalyticalScoreNetwork

THREE, TWO_BY_TWO = OTHERS[1:]
LAWS = [make_problem(c) for c in (BASE, *OTHERS[1:])] + [make_mixture(gaussians) for gaussians in MIXTURES[1:]]
SHARED = make_mixture([(1.0, 0.01, THREE), (3.0, 0.02, [[0.25], [0.6], [0.8]])])  # both have an atom at 0.8
ATOMS = ("relative coordinate of atom 1", "relative coordinate of atom 2")
ATOM_1 = ("first relative coordinate of atom 1", "second relative coordinate of atom 1")
EXCHANGE, FIRST = "along which atoms 1 and 2 change places", "through the first mode"


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_plane_made_of_two_lines_is_the_exact_log_density(law, t, schedule, monkeypatch):
    monkeypatch.setattr(views, "DENSITY_POINTS", 50)
    t, x = torch.tensor(t).double(), Plane(law).points(torch.arange(50) / 50).double()
    exact = law.log_density(x, schedule.sigma(t).expand(len(x))).view(50, 50)
    # float64 rounding of numbers up to 1 / 2 sigma_d^2 = 5,000 nats
    np.testing.assert_allclose(Field(law, schedule).log_density(t), exact, atol=1e-11)


@pytest.mark.parametrize(
    ("law", "labels", "others", "modes", "widths", "share"),
    [
        (make_problem(), ATOMS, "", [[0.25, 0.75], [0.75, 0.25]], [0.01] * 2, 1),
        (make_problem(THREE), ATOMS, "0.8", [[0.1, 0.45], [0.45, 0.1]], [0.01] * 2, 1 / 3),
        (make_problem(TWO_BY_TWO), ATOM_1, "0.7, 0.9", [[0.2, 0.3]], [0.01], 1 / 2),
        (SHARED, ATOMS, "0.8", [[0.1, 0.45], [0.45, 0.1], [0.25, 0.6], [0.6, 0.25]], [0.01] * 2 + [0.02] * 2, 1 / 3),
    ],
)
def test_of_more_than_two_components_the_plane_is_a_slice(law, labels, others, modes, widths, share, generator):
    """It says so, shows the modes that lie in it alone, and holds the share of samples that is near it."""
    plane, n, none = Plane(law), 3_000, torch.tensor(0.0)
    assert plane.labels == labels and plane.is_slice == bool(others)
    assert plane.note == (f"slice in which the other coordinates are {others}" if others else "")
    np.testing.assert_allclose(plane.modes, modes, atol=1e-6)
    np.testing.assert_allclose(plane.widths(none), widths, rtol=1e-6)
    assert torch.equal(plane.holds(law.modes(), none), plane.in_plane)
    held = plane.holds(law.sample_noised(none.expand(n), generator), none).double().mean().item()
    # Within the stray radius of the first mode, 5.4 of its widths, are all but 0.7 % of those of twice the width.
    assert held == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5 + 0.007 * (law is SHARED))


@pytest.mark.parametrize(
    ("law", "label", "position", "modes"),
    [
        (make_problem(), "through both modes", (0.0, 1.0), (0.25, 0.75)),
        (make_problem(permutation_symmetric=False), EXCHANGE, (0.0, 1.0), (0.25, 0.75)),
        (make_problem(THREE), EXCHANGE, (-0.075, 0.625), (0.1, 0.45)),
        (make_problem(TWO_BY_TWO), "through both modes", (0.0, 1.2), (0.3, 0.9)),
        (make_mixture(MIXTURES[0]), FIRST, (-0.2, 0.8), (0.3,)),
    ],
)
def test_line_leads_along_its_direction_to_the_mode_with_exchanged_atoms(law, label, position, modes):
    line, first = Line(law, 401), law.modes()[0]
    assert line.label == label and line.direction.norm().item() == pytest.approx(1)
    assert line.position[[0, -1]].tolist() == pytest.approx(position, abs=1e-6)
    for mode, place in zip((first, torch.cat([first[:2].flip(0), first[2:]])), modes, strict=False):
        assert torch.allclose(line.x[(line.position - place).abs().argmin()], mode, atol=1e-6)
    step = displacement(line.x[101], line.x[100])
    assert torch.allclose(step, step.norm() * line.direction, atol=1e-6)


@pytest.mark.parametrize("law", [make_problem(), make_problem(THREE), make_mixture(MIXTURES[1])])
def test_single_gaussian_about_the_nearest_mode_is_the_exact_score_where_data_are_likely(law, schedule):
    """At early times nothing overlaps within three widths."""
    times, line = torch.tensor([0.0, 0.2]), Line(law, 801)
    gaussian, likely = line.gaussian(schedule.sigma(times))
    exact = line.along(AnalyticalScoreNetwork(law, schedule), times)
    assert likely.any(1).all() and torch.allclose(gaussian[likely], exact[likely], atol=1e-4)
    r = torch.stack([law.standardised(line.x, s.expand(801)).flatten(1).norm(dim=1) for s in schedule.sigma(times)])
    assert ((r < 3) == likely)[(r - 3).abs() > 1e-3].all()  # rounding of float32


def test_arrows_of_a_single_gaussian_lead_to_its_mode(schedule):
    problem = make_problem([[0.4, 0.6]])
    field = Field(problem, schedule)
    for t in (0.0, 0.3):  # widths < 0.02: one image counts
        arrows = field.arrows(AnalyticalScoreNetwork(problem, schedule), torch.tensor(t))
        u = (field.plane.modes[0] - field.points + 0.5) % 1 - 0.5
        inner = np.abs(u).max(1) < 0.45
        np.testing.assert_allclose(arrows[inner], u[inner], atol=1e-4)
