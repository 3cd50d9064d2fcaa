"""The data law of the pseudo atoms, for which the score is known at every noise width.

Data: x = wrap(mu + sigma_d z), an isotropic Gaussian about the equilibrium relative coordinates mu. Noise of width
sigma turns every width into sigma_eff = sqrt(sigma_d^2 + sigma^2), and the torus wraps it:

    p(x; sigma) = 1/N! sum_P prod_i W(x_i - mu_P(i); sigma_eff)

with W the wrapped normal law of `torus.py`. The sum over the N! permutations P of the atoms is the law that a
permutation-equivariant network can represent; with `permutation_symmetric` off, the identity alone remains.
"""

import itertools
import math
from typing import Annotated

import torch
from pydantic import Field, Strict, field_validator
from torch import Tensor

from utils.physics.torus import displacement, wrap, wrapped_normal_log_density, wrapped_normal_score
from utils.settings import Settings, Width

MOST_ATOMS = 6  # the law sums over all permutations, and 6! = 720
MOST_DIMENSIONS = 16  # with them, the matrix that averages over the permutations has 7 million entries
APART = 1e-6  # positions that are closer are one to float32

RelativeCoordinate = Annotated[float, Field(ge=0, lt=1)]
Row = Annotated[tuple[RelativeCoordinate, ...], Strict(False)]  # not strict: YAML has lists, no tuples


class ToyProblem(Settings):
    """Gaussian pseudo atoms on a torus: samples of the data, and the exact law at every noise width.

    In every method x is (batch, atom, dimension) and sigma is the noise width sigma(t), (batch,), without sigma_d.
    """

    equilibrium_relative_coordinates: Annotated[tuple[Row, ...], Strict(False)]
    sigma_d: Width
    permutation_symmetric: bool

    @field_validator("equilibrium_relative_coordinates")
    @classmethod
    def _distinct_positions_of_one_dimension(cls, rows):
        if not 1 <= len(rows) <= MOST_ATOMS or not rows[0]:
            raise ValueError(f"should have 1 to {MOST_ATOMS} atoms with at least one coordinate each")
        if len({len(row) for row in rows}) > 1:
            raise ValueError("every atom needs the same number of coordinates")
        if len(rows[0]) > MOST_DIMENSIONS:
            raise ValueError(f"should have at most {MOST_DIMENSIONS} coordinates an atom")
        if any(
            max(abs((a - b + 0.5) % 1 - 0.5) for a, b in zip(*pair, strict=True)) < APART
            for pair in itertools.combinations(rows, 2)
        ):
            raise ValueError("two atoms sit at the same place")
        return rows

    @property
    def shape(self) -> tuple[int, int]:
        """(number of atoms, spatial dimension)."""
        return len(self.equilibrium_relative_coordinates), len(self.equilibrium_relative_coordinates[0])

    @property
    def assignments(self) -> list[tuple[int, ...]]:
        """The permutations that the law sums over: entry i of each is the site of atom i."""
        sites = tuple(range(self.shape[0]))
        return list(itertools.permutations(sites)) if self.permutation_symmetric else [sites]

    def modes(self, like: Tensor | None = None) -> Tensor:
        """Return the modes of the law, (mode, atom, dimension); dtype and device follow `like`."""
        sites = torch.tensor(self.equilibrium_relative_coordinates)
        return sites[torch.tensor(self.assignments)].to(like if like is not None else sites)

    def nearest_mode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the minimal image of x minus its nearest mode, shaped like x, and that mode's index, (batch,)."""
        u = displacement(x[:, None], self.modes(x))  # (batch, mode, atom, dimension)
        index = u.square().sum((-2, -1)).argmin(1)
        return u[torch.arange(len(x), device=x.device), index], index

    def effective_sigma(self, sigma: Tensor) -> Tensor:
        """Return sqrt(sigma_d^2 + sigma^2), the width of one mode of the noised law."""
        return torch.sqrt(self.sigma_d**2 + sigma**2)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n configurations of the data, (n, atom, dimension). They are not permuted: atom i sits at mu_i."""
        noise = torch.randn(n, *self.shape, generator=generator)
        return wrap(torch.tensor(self.equilibrium_relative_coordinates) + self.sigma_d * noise)

    def permuted(self, x: Tensor) -> Tensor:
        """Return x under all permutations that the law sums over, (assignment x batch, atom, dimension)."""
        return x[:, torch.tensor(self.assignments, device=x.device)].transpose(0, 1).flatten(0, 1)

    def sample_noised(self, sigma: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one configuration for each sigma, (batch,), from the law that `log_density` describes."""
        modes = self.modes(sigma)
        chosen = torch.randint(len(modes), sigma.shape, generator=generator)
        noise = torch.randn(len(sigma), *self.shape, generator=generator, dtype=sigma.dtype)
        return wrap(modes[chosen] + self.effective_sigma(sigma)[:, None, None] * noise)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return log p(x; sigma), (batch,), in nats."""
        return torch.logsumexp(self.log_terms(x, sigma), -1)

    def log_terms(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the logarithms of the terms of p, (batch, assignment), each a sum over the components of x."""
        terms = self._log_terms(*self._to_sites(x, sigma))
        return terms - math.log(terms.shape[-1])

    def ridge_distance(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return by how many nats the best assignment outweighs the second best, (batch,); 0 is on top of a ridge.

        Across a permutation ridge the score turns from one mode to another. With one assignment there is none: inf.
        """
        log_terms = self.log_terms(x, sigma)
        if log_terms.shape[-1] == 1:
            return torch.full_like(log_terms[:, 0], math.inf)
        best = log_terms.topk(2, -1).values
        return best[:, 0] - best[:, 1]

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return grad_x log p(x; sigma), like x: each assignment's score, weighted by its share of the density."""
        u, width = self._to_sites(x, sigma)
        weights = torch.softmax(self._log_terms(u, width), -1)  # (batch, assignment)
        scores = self._assigned(wrapped_normal_score(u, width))  # (batch, assignment, atom, dimension)
        return (weights[:, :, None, None] * scores).sum(1)

    def _to_sites(self, x, sigma):
        """Return the displacement of every atom from every site, (batch, atom, site, dimension), and its width."""
        sites = torch.tensor(self.equilibrium_relative_coordinates, dtype=x.dtype, device=x.device)
        return displacement(x[:, :, None, :], sites), self.effective_sigma(sigma)[:, None, None, None]

    def _log_terms(self, u, width):
        return self._assigned(wrapped_normal_log_density(u, width)).sum((-2, -1))  # (batch, assignment)

    def _assigned(self, pairs):
        """Pick each atom's entry for its site: (batch, atom, site, ...) -> (batch, assignment, atom, ...)."""
        atoms = torch.arange(self.shape[0], device=pairs.device)
        return pairs[:, atoms, torch.tensor(self.assignments, device=pairs.device)]
