"""How the width sigma(t) of the variance-exploding noise grows with the diffusion time t in [0,1].

The forward process is dx = g dW with g^2 = 2 sigma sigma_dot, so that x_t = x_0 + sigma(t) z (Song et al. 2021).
A new schedule is a class with sigma and sigma_dot, and its name in the union `NoiseSchedule`.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from utils.settings import Settings, Width


class _Schedule(Settings):
    sigma_min: Width
    sigma_max: Width

    @model_validator(mode="after")
    def _grows(self):
        if self.sigma_min >= self.sigma_max:
            raise ValueError("sigma_min must be smaller than sigma_max")
        return self


class ExponentialSchedule(_Schedule):
    """sigma(t) = sigma_min (sigma_max / sigma_min)^t, with sigma_dot = L sigma and L = ln(sigma_max / sigma_min)."""

    type: Literal["exponential"] = "exponential"

    @property
    def rate(self) -> float:
        """L = ln(sigma_max / sigma_min), the constant value of sigma_dot / sigma."""
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise width at times t, shaped like t."""
        return self.sigma_min * torch.exp(self.rate * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return d sigma / dt at times t, shaped like t."""
        return self.rate * self.sigma(t)


class LinearSchedule(_Schedule):
    """sigma(t) = sigma_min + (sigma_max - sigma_min) t."""

    type: Literal["linear"] = "linear"

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise width at times t, shaped like t."""
        return self.sigma_min + (self.sigma_max - self.sigma_min) * t

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return d sigma / dt at times t, shaped like t."""
        return torch.full_like(t, self.sigma_max - self.sigma_min)


NoiseSchedule = Annotated[ExponentialSchedule | LinearSchedule, Field(discriminator="type")]


def time_grid(number_of_steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return the number_of_steps + 1 equally spaced times 0 = t_0 < ... < t_N = 1, so that no step is empty."""
    return torch.linspace(0, 1, number_of_steps + 1, dtype=dtype)
