"""Score networks: all are called `network(x, t)` and return the normalised score N = sigma(t) grad log p_t(x).

N is minus the noise that a denoiser predicts. x is (batch, atom, dimension) in [0,1), t is (batch,) in [0,1], and N is
shaped like x. A network owns its noise schedule, so that it can divide by sigma. The exact score is just another one.
"""

import itertools
import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from utils.physics.laws import Law
from utils.physics.noise_schedule import NoiseSchedule
from utils.settings import LayerSize, Settings, Width


class ScoreNetwork(nn.Module):
    """Base of all score networks; shape is (atoms, dimensions). A subclass defines `normalised_score(x, t)`."""

    def __init__(self, schedule: NoiseSchedule, shape: tuple[int, int]):
        super().__init__()
        self.schedule, self.shape = schedule, shape

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the normalised score, shaped like x. Raises ValueError for tensors of another shape."""
        if x.shape[1:] != self.shape or t.shape != x.shape[:1]:
            right = "(batch, {}, {}), which is (batch, atom, dimension), and t the shape (batch,)".format(*self.shape)
            raise ValueError(f"x should have the shape {right}; given x {tuple(x.shape)} and t {tuple(t.shape)}")
        return self.normalised_score(x, t)

    def normalised_score(self, x: Tensor, t: Tensor) -> Tensor:
        """Return sigma(t) times the score, shaped like x."""
        raise NotImplementedError

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Return grad log p(x, t), shaped like x, in inverse relative coordinates."""
        return self(x, t) / self.schedule.sigma(t)[:, None, None]


class AnalyticalScoreNetwork(ScoreNetwork):
    """The exact normalised score of a law. Nothing in it is learned."""

    def __init__(self, problem: Law, schedule: NoiseSchedule):
        super().__init__(schedule, problem.shape)
        self.problem = problem

    def normalised_score(self, x: Tensor, t: Tensor) -> Tensor:
        sigma = self.schedule.sigma(t)
        return sigma[:, None, None] * self.problem.score(x, sigma)


class Architecture(Settings):
    """The sizes of a multilayer perceptron, and whether it is made permutation equivariant. A subclass has a `type`,
    and `build` returns an untrained network."""

    coordinates_embedding_size: LayerSize
    sigma_embedding_size: LayerSize
    time_embedding_size: LayerSize
    hidden_size: LayerSize
    number_of_hidden_layers: Annotated[int, Field(ge=1, le=100)]
    permutation_equivariant: bool

    def build(self, schedule: NoiseSchedule, shape: tuple[int, int]) -> "Perceptron":
        """Return a network with random weights, for configurations of shape (atoms, dimensions)."""
        raise NotImplementedError


