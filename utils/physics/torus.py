"""The flat torus [0,1)^n and the normal distribution wrapped around it.

A normal variable of width sigma, taken modulo 1, has the density

    W(u) = sum_k exp(-(u + k)^2 / 2 sigma^2) / sqrt(2 pi sigma^2)             sum over images, fast where it is narrow
         = 1 + 2 sum_n exp(-2 pi^2 n^2 sigma^2) cos(2 pi n u)                 Fourier series, fast where it is wide

(Poisson summation; Jing et al. 2022 use it as the noise kernel on a torus). With u the minimal image, the exponents
relative to the nearest image are -k(k + 2u)/2 sigma^2 <= 0, which keeps float32 accurate. Where both sums meet, three
images on each side and three harmonics are each exact to 1e-18.
"""

import math

import torch
from torch import Tensor

IMAGES = HARMONICS = 3
CROSSOVER_SIGMA = 0.38  # the first term left out is exp(-12 / 2 sigma^2) of images, exp(-32 pi^2 sigma^2) of Fourier


def wrap(x: Tensor) -> Tensor:
    """Return x modulo 1, in [0,1)."""
    return (x % 1.0) % 1.0  # the first remainder rounds a tiny negative number to 1


def displacement(x: Tensor, y: Tensor | float) -> Tensor:
    """Return the minimal image of x - y, in [-1/2,1/2)."""
    difference = x - y
    return difference - torch.floor(difference + 0.5)


def wrapped_normal_log_density(u: Tensor, sigma: Tensor | float) -> Tensor:
    """Return log W(u), elementwise; u and sigma > 0 broadcast against each other."""
    u, narrow, wide, is_narrow = _prepare(u, sigma)
    log_sum = -torch.log_softmax(_images(u, narrow)[1], 0)[IMAGES]  # the nearest image, k = 0, has the exponent 0
    by_images = log_sum - 0.5 * (u / narrow) ** 2 - torch.log(math.sqrt(2 * math.pi) * narrow)
    if is_narrow.all():  # the usual case: then half of the time is enough
        return by_images
    _, amplitudes, phases = _harmonics(u, wide)
    by_harmonics = torch.log1p((amplitudes * torch.cos(phases)).sum(0))
    return torch.where(is_narrow, by_images, by_harmonics)


def wrapped_normal_score(u: Tensor, sigma: Tensor | float) -> Tensor:
    """Return d/du log W(u), elementwise; u and sigma > 0 broadcast against each other."""
    u, narrow, wide, is_narrow = _prepare(u, sigma)
    k, exponents = _images(u, narrow)
    by_images = -(u + (torch.softmax(exponents, 0) * k).sum(0)) / narrow**2
    if is_narrow.all():
        return by_images
    n, amplitudes, phases = _harmonics(u, wide)
    density = 1 + (amplitudes * torch.cos(phases)).sum(0)
    by_harmonics = -2 * math.pi * (n * amplitudes * torch.sin(phases)).sum(0) / density
    return torch.where(is_narrow, by_images, by_harmonics)


def wrapped_normal_derivatives(u: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return d/du log W(u), and d^2/du^2 log W(u), elementwise; u and sigma > 0 broadcast against each other."""
    u, narrow, wide, is_narrow = _prepare(u, sigma)
    k, exponents = _images(u, narrow)
    weights = torch.softmax(exponents, 0)
    mean = (weights * k).sum(0)
    variance = (weights * (k - mean) ** 2).sum(0)  # of the image
    by_images = -(u + mean) / narrow**2, (variance / narrow**2 - 1) / narrow**2
    if is_narrow.all():
        return by_images
    n, amplitudes, phases = _harmonics(u, wide)
    cos, sin = amplitudes * torch.cos(phases), amplitudes * torch.sin(phases)
    density, n = 1 + cos.sum(0), 2 * math.pi * n
    score = -(n * sin).sum(0) / density
    curvature = -(n**2 * cos).sum(0) / density - score**2
    return torch.where(is_narrow, by_images[0], score), torch.where(is_narrow, by_images[1], curvature)


def _prepare(u, sigma):
    """Return the minimal image of u, sigma clamped to each side of the crossover, and whether it is on the narrow one.
    Where both occur, both sums are evaluated everywhere: the clamps keep the unused one and its gradient finite."""
    sigma = torch.as_tensor(sigma, dtype=u.dtype, device=u.device)
    u, sigma = torch.broadcast_tensors(displacement(u, 0.0), sigma)
    return u, sigma.clamp(max=CROSSOVER_SIGMA), sigma.clamp(min=CROSSOVER_SIGMA), sigma < CROSSOVER_SIGMA


def _images(u, sigma):
    """Return k and the images' exponents relative to the nearest, along a new first axis: a short last one is slow."""
    k = torch.arange(-IMAGES, IMAGES + 1, dtype=u.dtype, device=u.device).view(-1, *[1] * u.ndim)
    return k, -k * (k + 2 * u) / (2 * sigma**2)


def _harmonics(u, sigma):
    """Return n, the amplitude and the phase of each harmonic, along a new first axis as well."""
    n = torch.arange(1, HARMONICS + 1, dtype=u.dtype, device=u.device).view(-1, *[1] * u.ndim)
    return n, 2 * torch.exp(-2 * (math.pi * n * sigma) ** 2), 2 * math.pi * n * u
