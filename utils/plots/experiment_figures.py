"""The figures of one run: its samples, their distances from the modes, maps of its score; the exact distribution."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy import ndarray as Array
from scipy.stats import chi

from utils.plots.style import BLUE, FLAT, SHADES, VERMILLION, new_figure, regions, styled, torus_axes
from utils.plots.views import Plane

Pairs = Sequence[tuple[float, float]]
OVER_TORUS = {"extent": (0, 1, 0, 1), "origin": "lower", "interpolation": "bilinear"}
MAGNITUDES = LogNorm(0.01, 30)  # of the normalised score: the base case's largest is about 18


@styled
def samples_figure(samples: Array, is_stray: Array, plane: Plane, widths: Array, radius: float, title: str) -> Figure:
    """Return the samples that lie in a plane, (n, 2), on the torus, and closely about its first two modes. is_stray is
    (n,); widths, (mode,), are those of the modes in the plane; the stray radius is in units of them."""
    modes = plane.modes
    figure = new_figure(9.6, 6.9, layout="constrained")
    panes = figure.subplot_mosaic([["torus", i] for i in range(min(len(modes), 2))], width_ratios=(2, 1))
    torus = panes.pop("torus")
    figure.suptitle(title)
    torus_axes(torus, plane.labels)
    strays, dots = int(np.sum(is_stray)), {"marker": "o", "ls": "none", "mew": 0, "color": BLUE, "rasterized": True}
    crosses = {"marker": "x", "ls": "none", "ms": 6 if strays < 300 else 3.5, "color": VERMILLION, "rasterized": True}
    torus.plot(*samples[~is_stray].T, label=f"{len(samples) - strays:,} samples near a mode", ms=2.5, alpha=0.6, **dots)
    share = strays / max(len(samples), 1)  # a slice may hold no sample
    torus.plot(*samples[is_stray].T, label=f"{strays:,} stray ({share:.2%})", **crosses)
    for mode, width in zip(modes, widths, strict=True):
        torus.add_patch(Circle(mode, radius * width, fill=False, linewidth=0.8))
    torus.plot([], [], "o", ms=9, mew=0.8, color="black", mfc="none", label=f"{radius:.3g} widths about a mode")
    figure.legend(loc="outside lower center", ncols=3)
    for i, axes in panes.items():
        u = ((samples - modes[i] + 0.5) % 1 - 0.5) / widths[i]
        axes.plot(*u.T, ms=2.5, alpha=0.3, **dots)
        for ring in (1, 2, 3):
            axes.add_patch(Circle((0, 0), ring, fill=False, zorder=3))
        axes.set(xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), xticks=range(-4, 5, 2), yticks=range(-4, 5, 2), aspect="equal")
        axes.set(title="1, 2, 3 widths about ({:.3g}, {:.3g})".format(*modes[i]))
        axes.set(xlabel="displacement / width", ylabel="displacement / width")
    return figure


@styled
def radial_distribution_figure(radii: Array, dimension: int, title: str, sampler_widths: Pairs = ()) -> Figure:
    """Return the density of the distances, (n,), of the samples from their nearest modes, in widths of the mode. For
    each component sampler_widths has its weight, and its width, in units of its own, with the exact score."""
    figure = new_figure(7, 4.8, layout="constrained")
    axes = figure.subplots()
    limit = max(5, round(dimension**0.5 + 4))  # the chi law is centred at sqrt(dimension), 0.7 wide at most
    counts, edges = np.histogram(radii, bins=10 * limit, range=(0, limit))
    beyond, r = len(radii) - counts.sum(), np.linspace(0, limit, 501)
    name = f"{len(radii):,} samples; beyond {limit} widths: {beyond:,} ({beyond / len(radii):.2%})"
    axes.stairs(counts / len(radii) / np.diff(edges), edges, fill=True, color=SHADES[2], label=name)
    name = f"exact distribution (chi, {dimension} degrees of freedom)"
    axes.plot(r, chi.pdf(r, dimension), color="black", label=name)
    if sampler_widths:
        density = sum(weight * chi.pdf(r, dimension, scale=width) for weight, width in sampler_widths)
        wider = ", ".join(f"{width:.3f}" for _, width in sampler_widths)
        name = f"exact score with this sampler (oracle recursion): {wider} times as wide"
        axes.plot(r, density / sum(weight for weight, _ in sampler_widths), "--", color=VERMILLION, label=name)
    axes.set(xlim=(0, limit), ylim=(0, None), title=title, ylabel="probability density")
    axes.set(xlabel="distance from the nearest mode, in widths of the mode")
    figure.legend(loc="outside lower center")
    return figure


@styled
def marginal_distribution_figure(times: Array, grid: Array, densities: Array, plane: Plane) -> Figure:
    """Return the exact distribution at k times: densities, (k, n, n), and below the marginals of one coordinate."""
    figure = new_figure(2.6 * len(times) + 0.8, 5.8, layout="constrained")
    panes = figure.subplots(2, len(times), squeeze=False, sharex=True, sharey="row")
    marginals, norm = densities.mean(2), LogNorm(1e-2, 10 ** np.ceil(np.log10(densities.max())))
    for (above, below), t, density, marginal in zip(panes.T, times, densities, marginals, strict=True):
        image = above.imshow(np.maximum(density, norm.vmin).T, norm=norm, **OVER_TORUS)
        logarithm = np.log(np.maximum(density, np.finfo(density.dtype).tiny))
        if np.ptp(logarithm) >= FLAT:
            regions(above.contour, grid, logarithm, colors="white", linewidths=0.6, linestyles="solid")
        torus_axes(above, ("", ""))
        above.set_title(f"t = {t:.2f}")
        below.semilogy(grid, marginal, color=BLUE)
        below.set(ylim=(norm.vmin, 2.5 * marginals.max()), box_aspect=1, xlabel=plane.labels[0])
        below.grid(color="0.9")
    panes[0, 0].set_ylabel(plane.labels[1])
    panes[1, 0].set_ylabel("density of the slice" if plane.is_slice else "marginal density")
    figure.colorbar(image, ax=panes[0], label="density", extend="min", pad=0.01)
    figure.supxlabel("White lines bound the smallest regions that hold 39.3, 86.5, 98.9 % of the probability.", size=9)
    return figure


@styled
def maps_figure(times: Sequence[float], maps: Sequence[Array], plane: Plane, title: str) -> Figure:
    """Return maps over the torus, each (time, n, n), the first index of which is the horizontal coordinate: the size of
    the learned normalised score, of the exact one and of the error, on one logarithmic scale."""
    width, height = 2.75 * len(times) + 1.9, 9.5
    figure = new_figure(width, height)
    panes = figure.subplots(3, len(times), squeeze=False, sharex=True, sharey=True)
    figure.subplots_adjust(1.05 / width, 0.6 / height, 1 - 1.25 / width, 1 - 0.85 / height, 0.07, 0.1)
    figure.suptitle(title, y=1 - 0.25 / height)
    names = ("learned $|\\sigma s_\\theta|$", "exact $|\\sigma s|$", "error $|\\sigma (s_\\theta - s)|$")
    for row, name, sizes in zip(panes, names, maps, strict=True):
        for axes, values in zip(row, sizes, strict=True):
            image = axes.imshow(np.maximum(values, 1e-3).T, norm=MAGNITUDES, cmap="cividis", **OVER_TORUS)
            torus_axes(axes, plane.labels)
        row[0].set_ylabel(f"{name}\n{plane.labels[1]}")
    for axes, t in zip(panes[0], times, strict=True):
        axes.set_title(f"t = {t:.2f}")
    bar = figure.add_axes((1 - 1.05 / width, 0.6 / height, 0.2 / width, 1 - 1.45 / height))
    figure.colorbar(image, bar, extend="both", label="size of the normalised score (dimensionless)")
    return figure
