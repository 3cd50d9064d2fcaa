"""Derivatives of the perceptron, as the Fokker-Planck penalty needs them: forward mode against torch.func."""

import time
from statistics import median

import torch
from torch import Tensor
from torch.func import jacrev, jvp, vmap

from utils.runs.loading import configure
from utils.score.derivatives import Derivatives, by_forward_mode
from utils.score.networks import ScoreNetwork


def seconds(points: int, repeats: int = 15) -> dict[str, float]:
    """Return the median seconds of the derivatives with their gradient, by each way, taken in turn."""
    network = configure("no_regularizer").build_network()
    generator = torch.Generator().manual_seed(0)
    x, t = torch.rand(points, 2, 1, generator=generator), torch.rand(points, generator=generator)
    durations: dict[str, list[float]] = {"forward mode": [], "torch.func": []}
    for _ in range(repeats + 1):
        for name, way in (("forward mode", by_forward_mode), ("torch.func", by_torch_func)):
            began = time.perf_counter()
            d = way(network, x, t)
            (d.time.square().mean() + d.laplacian.square().mean()).backward()
            durations[name].append(time.perf_counter() - began)
    return {name: median(values[1:]) for name, values in durations.items()}


def by_torch_func(network: ScoreNetwork, x: Tensor, t: Tensor) -> Derivatives:
    """Return the derivatives as one would write them with torch.func."""

    def single(x, t):
        return network(x.unflatten(0, shape)[None], t[None])[0].flatten()

    shape, x = x.shape[1:], x.flatten(1)
    time_derivative = jvp(lambda t: network(x.unflatten(1, shape), t), (t,), (torch.ones_like(t),))[1].flatten(1)
    hessian = vmap(jacrev(jacrev(single)))(x, t)  # (batch, i, k, l)
    laplacian, grad_divergence = (hessian.diagonal(dim1=d, dim2=d + 1).sum(-1) for d in (2, 1))
    return Derivatives(vmap(single)(x, t), time_derivative, vmap(jacrev(single))(x, t), laplacian, grad_divergence)
