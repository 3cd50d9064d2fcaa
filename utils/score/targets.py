"""What the network's output is compared with in score matching, one class each.

Without one it is the denoising target T = sigma grad log K(x_t | x_0). Its mean at given x_t is the exact normalised
score, but it varies about that. A target here varies less, and costs something else: a bias, or knowledge. It makes the
targets of an epoch at once; the validation keeps T, so that runs can be compared.
"""

from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Generator, Tensor

from utils.physics.empirical import empirical_score
from utils.physics.laws import Law
from utils.physics.noise_schedule import NoiseSchedule
from utils.physics.torus import displacement, wrap, wrapped_normal_score
from utils.settings import Settings, Width

BLOCK = 512  # points that share their references


class Noised(NamedTuple):
    """Noised configurations and what they are noised from, (batch, atom, dimension), their times, (batch,), and the
    score-matching target, like x."""

    x: Tensor
    t: Tensor
    target: Tensor
    x_0: Tensor


def add_noise(x_0: Tensor, t: Tensor, schedule: NoiseSchedule, generator: Generator) -> Noised:
    """Return configurations x_0 with the noise of times t, and their denoising target T."""
    sigma = schedule.sigma(t)[:, None, None]
    x = wrap(x_0 + sigma * torch.randn(x_0.shape, generator=generator))
    return Noised(x, t, sigma * wrapped_normal_score(displacement(x, x_0), sigma), x_0)


class Target(Settings):
    """Base of all targets. `uses_forces`: whether it is given grad log p_0 at the data, as one has it for molecules;
    then it is no method that learns from samples alone."""

    uses_forces: ClassVar[bool] = False
    type: str

    def __call__(
        self, data: Noised, training_set: Tensor, *, problem: Law, schedule: NoiseSchedule, generator: Generator
    ) -> Tensor:
        """Return the targets of an epoch, like x. Of `problem` only the symmetry may be used, or else the forces."""
        raise NotImplementedError


class StableTargets(Target):
    """The mean of T over several x_0 that may have led to x_t, where there are several (Xu et al. 2023):

        sum_j w_j sigma grad log K(x_t | y_j),    w_j prop. K(x_t | y_j),

    over references y_j from the training set under all permutations of the atoms, drawn anew for every block of points.
    With finitely many it is biased, by about 1 / (effective sample size of the weights), and at low noise that ruins
    it: T stays where this size is below `min_effective_sample_size`. Averaging goes from the noisiest points down, and
    stops after the first block where fewer than half of the points reach that size.
    """

    type: Literal["stable"]
    references: Annotated[int, Field(ge=2, le=10**5)]
    min_effective_sample_size: Annotated[float, Field(ge=1)]

    def __call__(self, data, training_set, *, problem, schedule, generator):
        target, sigma = data.target.clone(), schedule.sigma(data.t)
        for block in sigma.argsort(descending=True).split(BLOCK):
            chosen = torch.randint(len(training_set), (self.references,), generator=generator)
            mean, size = empirical_score(problem.permuted(training_set[chosen]), data.x[block], sigma[block])
            enough = size >= self.min_effective_sample_size
            target[block[enough]] = mean[enough]
            if enough.float().mean() < 0.5:
                break
        return target


class TargetScoreMatching(Target):
    """(1 - a) T + a sigma grad log p_0(x_0), a = l^2 / (l^2 + sigma^2) (De Bortoli et al. 2024). It uses the forces at
    the data. For a single Gaussian of width l it is the exact score, without any variance."""

    uses_forces: ClassVar[bool] = True
    type: Literal["target_score_matching"]
    length: Width  # l

    def __call__(self, data, training_set, *, problem, schedule, generator):
        sigma = schedule.sigma(data.t)[:, None, None]
        share = self.length**2 / (self.length**2 + sigma**2)
        forces = problem.score(data.x_0, torch.zeros_like(data.t))
        return (1 - share) * data.target + share * sigma * forces
