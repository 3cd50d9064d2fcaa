"""Regularizers: what is asked of a score network beyond score matching, one class each.

All are called alike and return a scalar, a mean over batch and components; the training adds `weight` times it:

    regularizer(network, x, t, truth=analytical network, generator=random numbers) -> scalar

x, (batch, atom, dimension), and t, (batch,), are the noised points of the batch. N = sigma s is the normalised score.
`truth` is for oracles alone. What a regularizer needs beyond the points, x_0 or the training set, it gets in
`on_batch`, which the training calls. T = sigma grad log K(x_t | x_0) is the denoising target, J the Jacobian of N.
A new regularizer is a subclass of `Regularizer` with a `type` (docs/extending.md).
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from utils.physics.empirical import empirical_score
from utils.physics.noise_schedule import time_grid
from utils.physics.torus import displacement, wrap, wrapped_normal_derivatives, wrapped_normal_score
from utils.score.derivatives import derivatives
from utils.score.networks import ScoreNetwork
from utils.score.residuals import fokker_planck_residual, hutchinson_residuals
from utils.score.samplers import predictor_corrector
from utils.score.targets import Noised
from utils.settings import Count, NonNegative, Settings


class Regularizer(Settings):
    """Base of all regularizers: their weight in the loss, and the points at which they are evaluated."""

    is_oracle: ClassVar[bool] = False  # whether it uses `truth`: then it is no method, but shows what that is worth
    needs_log_density: ClassVar[bool] = False  # which an energy network has, and no other
    type: str
    weight: NonNegative
    burn_in_epochs: Annotated[int, Field(ge=0)] = 0  # the number of first epochs without it
    points: Literal["uniform", "noised"]  # uniform on the torus, or the batch's own
    batch_size: Count | None = None  # how many of the batch's points; null: all

    def __call__(
        self, network: ScoreNetwork, x: Tensor, t: Tensor, *, truth: ScoreNetwork, generator: Generator
    ) -> Tensor:
        """Return the value of the regularizer, without its weight."""
        raise NotImplementedError

    def on_batch(
        self, network: ScoreNetwork, batch: Noised, *, training_set: Tensor, truth: ScoreNetwork, generator: Generator
    ) -> Tensor:
        """Return the value at the noised points of a batch; the training set is (configuration, atom, dimension). A
        method that is no oracle may use the symmetry of `truth` alone."""
        return self(network, batch.x, batch.t, truth=truth, generator=generator)

    def diagnostics(
        self, network: ScoreNetwork, x: Tensor, t: Tensor, *, truth: ScoreNetwork, generator: Generator
    ) -> dict[str, Tensor]:
        """Return scalars, by name, that TensorBoard shows beside the regularizer's value on the validation set."""
        return {}

    def choose_points(self, x: Tensor, t: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return the points at which the regularizer is evaluated: x, (point, atom, dimension), and t, (point,)."""
        x, t = x[: self.batch_size], t[: self.batch_size]  # on the validation set: its first points
        if self.points == "uniform":
            x = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        return x, t


class AnalyticalRegression(Regularizer):
    """Oracle: |N_theta - N|^2, the squared distance to the exact normalised score."""

    is_oracle: ClassVar[bool] = True
    type: Literal["analytical_regression"] = "analytical_regression"

    def __call__(self, network, x, t, *, truth, generator):
        x, t = self.choose_points(x, t, generator)
        return (network(x, t) - truth(x, t).detach()).square().mean()


class FokkerPlanck(Regularizer):
    """|eps|^2, the squared residual of the Fokker-Planck equation of the score (Lai et al. 2022).

    On any diffusion d_t s = sigma sigma_dot grad(div s + |s|^2). The residual is the difference of both sides
    (`score_fpe`), or that of both sides of d_t s = sigma sigma_dot (2 (s.grad) s + lap s), equal to it where s is a
    gradient (`advective`). It grows like 1/sigma; the dimensionless eps_hat = sigma^2 eps / sigma_dot does not.
    s = 0 solves the equation: away from the data, where score matching says nothing, the penalty pulls the score to 0.
    """

    type: Literal["fokker_planck"] = "fokker_planck"
    residual: Literal["score_fpe", "advective"] = "score_fpe"
    weighting: Literal["dimensionless", "none"] = "dimensionless"
    second_derivatives: Literal["exact", "hutchinson"] = "exact"  # hutchinson: cost independent of atoms x dimensions

    def __call__(self, network, x, t, *, truth, generator):
        x, t = self.choose_points(x, t, generator)
        if self.second_derivatives == "exact":
            first = second = fokker_planck_residual(network, x, t, self.residual)
        else:
            # the square of one noisy residual would add its variance; the product of two independent ones does not
            first, second = hutchinson_residuals(network, x, t, self.residual, generator)
        if self.weighting == "none":
            scale = (network.schedule.sigma_dot(t) / network.schedule.sigma(t) ** 2)[:, None]
            first, second = scale * first, scale * second
        return (first * second).mean()


class Conservative(Regularizer):
    """|J - J^T|^2 / 4: the Jacobian of a gradient is symmetric (Chao et al. 2023)."""

    type: Literal["conservative"] = "conservative"

    def __call__(self, network, x, t, *, truth, generator):
        x, t = self.choose_points(x, t, generator)
        jacobian = derivatives(network, x, t, wanted="jacobian").jacobian
        return (jacobian - jacobian.mT).square().mean() / 4


class SecondOrderScoreMatching(Regularizer):
    """|sigma J - H - (T - N)(T - N)^T|^2 with H = sigma^2 hess log K(x_t | x_0) (Lu et al. 2022).

    Score matching for the derivatives: hess log p_t = E[hess log K + (grad log K - s)(grad log K - s)^T | x_t]. No
    gradient passes through the N of the product. A score of zero does not satisfy it.
    """

    type: Literal["second_order_score_matching"] = "second_order_score_matching"
    points: Literal["noised"] = "noised"

    def on_batch(self, network, batch, *, training_set, truth, generator):
        x, t, _, x_0 = (part[: self.batch_size] for part in batch)
        sigma = network.schedule.sigma(t)[:, None]
        d = derivatives(network, x, t, wanted="jacobian")
        target, curvature = kernel_derivatives(x, x_0, sigma)
        noise = target - d.value.detach()
        matrix = torch.diag_embed(curvature) + noise[:, :, None] * noise[:, None, :]
        return (sigma[:, :, None] * d.jacobian - matrix).square().mean()


class DualScoreMatching(Regularizer):
    """|lambda (d_t log p_theta - d_t log K(x_t | x_0))|^2, lambda = sigma / (sigma_dot sqrt(components)), for a network
    that has a log-density (Guth et al. 2025).

    d_t log p_t = E[d_t log K | x_t], so it is score matching in time, and relates the density of separate modes. K
    obeys the diffusion equation: d_t log K = sigma sigma_dot (lap log K + |grad log K|^2). phi also learns the c(t) of
    log p_t = phi / r + c(t), so log p_theta = phi / r equals log p_t up to one constant, the same at all t. A score of
    zero does not satisfy it.
    """

    needs_log_density: ClassVar[bool] = True
    type: Literal["dual_score_matching"] = "dual_score_matching"
    points: Literal["noised"] = "noised"

    def on_batch(self, network, batch, *, training_set, truth, generator):
        x, t, _, x_0 = (part[: self.batch_size] for part in batch)
        sigma, sigma_dot = network.schedule.sigma(t), network.schedule.sigma_dot(t)
        first, second = kernel_derivatives(x, x_0, sigma[:, None])
        learning, t = torch.is_grad_enabled(), t.detach().requires_grad_()
        with torch.enable_grad():
            slope = torch.autograd.grad(network.log_density(x, t).sum(), t, create_graph=learning)[0]
        target = (second + first.square()).sum(1)  # sigma / sigma_dot d_t log K
        return (sigma / sigma_dot * slope - target).square().mean() / x[0].numel()


class EmpiricalRegression(Regularizer):
    """|N_theta - N_e|^2, N_e the normalised score of configurations drawn from the training set, with all orderings of
    the atoms, as if they were all the data (Xu et al. 2023; utils/physics/empirical.py), at points where at least
    `min_effective_sample_size` of them contribute: like the analytical regression, without the exact score."""

    type: Literal["empirical_regression"] = "empirical_regression"
    references: Annotated[int, Field(ge=2, le=10**5)] | None = 256  # null: the whole training set
    min_effective_sample_size: Annotated[float, Field(ge=1)] = 100

    def on_batch(self, network, batch, *, training_set, truth, generator):
        x, t = self.choose_points(batch.x, batch.t, generator)
        if self.references is not None:
            training_set = training_set[torch.randint(len(training_set), (self.references,), generator=generator)]
        centres = truth.problem.permuted(training_set.to(x))
        target, size = empirical_score(centres, x, network.schedule.sigma(t))
        known = (size >= self.min_effective_sample_size)[:, None, None]
        return (known * (network(x, t) - target).square()).mean()


class Consistency(Regularizer):
    """The score must agree with itself along its own reverse trajectories (Daras et al. 2023).

    Along exact ones s(x_t, t) = E[grad log K(x_t | x_t') | x_t] = E[s(x_t', t') | x_t] for t' < t, K the wrapped normal
    of variance sigma_t^2 - sigma_t'^2. Trajectories take `number_of_steps` steps of a grid of `time_steps`, and no
    gradient passes through them.

    kernel_score        N^2 - 2 N N*, N* = sigma_t grad log K: |N - N*|^2 less a constant, so it may be negative
    martingale_product  sigma_t^2 (s(x'_1, t') - s(x, t)) (s(x'_2, t') - s(x, t)), independent x': unbiased square
    `guide: analytical` takes the trajectories from the exact score, an oracle. s = 0 is consistent with itself.
    """

    type: Literal["consistency"] = "consistency"
    loss: Literal["kernel_score", "martingale_product"] = "kernel_score"
    time_steps: Annotated[int, Field(ge=1, le=10**6)] = 100
    number_of_steps: Annotated[int, Field(ge=2, le=10**6)] = 5  # with one step the gradient is zero in expectation
    guide: Literal["analytical"] | None = None

    @property
    def is_oracle(self) -> bool:  # type: ignore[override]
        return self.guide is not None

    @model_validator(mode="after")
    def _steps_fit_on_the_grid(self):
        if self.number_of_steps > self.time_steps:
            raise ValueError("number_of_steps must not exceed time_steps")
        return self

    def __call__(self, network, x, t, *, truth, generator):
        if self.loss == "martingale_product":
            return self.squared_gap(network, x, t, truth=truth, generator=generator)
        x, t = self.choose_points(x, t, generator)
        x, times, output, (end,) = self._trajectories(1, network, x, t, truth, generator)
        earlier, sigma = network.schedule.sigma(times[[0, -1]])[..., None, None]
        target = sigma * wrapped_normal_score(displacement(x, end), (sigma**2 - earlier**2).sqrt())
        return (output.square() - 2 * output * target).mean()

    def diagnostics(self, network, x, t, *, truth, generator):
        # kernel_score lacks a constant, so its value says little
        return {"consistency_gap_squared": self.squared_gap(network, x, t, truth=truth, generator=generator)}

    def start(self, network: ScoreNetwork, x: Tensor, t: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return where trajectories start and the part of the time grid each takes, (steps + 1, batch).

        Each t is rounded up to a time of the grid, the one of step `number_of_steps` at least; noised points get the
        noise that this adds.
        """
        index = torch.ceil(t * self.time_steps).long().clamp(min=self.number_of_steps)
        steps = torch.arange(-self.number_of_steps, 1, device=x.device)
        times = time_grid(self.time_steps, x.dtype).to(x.device)[index + steps[:, None]]
        if self.points == "noised":
            missing = network.schedule.sigma(times[-1]) ** 2 - network.schedule.sigma(t) ** 2
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            x = wrap(x + missing.clamp(min=0).sqrt()[:, None, None] * noise)
        return x, times

    def squared_gap(self, network, x, t, *, truth, generator):
        """Return the mean product of sigma_t (s(x', t') - s(x, t)) over two independent trajectories from x to x'."""
        x, t = self.choose_points(x, t, generator)
        first, second = self.gaps(network, x, t, truth=truth, generator=generator)
        return (first * second).mean()

    def gaps(self, network, x, t, *, truth, generator):
        """Return sigma_t (s(x', t') - s(x, t)) along two independent trajectories, a list of two, each like x."""
        _, times, here, ends = self._trajectories(2, network, x, t, truth, generator)
        sigma = network.schedule.sigma(times[-1])[:, None, None]
        return [sigma * network.score(end, times[0]) - here for end in ends]

    def _trajectories(self, number, network, x, t, truth, generator):
        """Return where and when trajectories start, the network's output there, and the ends of independent ones."""
        x, times = self.start(network, x, t, generator)
        output = network(x, times[-1])
        guide, known = (truth, None) if self.guide else (network, output.detach())
        ends = [predictor_corrector(guide, x, times, generator=generator, first=known) for _ in range(number)]
        return x, times, output, ends


def kernel_derivatives(x: Tensor, x_0: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return sigma d log K(x | x_0) and sigma^2 d^2 log K, by each component of x, (batch, component), for sigma
    (batch, 1)."""
    u = displacement(x, x_0).flatten(1)
    first, second = wrapped_normal_derivatives(u, sigma)
    return sigma * first, sigma**2 * second
