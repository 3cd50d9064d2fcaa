"""A training step: what a regularizer adds to it, how derivatives are had most cheaply, and how it grows with sizes."""

from collections.abc import Callable

import torch
from torch.func import jacrev, jvp, vmap

from benchmarks.timing import medians
from training.data_module import ToyData
from training.lightning_module import mean_square
from utils.runs.loading import Configuration, configure, find_experiments
from utils.score.derivatives import Derivatives, by_forward_propagation

VARIANTS = {
    "fokker_planck_regularizer, score_fpe": ["regularizer.residual=score_fpe"],
    "fokker_planck_regularizer, advective": ["regularizer.residual=advective"],
}
SIZES = {  # key -> what to override, by size
    "hidden size": {size: [f"score_network.hidden_size={size}"] for size in (64, 128, 256, 512, 1024)},
    "batch size": {
        size: [f"data.batch_size={size}", f"data.training_set_size={size}"]
        for size in (512, 1024, 2048, 4096, 8192, 16384)
    },
    "atoms": {
        n: [f"toy_problem.equilibrium_relative_coordinates={[[(2 * i + 1) / (2 * n)] for i in range(n)]}"]
        for n in (2, 3, 4, 5)
    },
}


def training_step(configuration: Configuration) -> Callable[[], None]:
    """Return a function that trains a new network on one mini-batch, noise included."""
    network, truth, data = configuration.build_network(), configuration.build_truth(), ToyData(configuration)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x_0, generator = data.training_set[: configuration.data.batch_size], torch.Generator().manual_seed(0)

    def step():
        x, t, target = data.noise(x_0, "benchmark")
        loss = mean_square(network(x, t) - target)
        if configuration.regularizer is not None:
            regularizer = configuration.regularizer
            loss = loss + regularizer.weight * regularizer(network, x, t, truth=truth, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def regularizer_steps(repeats: int = 200) -> dict[str, float]:
    """Return the seconds of a step of each experiment at its shipped settings, and of both Fokker-Planck forms."""
    actions = {name: training_step(configure(name)) for name in find_experiments()}
    actions |= {k: training_step(configure("fokker_planck_regularizer", v)) for k, v in VARIANTS.items()}
    return medians(actions, repeats)


def derivative_passes(points: int, repeats: int = 50) -> dict[str, float]:
    """Return the seconds that all derivatives of a network and the gradient of their squares take, by both ways."""
    configuration = configure("no_regularizer")
    network = configuration.build_network()
    x, t = torch.rand(points, *configuration.toy_problem.shape), torch.rand(points)
    ways = {"forward propagation": by_forward_propagation, "torch.func, reverse over reverse": by_torch_func}

    def gradient(way):
        return lambda: sum(term.square().mean() for term in way(network, x, t)).backward()

    return medians({name: gradient(way) for name, way in ways.items()}, repeats)


def by_torch_func(network, x, t):
    """Return the derivatives as one would write them with torch.func."""

    def single(x, t):
        return network(x.unflatten(0, shape)[None], t[None])[0].flatten()

    shape, x = x.shape[1:], x.flatten(1)
    time = jvp(lambda t: network(x.unflatten(1, shape), t), (t,), (torch.ones_like(t),))[1].flatten(1)
    hessian = vmap(jacrev(jacrev(single)))(x, t)  # (batch, i, k, l)
    laplacian, grad_divergence = (hessian.diagonal(dim1=d, dim2=d + 1).sum(-1) for d in (2, 1))
    return Derivatives(vmap(single)(x, t), time, vmap(jacrev(single))(x, t), laplacian, grad_divergence)


def growth(key: str, repeats: int = 15) -> dict[int, float]:
    """Return the seconds of a plain step by hidden size, batch size or number of atoms."""
    actions = {str(size): training_step(configure("no_regularizer", o)) for size, o in SIZES[key].items()}
    return {int(size): seconds for size, seconds in medians(actions, repeats).items()}
