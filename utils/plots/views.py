"""Where a score is looked at: the line through both modes, and the plane of the first two components.

With two atoms in one dimension the plane is the whole configuration space; with more, the other components stay at the
equilibrium relative coordinates.
"""

import numpy as np
import torch
from torch import Tensor

from utils.physics.laws import ToyProblem
from utils.physics.noise_schedule import NoiseSchedule
from utils.physics.torus import wrap
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

ARROWS = 20  # per axis
DENSITY_POINTS = 200  # per axis; at t = 0 a mode is four of them wide
MAP_POINTS = 96  # per axis
IN_DISTRIBUTION = 3.0  # a configuration within this many sigma_eff of its nearest mode counts as in distribution


def line_through_modes(problem: ToyProblem, number_of_points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions (point,), configurations (point, atom, dimension) and the unit direction (atom, dimension).

    The line leads from the first mode through the one in which the first two atoms have changed places. A position is
    the unwrapped value of the component of atom 1 that changes most along it.
    """
    mode = problem.modes()[0]
    direction = torch.zeros_like(mode)
    if len(mode) > 1:
        direction[0], direction[1] = mode[1] - mode[0], mode[0] - mode[1]
        steps = torch.linspace(-0.5, 1.5, number_of_points)
    else:
        direction[0, 0] = 1.0
        steps = torch.linspace(-0.5, 0.5, number_of_points)
    line = mode + steps[:, None, None] * direction
    return line[:, 0, direction[0].abs().argmax()], wrap(line), direction / direction.norm()


def plane(problem: ToyProblem, coordinates: Tensor) -> Tensor:
    """Return the configurations (point^2, atom, dimension) with the first two components on a grid of coordinates.

    Point i * len(coordinates) + j has the first component coordinates[i] and the second coordinates[j].
    """
    first, second = torch.meshgrid(coordinates, coordinates, indexing="ij")
    x = problem.modes()[0].flatten().repeat(len(coordinates) ** 2, 1)
    x[:, 0], x[:, 1] = first.flatten(), second.flatten()
    return x.unflatten(1, problem.shape)


@torch.no_grad()
def along_line(network: ScoreNetwork, x: Tensor, direction: Tensor, times: Tensor) -> Tensor:
    """Return the normalised score projected on the direction at every time, (time, point)."""
    return torch.stack([(network(x, t.expand(len(x))) * direction).sum((-2, -1)) for t in times])


@torch.no_grad()
def gaussian_along_line(problem: ToyProblem, x: Tensor, direction: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return the normalised score -sigma u / sigma_eff^2 of a single Gaussian about the nearest mode, projected on the
    direction, and which points are in distribution, both (sigma, point)."""
    u, _ = problem.nearest_mode(x)
    width = problem.effective_sigma(sigma)[:, None]
    approximation = -(sigma[:, None] / width**2) * (u * direction).sum((-2, -1))
    return approximation, u.square().sum((-2, -1)).sqrt() < IN_DISTRIBUTION * width


def has_plane(problem: ToyProblem) -> bool:
    """Return whether there are two components to span a plane."""
    return problem.modes()[0].numel() >= 2


@torch.no_grad()
def magnitude_maps(network: ScoreNetwork, truth: AnalyticalScoreNetwork, times: Tensor) -> tuple[np.ndarray, ...]:
    """Return the size of the normalised score in the plane, (time, point, point), of the network, of the truth, and of
    their difference."""
    x = plane(truth.problem, (torch.arange(MAP_POINTS) + 0.5) / MAP_POINTS)
    pairs = [(network(x, t.expand(len(x))), truth(x, t.expand(len(x)))) for t in times]

    def sizes(fields):
        return np.stack([f.flatten(1).norm(dim=1).view(MAP_POINTS, MAP_POINTS).numpy() for f in fields])

    return sizes([a for a, _ in pairs]), sizes([b for _, b in pairs]), sizes([a - b for a, b in pairs])


class Field:
    """The arrays of a score-field picture: arrows on a coarse grid, the exact log-density on a fine one.

    An arrow is the first two components of sigma_eff^2 score, in relative coordinates. For a single Gaussian this is
    the step to its mode, whatever t: so arrows can be compared between times.
    """

    def __init__(self, problem: ToyProblem, schedule: NoiseSchedule):
        self.problem, self.schedule = problem, schedule
        coarse, fine = (torch.arange(ARROWS) + 0.5) / ARROWS, torch.arange(DENSITY_POINTS) / DENSITY_POINTS
        mode = problem.modes()[:1].double()
        lines = mode.flatten(1).repeat(2, DENSITY_POINTS, 1)
        lines[0, :, 0] = lines[1, :, 1] = fine
        self.x, self.lines = plane(problem, coarse), (*lines.unflatten(2, problem.shape), mode)
        self.points, self.grid = self.x.flatten(1)[:, :2].numpy(), fine.numpy()
        self.modes = problem.modes().flatten(1)[:, :2].numpy()

    @torch.no_grad()
    def arrows(self, network: ScoreNetwork, t: Tensor) -> np.ndarray:
        """Return the arrows of a network at time t, (point, 2)."""
        sigma = self.schedule.sigma(t)
        scale = self.problem.effective_sigma(sigma) ** 2 / sigma
        return (scale * network(self.x, t.expand(len(self.x)))).flatten(1)[:, :2].numpy()

    def log_density(self, t: Tensor) -> np.ndarray:
        """Return the exact log-density at time t, (first component, second component), in nats.

        The logarithm of a term of the law is a sum over components, so two lines through the mode make the plane.
        """
        sigma = self.schedule.sigma(t.double())
        first, second, mode = (self.problem.log_terms(x, sigma.expand(len(x))) for x in self.lines)
        return torch.logsumexp(first[:, None] + second - mode, -1).numpy()
