"""Where a score is looked at: a line through two modes, and the plane of the first two components."""

import numpy as np
import torch
from torch import Tensor

from utils.physics.laws import Law
from utils.physics.noise_schedule import NoiseSchedule
from utils.physics.torus import displacement, wrap
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

ARROWS, DENSITY_POINTS, MAP_POINTS = 20, 200, 96  # per axis; at t = 0 a mode is four density points wide
IN_DISTRIBUTION = 3.0  # a configuration within this many widths of its nearest mode counts as in distribution


class Line:
    """A line through the first mode: to the one in which the first two atoms have changed places, where there are two.
    x is (point, atom, dimension), direction its unit direction, (atom, dimension); position, (point,), is the unwrapped
    value of the component of atom 1 that changes most along it."""

    def __init__(self, problem: Law, number_of_points: int):
        mode = problem.modes()[0]
        direction, end, self.label = torch.zeros_like(mode), 0.5, "through the first mode"
        direction[0, 0] = 1.0
        if len(mode) > 1:
            direction[0], direction[1], end = mode[1] - mode[0], mode[0] - mode[1], 1.5
            both = len(problem.modes()) == 2 and problem.permutation_symmetric
            self.label = "through both modes" if both else "along which atoms 1 and 2 change places"
        line = mode + torch.linspace(-0.5, end, number_of_points)[:, None, None] * direction
        self.position = line[:, 0, direction[0].abs().argmax()]
        self.x, self.direction, self.problem = wrap(line), direction / direction.norm(), problem

    @torch.no_grad()
    def along(self, network: ScoreNetwork, times: Tensor) -> Tensor:
        """Return the normalised score projected on the direction at every time, (time, point)."""
        return torch.stack([(network(self.x, t.expand(len(self.x))) * self.direction).sum((-2, -1)) for t in times])

    def gaussian(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised score -sigma u / width^2 of a single Gaussian about the nearest mode, projected on the
        direction, and which points are in distribution, both (sigma, point)."""
        noise = sigma.repeat_interleave(len(self.x))
        u, _, width = self.problem.nearest_mode(self.x.repeat(len(sigma), 1, 1), noise)
        approximation = -(noise / width**2) * (u * self.direction).sum((-2, -1))
        in_distribution = u.square().sum((-2, -1)).sqrt() < IN_DISTRIBUTION * width
        return approximation.view(len(sigma), -1), in_distribution.view(len(sigma), -1)


class Plane:
    """The plane of the first two components; where there are more, a slice in which these stay at the first mode."""

    def __init__(self, problem: Law):
        self.problem = problem
        atoms, dimensions = problem.shape
        self.labels = ("relative coordinate of atom 1", "relative coordinate of atom 2")
        if dimensions > 1:
            self.labels = ("first relative coordinate of atom 1", "second relative coordinate of atom 1")
        modes = problem.modes().flatten(1)
        self.first, self.is_slice = modes[0], atoms * dimensions > 2
        fixed = ", ".join(f"{value:g}" for value in self.first[2:].tolist())
        self.note = f"slice in which the other coordinates are {fixed}" if self.is_slice else ""
        self.in_plane = (displacement(modes, self.first)[:, 2:].abs() < 1e-6).all(1)  # of the modes
        self.modes = modes[self.in_plane, :2].numpy()

    def points(self, coordinates: Tensor) -> Tensor:
        """Return the configurations (point^2, atom, dimension) with the first two components on a grid of coordinates:
        point i * len(coordinates) + j has the first component coordinates[i] and the second coordinates[j]."""
        x = self.first.repeat(len(coordinates) ** 2, 1)
        x[:, :2] = torch.cartesian_prod(coordinates, coordinates)
        return x.unflatten(1, self.problem.shape)

    def widths(self, sigma: Tensor) -> np.ndarray:
        """Return the widths, (mode,), of the modes that lie in the plane, at one noise width sigma."""
        return self.problem.mode_widths(sigma[None])[0, self.in_plane].numpy()

    def holds(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return which samples, (sample, atom, dimension), lie in it, (sample,), up to the mode's stray radius."""
        reach = self.problem.stray_radius * self.problem.mode_widths(sigma[None])[0, 0]
        return (displacement(x.flatten(1), self.first)[:, 2:].abs() <= reach).all(1)


@torch.no_grad()
def magnitude_maps(network: ScoreNetwork, truth: AnalyticalScoreNetwork, times: Tensor) -> tuple[np.ndarray, ...]:
    """Return the size, (time, point, point), in the plane of both normalised scores and of their difference."""
    x = Plane(truth.problem).points((torch.arange(MAP_POINTS) + 0.5) / MAP_POINTS)
    ours, exact = (torch.stack([n(x, t.expand(len(x))).flatten(1) for t in times]) for n in (network, truth))
    return tuple(f.norm(dim=2).view(len(times), MAP_POINTS, MAP_POINTS).numpy() for f in (ours, exact, ours - exact))


class Field:
    """The arrays of a score-field picture: arrows on a coarse grid, the exact log-density on a fine one.

    An arrow is the first two components of sigma_eff^2 score, in relative coordinates, with sigma_eff^2 = sigma_d^2 +
    sigma(t)^2 (sigma_d the mean width of a mixture). For a single Gaussian this is the step to its mode, so one linear
    scale serves every time."""

    def __init__(self, problem: Law, schedule: NoiseSchedule):
        self.problem, self.schedule, self.plane = problem, schedule, Plane(problem)
        coarse, fine = (torch.arange(ARROWS) + 0.5) / ARROWS, torch.arange(DENSITY_POINTS) / DENSITY_POINTS
        mode = problem.modes()[:1].double()
        lines = mode.flatten(1).repeat(2, DENSITY_POINTS, 1)
        lines[0, :, 0] = lines[1, :, 1] = fine
        self.x, self.lines = self.plane.points(coarse), (*lines.unflatten(2, problem.shape), mode)
        self.points, self.grid = self.x.flatten(1)[:, :2].numpy(), fine.numpy()

    @torch.no_grad()
    def arrows(self, network: ScoreNetwork, t: Tensor) -> np.ndarray:
        """Return the arrows of a network at time t, (point, 2)."""
        sigma = self.schedule.sigma(t)
        scale = torch.sqrt(self.problem.mean_width**2 + sigma**2) ** 2 / sigma
        return (scale * network(self.x, t.expand(len(self.x)))).flatten(1)[:, :2].numpy()

    def log_density(self, t: Tensor) -> np.ndarray:
        """Return the exact log-density at time t, (first component, second component), in nats. The logarithm of a
        term of the density is a sum over components, so two lines through the mode make the plane."""
        sigma = self.schedule.sigma(t.double())
        first, second, mode = (self.problem.log_terms(x, sigma.expand(len(x))) for x in self.lines)
        return torch.logsumexp(first[:, None] + second - mode, -1).numpy()
