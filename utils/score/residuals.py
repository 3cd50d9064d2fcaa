"""The residual of the Fokker-Planck equation of the score, which the exact score solves."""

from functools import partial

import torch
from torch import Generator, Tensor
from torch.func import grad, jvp, vjp

from utils.score.derivatives import Derivatives, Wanted, derivatives
from utils.score.networks import ScoreNetwork


def fokker_planck_residual(network: ScoreNetwork, x: Tensor, t: Tensor, form: str) -> Tensor:
    """Return the dimensionless residual eps_hat = sigma^2 eps / sigma_dot, (batch, component), with exact derivatives.

    With N = sigma s and its Jacobian J it is (sigma / sigma_dot) d_t N - N - sigma^2 D2 N - 2 sigma D1 N, where D2 N
    and D1 N are grad div N and J^T N for `score_fpe`, lap N and J N for `advective`.
    """
    wanted: Wanted = "all" if form == "score_fpe" else "laplacian"
    return residual_from(derivatives(network, x, t, wanted), network, t, form)


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
