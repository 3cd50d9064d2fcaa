"""Derivatives of the normalised score N(x, t) that a network returns: in time, and first and second in space.

Configurations are flattened here: component i of N and component k of x run over atom x dimension. Two ways agree:

- automatic differentiation, for any network;
- forward mode ("forward Laplacian", Li et al. 2024): the perceptron carries the value and its derivatives as channels,
  layer by layer. A linear layer acts on all channels alike, and y = phi(a) has

      y_k = phi'(a) a_k,        y_kl = phi'(a) a_kl + phi''(a) a_k a_l.

  It builds no second graph, so it costs little more than evaluating the network on that many more rows.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from utils.score.networks import MLPScoreNetwork, ScoreNetwork

Wanted = Literal["all", "laplacian", "jacobian"]  # all, all but grad_divergence, or N and its Jacobian alone


class Derivatives(NamedTuple):
    """N and its derivatives; all (batch, component), but the Jacobian (batch, component of N, component of x). What was
    not asked for is None."""

    value: Tensor
    time: Tensor | None  # d_t N_i
    jacobian: Tensor  # d_k N_i
    laplacian: Tensor | None  # sum_k d_k d_k N_i
    grad_divergence: Tensor | None  # sum_k d_i d_k N_k


def derivatives(network: ScoreNetwork, x: Tensor, t: Tensor, wanted: Wanted = "all") -> Derivatives:
    """Return the derivatives of network(x, t), x (batch, atom, dimension), t (batch,), by the cheaper way it allows."""
    if isinstance(network, MLPScoreNetwork):
        return by_forward_mode(network, x, t, wanted)
    return by_autodiff(network, x, t, wanted)


def value_and_divergence(network: ScoreNetwork, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return N, like x, and its exact divergence sum_k d_k N_k, (batch,), by reverse mode; both without a graph."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = network(x, t)
        jacobian = _jacobian(value.flatten(1), x, retain_graph=True)
    return value.detach(), jacobian.diagonal(dim1=1, dim2=2).sum(-1)


def by_autodiff(network: ScoreNetwork, x: Tensor, t: Tensor, wanted: Wanted = "all") -> Derivatives:
    """Return the derivatives of any network, by reverse mode over reverse mode; all second ones cost what the
    Laplacian alone does."""
    learning = torch.is_grad_enabled()
    with torch.enable_grad():
        x, t = x.detach().requires_grad_(), t.detach().requires_grad_()
        value = network(x, t).flatten(1)
        jacobian = _jacobian(value, x, create_graph=True)
        time = laplacian = grad_divergence = None
        if wanted != "jacobian":
            time = _jacobian(value, t, create_graph=learning, retain_graph=True)[..., 0]
            hessian = _jacobian(jacobian.flatten(1), x, create_graph=learning, retain_graph=True)
            hessian = hessian.unflatten(1, jacobian.shape[1:])  # (batch, i, k, l)
            laplacian, grad_divergence = (hessian.diagonal(dim1=d, dim2=d + 1).sum(-1) for d in (2, 1))
    value, jacobian = (d if learning else d.detach() for d in (value, jacobian))
    return Derivatives(value, time, jacobian, laplacian, grad_divergence if wanted == "all" else None)


def _jacobian(fields: Tensor, of: Tensor, **options: Any) -> Tensor:
    """Return the derivatives of (batch, field) by each component of the same point, (batch, field, component).
    Not by torch.func, whose first call imports a compiler, for a second or more."""
    if not fields.requires_grad:  # constants
        return of.new_zeros(len(of), fields.shape[1], of[0].numel())
    # No point's field depends on another point, so the gradient of the sum over points has the derivatives of all.
    slopes = [torch.autograd.grad(one, of, materialize_grads=True, **options)[0] for one in fields.sum(0)]
    return torch.stack(slopes, 1).view(len(of), len(slopes), -1)


def by_forward_mode(network: MLPScoreNetwork, x: Tensor, t: Tensor, wanted: Wanted = "all") -> Derivatives:
    """Return the derivatives of the perceptron, from channels that are carried through it side by side: N, all d_k N,
    and of d_t N and the second derivatives those that are asked for."""
    size = x[0].numel()
    channels, slopes = _input_channels(network, x, t, wanted)
    embeddings = network.embed_coordinates, network.embed_sigma, network.embed_time
    weights, biases = zip(*((layer.weight, layer.bias) for layer in embeddings), strict=True)
    matrix = torch.cat([torch.block_diag(*weights), torch.cat(biases)[:, None]], 1)  # biases meet the constant feature
    channels = channels @ matrix.T
    *hidden, last = (layer for layer in network.layers if isinstance(layer, torch.nn.Linear))
    for layer in hidden:
        channels = _SiLU.apply(channels @ layer.weight.T, layer.bias, slopes, wanted)
    channels = (channels @ last.weight.T).view(len(channels), len(x), -1) @ network.average  # (channel, batch, i)
    value = channels[0] + last.bias.repeat(len(network.permutations)) @ network.average
    jacobian, rest = channels[slopes].permute(1, 2, 0), channels[slopes.stop :]
    if wanted == "jacobian":
        return Derivatives(value, None, jacobian, None, None)
    if wanted == "laplacian":
        return Derivatives(value, channels[1], jacobian, rest[0], None)
    hessian = rest.unflatten(0, (size, size))  # (k, l, batch, i)
    grad_divergence = hessian.diagonal(dim1=0, dim2=3).sum(-1).T
    return Derivatives(value, channels[1], jacobian, hessian.diagonal().sum(-1), grad_divergence)


def _products(slopes, wanted):
    """Return a_k a_l for all k and l, the sum of a_k a_k, or nothing."""
    if wanted == "all":
        return (slopes[:, None] * slopes).flatten(0, 1)
    return slopes.square().sum(0, keepdim=True) if wanted == "laplacian" else slopes[:0]


@torch.no_grad()  # nothing is learned before the embeddings
def _input_channels(network, x, t, wanted):
    """Return (cos, sin, sigma, t, 1) and their derivatives, (channel, batch x permutation, feature), and which channels
    are those of d_k: after the value and d_t, before the second derivatives."""
    size, number = x[0].numel(), len(network.permutations)
    angles = 2 * math.pi * x[:, network.permutations].view(len(x), number, size)  # (batch, permutation, slot)
    unit = 2 * math.pi * torch.eye(size, dtype=x.dtype, device=x.device).view(size, *x.shape[1:])
    d_angles = unit[:, network.permutations].view(size, 1, number, size)  # d_k angle, the same at every point
    products = _products(d_angles, wanted)
    cos, sin, t = angles.cos(), angles.sin(), t[:, None]
    first = 1 if wanted == "jacobian" else 2
    slopes = slice(first, first + size)
    channels = x.new_zeros(slopes.stop + len(products), len(x), number, 2 * size + 3)
    channels[0, ..., :size], channels[0, ..., size:-3] = cos, sin
    channels[0, ..., -3], channels[0, ..., -2], channels[0, ..., -1] = network.schedule.sigma(t), t, 1
    if wanted != "jacobian":
        channels[1, ..., -3], channels[1, ..., -2] = network.schedule.sigma_dot(t), 1
    channels[slopes, ..., :size], channels[slopes, ..., size:-3] = -sin * d_angles, cos * d_angles
    channels[slopes.stop :, ..., :size], channels[slopes.stop :, ..., size:-3] = -cos * products, -sin * products
    return channels.flatten(1, 2), slopes


class _SiLU(torch.autograd.Function):
    """phi(a), phi'(a) a_k and phi'(a) a_kl + phi''(a) a_k a_l for phi(a) = a s(a), s the logistic function.

    The bias is added to a here, and the gradient written out: automatic differentiation makes the whole step half as
    long again. With u = s (1 - s), w = 1 - 2 s the derivatives of phi are s + a u, u (2 + a w), u (3 w + a (1 - 6 u)).
    """

    @staticmethod
    def forward(ctx, channels, bias, slopes, wanted):
        a = channels[0] + bias
        s = torch.sigmoid(a)
        u, w = s * (1 - s), 1 - 2 * s
        slope, curvature = torch.addcmul(s, a, u), u * (2 + a * w)
        products = _products(channels[slopes], wanted)
        outputs = slope * channels
        torch.mul(a, s, out=outputs[0])
        outputs[slopes.stop :].addcmul_(curvature, products)
        ctx.save_for_backward(channels, products, a, u, w, slope, curvature)
        ctx.slopes, ctx.wanted = slopes, wanted
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        channels, products, a, u, w, slope, curvature = ctx.saved_tensors
        slopes, rest = channels[ctx.slopes], gradient[ctx.slopes.stop :]
        inputs = slope * gradient
        inputs[0].addcmul_(curvature, (channels[1:] * gradient[1:]).sum(0))
        if ctx.wanted != "jacobian":
            inputs[0].addcmul_(u * (3 * w + a * (1 - 6 * u)), (products * rest).sum(0))
            if ctx.wanted == "all":
                rest = rest.unflatten(0, (len(slopes), len(slopes)))
                inputs[ctx.slopes].addcmul_(curvature, ((rest + rest.transpose(0, 1)) * slopes).sum(1))
            else:
                inputs[ctx.slopes].addcmul_(curvature, 2 * rest * slopes)
        return inputs, inputs[0].sum(0), None, None