class Perceptron(ScoreNetwork):
    """A perceptron f of cos and sin of 2 pi x (so it has period 1), sigma and t. Permutation equivariance comes from
    averaging over all permutations P of the atoms, 1/N! sum_P P^-1 f(P x), in one batched evaluation. It is not
    translation invariant, on purpose: it has to learn where the atoms sit. f has as many outputs as x has components,
    where no other number is given."""

    permutations: Tensor
    average: Tensor

    def __init__(self, architecture: Architecture, schedule: NoiseSchedule, shape: tuple[int, int], outputs: int = 0):
        super().__init__(schedule, shape)
        a, components = architecture, math.prod(shape)
        self.embed_coordinates = nn.Linear(2 * components, a.coordinates_embedding_size)
        self.embed_sigma = nn.Linear(1, a.sigma_embedding_size)
        self.embed_time = nn.Linear(1, a.time_embedding_size)
        features = a.coordinates_embedding_size + a.sigma_embedding_size + a.time_embedding_size
        sizes = [features, *[a.hidden_size] * a.number_of_hidden_layers]
        hidden = [layer for size in itertools.pairwise(sizes) for layer in (nn.Linear(*size), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(a.hidden_size, outputs or components))

        atoms = range(shape[0])
        permutations = list(itertools.permutations(atoms)) if a.permutation_equivariant else [tuple(atoms)]
        self.register_buffer("permutations", torch.tensor(permutations), persistent=False)
        # 1/N! sum_P P^-1 as one matrix, (permutation x component, component): slot i of P x belongs to atom P(i).
        unit = torch.eye(components).view(*shape, components)
        average = unit[self.permutations].reshape(-1, components) / len(permutations)
        self.register_buffer("average", average, persistent=False)

    def normalised_score(self, x: Tensor, t: Tensor) -> Tensor:
        outputs = self.perceptron(*self.orderings(x, t))
        return (outputs.view(len(x), -1) @ self.average).view_as(x)

    def orderings(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return x under all permutations, (batch x permutation, atom, dimension), and as many times."""
        return x[:, self.permutations].flatten(0, 1), t.repeat_interleave(len(self.permutations))

    def perceptron(self, x: Tensor, t: Tensor) -> Tensor:
        """Return f for one ordering of the atoms, (batch, output)."""
        return self.layers(self.embed(2 * math.pi * x.flatten(1), t))

    def embed(self, angles: Tensor, t: Tensor) -> Tensor:
        """Return what enters the layers, (batch, feature), from 2 pi x, (batch, atom x dimension), and t."""
        coordinates = self.embed_coordinates(torch.cat([angles.cos(), angles.sin()], -1))
        sigma = self.embed_sigma(self.schedule.sigma(t)[:, None])
        return torch.cat([coordinates, sigma, self.embed_time(t[:, None])], -1)


class MLPScoreNetwork(Perceptron):
    """The normalised score is the output of the perceptron."""


class EnergyNetwork(Perceptron):
    """The normalised score is the gradient of a learned function phi(x, t), so it has neither curl nor circulation
    (Salimans & Ho 2021, "Should EBMs model the energy or the score?"; scaled as in Karras et al. 2024):

        N = sigma / r grad phi,    r = sqrt(sigma^2 + l^2),    log p_t(x) = phi(x, t) / r + c(t)

    phi is the mean over all permutations of the atoms of one output of the perceptron, and highest where the data are.
    About a mode of width sigma_d, grad log p_t has the size 1 / sqrt(sigma^2 + sigma_d^2): the factor, with l of the
    order of sigma_d, keeps grad phi of order 1 at all t.
    """

    def __init__(self, architecture: "Energy", schedule: NoiseSchedule, shape: tuple[int, int]):
        super().__init__(architecture, schedule, shape, outputs=1)
        self.length = architecture.length

    def radius(self, t: Tensor) -> Tensor:
        """Return r = sqrt(sigma^2 + l^2), (batch,)."""
        return (self.schedule.sigma(t) ** 2 + self.length**2).sqrt()

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """Return phi / r, (batch,): log p_t(x) in nats, up to a function of t."""
        outputs = super().perceptron(*self.orderings(x, t))
        return outputs.view(len(x), -1).mean(1) / self.radius(t)

    def normalised_score(self, x: Tensor, t: Tensor) -> Tensor:
        return (self.schedule.sigma(t) / self.radius(t))[:, None, None] * super().normalised_score(x, t)

    def perceptron(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the gradient of the output, (batch, atom x dimension): back through the layers by hand, which
        automatic differentiation then differentiates at less cost than a gradient of its own."""
        angles = 2 * math.pi * x.flatten(1)
        h, slopes = self.embed(angles, t), []
        *hidden, last = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        for layer in hidden:
            a = layer(h)
            s = torch.sigmoid(a)
            h = a * s
            slopes.append(s + h * (1 - s))  # of SiLU, a s(a)
        back = last.weight
        for layer, slope in zip(reversed(hidden), reversed(slopes), strict=True):
            back = (back * slope) @ layer.weight
        back = back[:, : self.embed_coordinates.out_features] @ self.embed_coordinates.weight
        by_cos, by_sin = back.chunk(2, -1)
        return 2 * math.pi * (by_sin * angles.cos() - by_cos * angles.sin())


class MLP(Architecture):
    """A network whose output is the normalised score."""

    type: Literal["mlp"] = "mlp"

    def build(self, schedule: NoiseSchedule, shape: tuple[int, int]) -> MLPScoreNetwork:
        return MLPScoreNetwork(self, schedule, shape)


class Energy(Architecture):
    """A network whose output is a log-density, and whose gradient is the normalised score."""

    type: Literal["energy"] = "energy"
    length: Width  # l, at which the scale of the output turns from l to sigma

    def build(self, schedule: NoiseSchedule, shape: tuple[int, int]) -> EnergyNetwork:
        return EnergyNetwork(self, schedule, shape)
