"""Score networks: all are called `network(x, t)` and return the normalised score N = sigma(t) grad log p_t(x).

N is minus the noise that a denoiser predicts. x is (batch, atom, dimension) in [0,1), t is (batch,) in [0,1], and N is
shaped like x. A network owns its noise schedule, so that it can divide by sigma. The exact score is just another one.
"""

import itertools
import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from utils.physics.laws import Law
from utils.physics.noise_schedule import NoiseSchedule
from utils.settings import LayerSize, Settings


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
    """The sizes of the multilayer perceptron, and whether it is made permutation equivariant."""

    coordinates_embedding_size: LayerSize
    sigma_embedding_size: LayerSize
    time_embedding_size: LayerSize
    hidden_size: LayerSize
    number_of_hidden_layers: Annotated[int, Field(ge=1, le=100)]
    permutation_equivariant: bool


class MLPScoreNetwork(ScoreNetwork):
    """A perceptron f of cos and sin of 2 pi x (so it has period 1), sigma and t. Permutation equivariance comes from
    averaging over all permutations P of the atoms, 1/N! sum_P P^-1 f(P x), in one batched evaluation. It is not
    translation invariant, on purpose: it has to learn where the atoms sit."""

    permutations: Tensor
    average: Tensor

    def __init__(self, architecture: Architecture, schedule: NoiseSchedule, shape: tuple[int, int]):
        super().__init__(schedule, shape)
        a, components = architecture, math.prod(shape)
        self.embed_coordinates = nn.Linear(2 * components, a.coordinates_embedding_size)
        self.embed_sigma = nn.Linear(1, a.sigma_embedding_size)
        self.embed_time = nn.Linear(1, a.time_embedding_size)
        features = a.coordinates_embedding_size + a.sigma_embedding_size + a.time_embedding_size
        sizes = [features, *[a.hidden_size] * a.number_of_hidden_layers]
        hidden = [layer for size in itertools.pairwise(sizes) for layer in (nn.Linear(*size), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(a.hidden_size, components))

        atoms = range(shape[0])
        permutations = list(itertools.permutations(atoms)) if a.permutation_equivariant else [tuple(atoms)]
        self.register_buffer("permutations", torch.tensor(permutations), persistent=False)
        # 1/N! sum_P P^-1 as one matrix, (permutation x component, component): slot i of P x belongs to atom P(i).
        unit = torch.eye(components).view(*shape, components)
        average = unit[self.permutations].reshape(-1, components) / len(permutations)
        self.register_buffer("average", average, persistent=False)

    def normalised_score(self, x: Tensor, t: Tensor) -> Tensor:
        copies = x[:, self.permutations].flatten(0, 1)  # (batch x permutation, atom, dimension)
        outputs = self.perceptron(copies, t.repeat_interleave(len(self.permutations)))
        return (outputs.view(len(x), -1) @ self.average).view_as(x)

    def perceptron(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the output for one ordering of the atoms, (batch, atom x dimension)."""
        angles = 2 * math.pi * x.flatten(1)
        coordinates = self.embed_coordinates(torch.cat([angles.cos(), angles.sin()], -1))
        sigma = self.embed_sigma(self.schedule.sigma(t)[:, None])
        return self.layers(torch.cat([coordinates, sigma, self.embed_time(t[:, None])], -1))
