"""From noise to samples: the predictor-corrector sampler of the reverse diffusion (Song et al. 2021).

The time grid is an argument: 0 <= t_0 < ... < t_N <= 1, (N + 1,), or a grid for each sample, (N + 1, batch). A
trajectory starts at t_N and ends at t_0, so part of a trajectory is the same function on part of the grid.
"""

import torch
from torch import Tensor

from utils.score_networks import ScoreNetwork
from utils.torus import wrap


@torch.no_grad()
def predictor_corrector(
    network: ScoreNetwork,
    x: Tensor,
    times: Tensor,
    *,
    corrector_steps: int = 0,
    corrector_epsilon: float = 2.5e-8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Carry x, (batch, atom, dimension), from times[-1] back to times[0]; no gradient passes.

    Predictor, from t_i to t_i-1: x <- x + g s(x, t_i) + sqrt(g) z with g = sigma_i^2 - sigma_i-1^2.
    Corrector (Langevin) at t_i-1: x <- x + e s + sqrt(2 e) z with e = epsilon sigma^2 / (2 sigma(0)^2).
    """

    def noise():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)  # drawn on the CPU, then moved

    def score(i):
        return network.score(x, times[i].expand(len(x)))

    times = times.to(x)
    variances = network.schedule.sigma(times)[..., None, None] ** 2
    corrections = 0.5 * corrector_epsilon * variances / network.schedule.sigma(times.new_zeros(())) ** 2
    for i in range(len(times) - 1, 0, -1):
        growth = variances[i] - variances[i - 1]
        x = wrap(x + growth * score(i) + growth.sqrt() * noise())
        for _ in range(corrector_steps):
            e = corrections[i - 1]
            x = wrap(x + e * score(i - 1) + (2 * e).sqrt() * noise())
    return x
