"""Regularizers: what is asked of a score network beyond score matching, one class each.

All are called alike and return a scalar, a mean over batch and components; the training adds `weight` times it:

    regularizer(network, x, t, truth=analytical network, generator=random numbers) -> scalar

x, (batch, atom, dimension), and t, (batch,), are the noised points of the batch. N = sigma s is the normalised score.
`truth` is for oracles alone. A new regularizer is a subclass of `Regularizer` with a `type` (docs/extending.md).
"""

from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.func import grad, jvp, vjp

from utils.physics.noise_schedule import time_grid
from utils.physics.torus import displacement, wrap, wrapped_normal_score
from utils.score.derivatives import Derivatives, derivatives
from utils.score.networks import ScoreNetwork
from utils.score.samplers import predictor_corrector
from utils.settings import Count, NonNegative, Settings


class Regularizer(Settings):
    """Base of all regularizers: their weight in the loss, and the points at which they are evaluated."""

    is_oracle: ClassVar[bool] = False  # whether it uses `truth`: then it is no method, but shows what that is worth
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
    (`score_fpe`), or that of the form d_t s = sigma sigma_dot (2 (s.grad) s + lap s), equal to it where s is a
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


def fokker_planck_residual(network: ScoreNetwork, x: Tensor, t: Tensor, form: str) -> Tensor:
    """Return the dimensionless residual eps_hat = sigma^2 eps / sigma_dot, (batch, component), with exact derivatives.

    With N = sigma s and its Jacobian J it is (sigma / sigma_dot) d_t N - N - sigma^2 D2 N - 2 sigma D1 N, where D2 N
    and D1 N are grad div N and J^T N for `score_fpe`, lap N and J N for `advective`.
    """
    return residual_from(derivatives(network, x, t, mixed=form == "score_fpe"), network, t, form)


def residual_from(d: Derivatives, network: ScoreNetwork, t: Tensor, form: str) -> Tensor:
    """Return `fokker_planck_residual` from known derivatives; the mixed ones are needed for `score_fpe`."""
    if form == "score_fpe":
        return _residual(network, t, d.value, d.time, (d.jacobian * d.value[:, :, None]).sum(1), d.grad_divergence)
    return _residual(network, t, d.value, d.time, (d.jacobian * d.value[:, None, :]).sum(2), d.laplacian)


@torch.enable_grad()  # outside it, as in validation, torch has no forward derivative of the derivative of SiLU
def hutchinson_residuals(network: ScoreNetwork, x: Tensor, t: Tensor, form: str, generator: Generator) -> list[Tensor]:
    """Return two independent unbiased estimates of eps_hat, (batch, component): second derivatives only along random
    signs v, of which E[v_k v_l] = delta_kl (Hutchinson 1990)."""
    field = partial(network, t=t)
    value, time = jvp(partial(network, x), (t,), (torch.ones_like(t),))[:2]

    def second(v):
        if form == "score_fpe":  # grad (v . J v)
            return grad(lambda x: (v * jvp(field, (x,), (v,))[1]).sum())(x)
        return jvp(lambda x: jvp(field, (x,), (v,))[1], (x,), (v,))[1]  # v . Hessian . v

    advection = vjp(field, x)[1](value)[0] if form == "score_fpe" else jvp(field, (x,), (value,))[1]
    value, time, advection = (part.flatten(1) for part in (value, time, advection))
    signs = [torch.randint(2, x.shape, generator=generator).to(x) * 2 - 1 for _ in range(2)]
    return [_residual(network, t, value, time, advection, second(v).flatten(1)) for v in signs]


def _residual(network, t, value, time, advection, second):
    sigma, sigma_dot = network.schedule.sigma(t)[:, None], network.schedule.sigma_dot(t)[:, None]
    return sigma / sigma_dot * time - value - sigma**2 * second - 2 * sigma * advection
