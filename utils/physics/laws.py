"""Distributions of the data ("laws") for which the density and the score are known at every noise width sigma.

All are mixtures of isotropic Gaussians on the torus. Component k has the weight w_k (they sum to 1), the width sigma_k
and the equilibrium relative coordinates mu_k. Noise widens every component, and the torus wraps it:

    p(x; sigma) = sum_k w_k 1/N! sum_P prod_i W(x_i - mu_k,P(i); sqrt(sigma_k^2 + sigma^2))

with W the wrapped normal of `torus.py`. The sum over the N! permutations P of the atoms is the distribution that a
permutation-equivariant network can represent; with `permutation_symmetric` off, the identity alone remains.
A pair (k, P) is a mode. A new law is a subclass of `Law` with a `type`, its YAML keys as fields, and `components`.
"""

import itertools
import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import AfterValidator, Field, Strict, model_validator
from scipy import special
from torch import Generator, Tensor

from utils.physics.torus import displacement, wrap, wrapped_normal_log_density, wrapped_normal_score
from utils.settings import Settings, Width

MAX_ATOMS = 6  # the density sums over all permutations, and 6! = 720
MAX_DIMENSIONS = 16  # with them, the matrix that averages over the permutations has 7 million entries
MAX_MODES = 720
MIN_DISTANCE = 1e-6  # positions that are closer are one to float32
STRAY_PROBABILITY = math.exp(-12.5)  # of an exact sample to be called a stray: beyond 5 widths in two dimensions

Row = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Strict(False)]  # not strict: YAML has no tuples


