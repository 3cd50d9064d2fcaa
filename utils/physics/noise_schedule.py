"""How the width sigma(t) of the variance-exploding noise grows with the diffusion time t in [0,1].

The forward process is dx = g dW with g^2 = 2 sigma sigma_dot, so that x_t = x_0 + sigma(t) z (Song et al. 2021).
"""

import math
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from utils.settings import Settings, Width


class NoiseSchedule(Settings):
    """sigma(t) between sigma_min at t = 0 and sigma_max at t = 1; sigma_dot > 0. A subclass has a `type` and both."""

    sigma_min: Width
    sigma_max: Width

    @model_validator(mode="after")
    def _grows(self):
        if 1.01 * self.sigma_min > self.sigma_max:  # closer, the steps of a sampler vanish in float32
            raise ValueError("sigma_min must be smaller than sigma_max, by 1 % at least")
        return self

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise width at times t, shaped like t."""
        raise NotImplementedError

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return d sigma / dt at times t, shaped like t."""
        raise NotImplementedError


class ExponentialSchedule(NoiseSchedule):
    """sigma(t) = sigma_min (sigma_max / sigma_min)^t, with sigma_dot = L sigma and L = ln(sigma_max / sigma_min)."""

    type: Literal["exponential"] = "exponential"

    rate = property(lambda self: math.log(self.sigma_max / self.sigma_min))  # L, everywhere the same

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self.rate * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.rate * self.sigma(t)


class LinearSchedule(NoiseSchedule):
    """sigma(t) = sigma_min + (sigma_max - sigma_min) t."""

    type: Literal["linear"] = "linear"

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min + (self.sigma_max - self.sigma_min) * t

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.sigma_max - self.sigma_min)


def time_grid(number_of_steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return the number_of_steps + 1 equally spaced times 0 = t_0 < ... < t_N = 1, so that no step is empty."""
    return torch.linspace(0, 1, number_of_steps + 1, dtype=dtype)
