"""From noise to samples: the predictor-corrector sampler of the reverse diffusion (Song et al. 2021).

The time grid is an argument: 0 <= t_0 < ... < t_N <= 1, (N + 1,), or a grid for each sample, (N + 1, batch). A
trajectory starts at t_N and ends at t_0, so part of a trajectory is the same function on part of the grid.
"""

import torch
from torch import Tensor

from utils.physics.torus import wrap
from utils.score.networks import ScoreNetwork


@torch.no_grad()
def predictor_corrector(
    network: ScoreNetwork,
    x: Tensor,
    times: Tensor,
    *,
    corrector_steps: int = 0,
    corrector_epsilon: float = 2.5e-8,
    generator: torch.Generator | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Carry x, (batch, atom, dimension), from times[-1] back to times[0]; no gradient passes.

    Predictor, from t_i to t_i-1: x <- x + g s(x, t_i) + sqrt(g) z with g = sigma_i^2 - sigma_i-1^2.
    Corrector (Langevin) at t_i-1: x <- x + e s + sqrt(2 e) z with e = epsilon sigma^2 / (2 sigma(0)^2).
    `first` is network(x, times[-1]), where it is known already: short trajectories are cheaper by a step.
    """

    def moved(x, coefficients, normalised_score):
        drift, width = coefficients
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)  # drawn on the CPU, then moved
        return wrap(x + drift * normalised_score + width * noise)

    times = times.to(x)
    sigma = network.schedule.sigma(times)[..., None, None]
    growth = (sigma**2).diff(dim=0)
    # Of all steps at once, and for N = sigma s, since the few operations on a small batch are most of its cost.
    predictions = list(zip(growth / sigma[1:], growth.sqrt(), strict=True))
    if corrector_steps:
        e = 0.5 * corrector_epsilon * sigma**2 / network.schedule.sigma(times.new_zeros(())) ** 2
        corrections = list(zip(e / sigma, (2 * e).sqrt(), strict=True))
    for i in range(len(times) - 1, 0, -1):
        output = network(x, times[i].expand(len(x))) if first is None else first
        x, first = moved(x, predictions[i - 1], output), None
        for _ in range(corrector_steps):
            x = moved(x, corrections[i - 1], network(x, times[i - 1].expand(len(x))))
    return x