def _whole_rows_apart(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    if not 1 <= len(rows) <= MAX_ATOMS or not rows[0]:
        raise ValueError(f"should have 1 to {MAX_ATOMS} atoms with at least one coordinate each")
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("every atom needs the same number of coordinates")
    if len(rows[0]) > MAX_DIMENSIONS:
        raise ValueError(f"should have at most {MAX_DIMENSIONS} coordinates an atom")
    for pair in itertools.combinations(rows, 2):
        if max(abs((a - b + 0.5) % 1 - 0.5) for a, b in zip(*pair, strict=True)) < MIN_DISTANCE:
            raise ValueError("two atoms sit at the same place")
    return rows


Positions = Annotated[tuple[Row, ...], Strict(False), AfterValidator(_whole_rows_apart)]


class Component(NamedTuple):
    """One Gaussian of a mixture: its weight, its width, and the equilibrium relative coordinates, a row an atom."""

    weight: float
    width: float
    positions: tuple[tuple[float, ...], ...]


class Law(Settings):
    """A distribution of the data. x is (batch, atom, dimension) in [0,1), sigma the noise width sigma(t), (batch,)."""

    permutation_symmetric: bool

    @property
    def components(self) -> tuple[Component, ...]:
        """The Gaussians of the mixture; their weights need not sum to 1."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int]:
        """(number of atoms, spatial dimension)."""
        positions = self.components[0].positions
        return len(positions), len(positions[0])

    has_plane = property(lambda law: law.shape != (1, 1))  # whether there are two components to span a plane

    @property
    def assignments(self) -> list[tuple[int, ...]]:
        """The permutations that the density sums over; each lists the sites of the atoms, in their order."""
        sites = tuple(range(self.shape[0]))
        return list(itertools.permutations(sites)) if self.permutation_symmetric else [sites]

    @property
    def mean_width(self) -> float:
        """The weighted mean of the components' widths, which sets the length scale of pictures."""
        return sum(c.weight * c.width for c in self.components) / sum(c.weight for c in self.components)

    def modes(self, like: Tensor | None = None) -> Tensor:
        """Return the modes, (mode, atom, dimension), by component, then permutation; dtype and device as `like`."""
        modes = self._sites()[:, torch.tensor(self.assignments)].flatten(0, 1)
        return modes.to(like) if like is not None else modes.float()

    def mode_weights(self) -> Tensor:
        """Return the probability of each mode, (mode,), float64."""
        weights = torch.tensor([c.weight for c in self.components], dtype=torch.float64)
        return (weights / weights.sum()).repeat_interleave(len(self.assignments)) / len(self.assignments)

    def mode_widths(self, sigma: Tensor) -> Tensor:
        """Return the width of every mode at noise sigma, (batch, mode): sqrt(sigma_k^2 + sigma^2)."""
        return self._widths(sigma).repeat_interleave(len(self.assignments), -1)

    @property
    def stray_radius(self) -> float:
        """The distance from the nearest mode, in its widths, beyond which a sample is a stray: a quantile of the chi
        distribution with as many degrees of freedom as components of x, so exact samples have none in any dimension."""
        return math.sqrt(2 * special.gammainccinv(math.prod(self.shape) / 2, STRAY_PROBABILITY))

    def nearest_mode(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x's displacement (like x) from its nearest mode in units of widths, its index and width, (batch,)."""
        u = displacement(x[:, None], self.modes(x))  # (batch, mode, atom, dimension)
        widths = self.mode_widths(sigma)
        index = (u.square().sum((-2, -1)) / widths**2).argmin(1)
        chosen = torch.arange(len(x), device=x.device), index
        return u[chosen], index, widths[chosen]

    def standardised(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the displacement of x from its nearest mode over that mode's width at noise sigma, like x, float64."""
        u, _, width = self.nearest_mode(x, sigma.double())
        return u.double() / width[:, None, None]

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Draw n configurations of the data, (n, atom, dimension). They are not permuted: atom i sits at mu_k,i."""
        weights, widths = torch.tensor([(c.weight, c.width) for c in self.components]).T
        chosen = _choose(weights, n, generator) if len(weights) > 1 else torch.zeros(n, dtype=torch.long)
        noise = torch.randn(n, *self.shape, generator=generator)
        return wrap(self._sites().float()[chosen] + widths[chosen][:, None, None] * noise)

    def permuted(self, x: Tensor) -> Tensor:
        """Return x under all permutations that the density sums over, (assignment x batch, atom, dimension)."""
        return x[:, torch.tensor(self.assignments, device=x.device)].transpose(0, 1).flatten(0, 1)

    def sample_noised(self, sigma: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw one configuration for each sigma, (batch,), from the distribution that `log_density` describes."""
        chosen = _choose(self.mode_weights(), len(sigma), generator)
        noise = torch.randn(len(sigma), *self.shape, generator=generator, dtype=sigma.dtype)
        width = self.mode_widths(sigma)[torch.arange(len(sigma)), chosen]
        return wrap(self.modes(sigma)[chosen] + width[:, None, None] * noise)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return log p(x; sigma), (batch,), in nats."""
        return torch.logsumexp(self.log_terms(x, sigma), -1)

    def log_terms(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the logarithms of the terms of p, (batch, mode), each a sum over the components of x."""
        return self._by_mode(x, sigma, wrapped_normal_log_density)[0].sum((-2, -1)) + self.mode_weights().log().to(x)

    def ridge_distance(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return by how many nats the best mode outweighs the second, (batch,): 0 on a ridge, inf for a single mode."""
        log_terms = torch.nn.functional.pad(self.log_terms(x, sigma), (0, 1), value=-math.inf)
        best, second = log_terms.topk(2, -1).values.unbind(-1)
        return best - second

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return grad_x log p(x; sigma), like x: each mode's score, weighted by its share of the density."""
        log_terms, scores = self._by_mode(x, sigma, wrapped_normal_log_density, wrapped_normal_score)
        log_weights = self.mode_weights().log()
        weights = torch.softmax(log_terms.sum((-2, -1)) + (log_weights - log_weights.max()).to(x), -1)
        return (weights[:, :, None, None] * scores).sum(1)

    def _sites(self):  # (component, atom, dimension)
        return torch.tensor([c.positions for c in self.components], dtype=torch.float64)

    def _widths(self, sigma):  # (batch, component)
        squares = torch.tensor([c.width**2 for c in self.components], dtype=sigma.dtype, device=sigma.device)
        return torch.sqrt(squares + sigma[..., None] ** 2)

    def _by_mode(self, x, sigma, *functions):
        """Return functions of atoms' displacements from their sites and of widths, (batch, mode, atom, dimension)."""
        sites = self._sites().to(x)[:, None]  # (component, 1, site, dimension)
        u, width = displacement(x[:, None, :, None, :], sites), self._widths(sigma)[:, :, None, None, None]
        atoms, order = torch.arange(self.shape[0], device=x.device), torch.tensor(self.assignments, device=x.device)
        return [function(u, width)[:, :, atoms, order].flatten(1, 2) for function in functions]


def _choose(weights: Tensor, n: int, generator: Generator | None) -> Tensor:
    """Return n random indices with these weights."""
    if bool((weights == weights[0]).all()):
        return torch.randint(len(weights), (n,), generator=generator)
    return torch.multinomial(weights, n, replacement=True, generator=generator)


class ToyProblem(Law):
    """The pseudo atoms: one isotropic Gaussian of width sigma_d about their equilibrium relative coordinates."""

    type: Literal["gaussian"] = "gaussian"
    equilibrium_relative_coordinates: Positions
    sigma_d: Width

    @property
    def components(self) -> tuple[Component, ...]:
        return (Component(1.0, self.sigma_d, self.equilibrium_relative_coordinates),)


class Gaussian(Settings):
    """One component of a mixture, as it stands in the YAML file."""

    weight: Annotated[float, Field(ge=1e-12, le=1e12)]  # sums of them have to be float32
    sigma_d: Width
    equilibrium_relative_coordinates: Positions


def _at_least_one(gaussians: tuple[Gaussian, ...]) -> tuple[Gaussian, ...]:
    if not gaussians:
        raise ValueError("should have at least one gaussian")
    return gaussians


class GaussianMixture(Law):
    """Any number of Gaussians, each with a weight, a width and positions. The weights need not sum to 1."""

    type: Literal["gaussian_mixture"] = "gaussian_mixture"
    gaussians: Annotated[tuple[Gaussian, ...], Strict(False), AfterValidator(_at_least_one)]

    @property
    def components(self) -> tuple[Component, ...]:
        return tuple(Component(g.weight, g.sigma_d, g.equilibrium_relative_coordinates) for g in self.gaussians)

    @model_validator(mode="after")
    def _of_one_shape(self):
        if len({(len(c.positions), len(c.positions[0])) for c in self.components}) > 1:
            raise ValueError("all gaussians need the same number of atoms and of coordinates an atom")
        if (modes := len(self.components) * len(self.assignments)) > MAX_MODES:
            raise ValueError(f"should have at most {MAX_MODES} modes, gaussians times permutations; these are {modes}")
        return self
