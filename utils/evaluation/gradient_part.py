"""The part of a vector field that is a gradient, in the mean square under a distribution p (Khelifa et al. 2026).

If a diffusion is run with the drift error e, the marginals change only by the gradient part of e: the closest gradient

    grad psi,  psi = argmin E_p|e - grad psi|^2,

while the rest e - grad psi satisfies div(p (e - grad psi)) = 0 and moves nothing. psi is sought as a sum of periodic
bumps exp(sum_k (cos 2 pi (x_k - c_k) - 1) / (2 pi w)^2) of width w about points c of p itself. So the basis is as fine
as p, at every noise; in more than a few components no affordable number of bumps is enough.
"""

import math

import torch
from torch import Tensor

CENTRES = 120  # bumps
MAX_COMPONENTS = 3
WIDER, WIDEST = 2.0, 0.12  # a bump's width over that of its mode, and its limit, for what is learned on the torus
RIDGE = 1e-9  # on the scale of the normal equations; bumps overlap


def squared_gradient_part(field: Tensor, x: Tensor, centres: Tensor, width: Tensor) -> Tensor:
    """Return values at points x of p, (point,), whose mean estimates E_p|grad psi|^2, for the field at x, like x. The
    centres are points of p as well, (centre, atom, dimension), in modes of these widths, (centre,).

    E|grad psi|^2 = E[2 e . grad psi - |grad psi|^2] for the best psi. A psi that is fitted to finitely many points
    makes this too large at those points, and too small at others by the same amount. So each of two is fitted to one
    half of the points and evaluated at all: the errors cancel.
    """
    gradients, field = bump_gradients(x, centres, width), field.double().flatten(1)
    halves = [slice(0, len(x) // 2), slice(len(x) // 2, None)]
    fitted = [gradients @ _coefficients(gradients[half], field[half]) for half in halves]
    return torch.stack([(2 * field * one - one.square()).sum(1) for one in fitted]).mean(0)


def bump_gradients(x: Tensor, centres: Tensor, width: Tensor) -> Tensor:
    """Return the gradients of the bumps times their widths, (point, component, centre), float64."""
    w = 2 * math.pi * (WIDER * width.double()).clamp(max=WIDEST)
    a, c = 2 * math.pi * x.double().flatten(1)[:, :, None], 2 * math.pi * centres.double().flatten(1).T
    cos = a.cos() * c.cos() + a.sin() * c.sin()  # cheaper than of the difference
    sin = a.sin() * c.cos() - a.cos() * c.sin()
    return -sin * (torch.exp((cos.sum(1) - len(c)) / w**2) / w)[:, None]


def _coefficients(gradients, field):
    rows = gradients.flatten(0, 1)
    gram = rows.T @ rows
    gram.diagonal().add_(RIDGE * gram.trace() / len(gram))
    return torch.linalg.solve(gram, rows.T @ field.flatten())
