"""Figures that are drawn once: of several runs side by side, of one run, and of the exact distribution. A name has the
same colour and dashes in every figure of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy import ndarray as Array
from scipy.stats import chi
from torch import Tensor

from utils.plots.style import BLUE, FLAT, SHADES, VERMILLION, line_styles, new_figure, regions, styled, torus_axes
from utils.plots.views import Field, Plane

ROUNDING = 1e-9  # what is always smaller is 0 up to the rounding of float64, and would only squeeze the axis
OVER_TORUS = {"extent": (0, 1, 0, 1), "origin": "lower", "interpolation": "bilinear"}
MAGNITUDES = LogNorm(0.01, 30)  # of the normalised score: the base case's largest is about 18
Points = Mapping[str, Array]
Pairs = Sequence[tuple[float, float]]
Panes = Mapping[str, Mapping[str, Sequence[Any]]]


@styled
def comparison_figure(panes: Panes, xlabel: str, ylabel: str, title: str, signed: bool = False) -> Figure:
    """Return panes side by side, title -> name -> (abscissa, values or Nones, errors or None), on a logarithmic axis.
    `signed` is for what may be negative by chance: the axis is linear as far as most of the errors reach."""
    styles = line_styles(dict.fromkeys(name for curves in panes.values() for name in curves))
    lines, always_zero = dict[str, object](), dict.fromkeys(styles, True)  # a logarithmic axis cannot show 0
    width = {1: 8.0, 2: 11.0}.get(len(panes), 4.2 * len(panes) + 0.6)
    figure = new_figure(width, 4.6 + 0.24 * (-(-len(styles) // 2)), layout="constrained")
    figure.suptitle(title)
    for axes, (heading, curves) in zip(figure.subplots(1, len(panes), squeeze=False)[0], panes.items(), strict=True):
        curves = {name: [a if a is None else np.array(a, dtype=float) for a in curve] for name, curve in curves.items()}
        for name, (x, values, errors) in curves.items():
            shown = values if signed else np.where(values > ROUNDING, values, np.nan)
            (lines[name],) = axes.plot(x, shown, linewidth=1.5 if errors is not None else 1, **styles[name])
            always_zero[name] &= bool(np.all(np.abs(values) < ROUNDING))
            if errors is not None:
                low = np.maximum(shown - errors, -np.inf if signed else 0.2 * shown)  # a band to 0 would fill the axis
                axes.fill_between(x, low, shown + errors, color=styles[name]["color"], alpha=0.2, linewidth=0)
        ends = [end for x, _, _ in curves.values() if len(x) for end in (x[0], x[-1])] or [0]
        inside = min(ends) >= 0 and max(ends) <= 1
        axes.set(title=heading, xlabel=xlabel, xlim=(0, 1) if inside else (min(ends), max(ends)))
        if signed and curves:
            axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
            errors = np.concatenate([errors for _, _, errors in curves.values()])
            if np.any(errors > ROUNDING):  # all is 0 for the exact score alone
                axes.set_yscale("symlog", linthresh=np.quantile(errors[errors > ROUNDING], 0.9, method="higher"))
        elif any(np.any(values > ROUNDING) for _, values, _ in curves.values()):
            axes.set_yscale("log")
        axes.grid(color="0.9")
    figure.axes[0].set_ylabel(ylabel)
    labels = [f"{name} (0 up to rounding)" if always_zero[name] else name for name in lines]
    figure.legend(list(lines.values()), labels, loc="outside lower center", ncols=2, handlelength=3.5)
    return figure


@styled
def samples_comparison_figure(samples: Points, is_stray: Points, plane: Plane, title: str) -> Figure:
    """Return the samples of all runs, name -> (n, 2), each on its torus, with strays, name -> (n,), crossed."""
    columns, rows = min(3, len(samples)), -(-len(samples) // 3)
    figure = new_figure(3.9 * columns, 4.05 * rows + 0.9, layout="constrained")
    figure.suptitle(title)
    panes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    size = "small" if max(map(len, samples)) < 42 else "x-small"
    for axes, (name, x) in zip(panes, samples.items(), strict=False):
        stray, style = is_stray[name], {"ls": "none", "rasterized": True}
        torus_axes(axes, plane.labels)
        axes.plot(*x[~stray].T, "o", ms=1.8, mew=0, alpha=0.5, color=BLUE, label="near a mode", **style)
        axes.plot(*x[stray].T, "x", ms=3.5, mew=0.8, color=VERMILLION, label="stray", **style)
        axes.plot(*plane.modes.T, "+", ms=7, mew=1, color="white", zorder=3)
        axes.set_title(f"{name}\n{stray.sum() / max(len(stray), 1):.2%} stray", size=size)
    for axes in panes[len(samples) :]:
        axes.remove()
    figure.legend(*panes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2.5)
    return figure


@styled
def weights_figure(panes: Mapping[str, tuple[Mapping[str, Sequence[Array]], Array | None]], title: str) -> Figure:
    """Return metrics against the weight of a regularizer: heading -> (name -> weights, means, low, high; the baseline's
    mean, low and high or None). Bands and the grey stripe of the baseline are intervals over seeds."""
    names, rows = dict.fromkeys(name for curves, _ in panes.values() for name in curves), -(-len(panes) // 2)
    styles, keys = line_styles(["no_regularizer", *names]), {}  # it has no curve here, but its colour elsewhere
    figure = new_figure(11.2, 3.7 * rows + 0.5 + 0.24 * (-(-len(names) // 2)), layout="constrained")
    figure.suptitle(title, size="medium")
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (heading, (curves, baseline)) in zip(grid, panes.items(), strict=False):
        positive = []
        if baseline is not None:
            keys["no regularizer"] = axes.axhline(baseline[0], color="0.4", linewidth=1)
            axes.axhspan(baseline[1], baseline[2], color="0.85", linewidth=0)
            positive.append(baseline[0])
        for name, (weights, means, low, high) in curves.items():
            (keys[name],) = axes.plot(weights, means, marker="o", markersize=3, **styles[name])
            axes.fill_between(weights, low, high, color=styles[name]["color"], alpha=0.2, linewidth=0)
            positive += means[np.isfinite(means)].tolist()
        axes.set(title=heading, xlabel="weight", xscale="log")
        if positive and min(positive) > 0:
            axes.set_yscale("log")
        elif smallest := [value for value in positive if value > 0]:  # a share of no strays has its place as well
            axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(min(smallest))))
            axes.set_ylim(bottom=0 if min(positive) == 0 else None)
        axes.grid(color="0.9")
    for axes in grid[len(panes) :]:
        axes.remove()
    figure.legend(list(keys.values()), list(keys), loc="outside lower center", ncols=2, handlelength=3.5)
    return figure


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
def marginal_distribution_figure(field: Field, times: Tensor) -> Figure:
    """Return the exact distribution at these times, and below the marginals of one coordinate."""
    plane, densities = field.plane, np.exp(np.stack([field.log_density(t) for t in times]).astype(np.float64))
    figure = new_figure(2.6 * len(times) + 0.8, 5.8, layout="constrained")
    panes = figure.subplots(2, len(times), squeeze=False, sharex=True, sharey="row")
    marginals, norm = densities.mean(2), LogNorm(1e-2, 10 ** np.ceil(np.log10(densities.max())))
    for (above, below), t, density, marginal in zip(panes.T, times, densities, marginals, strict=True):
        image = above.imshow(np.maximum(density, norm.vmin).T, norm=norm, **OVER_TORUS)
        logarithm = np.log(np.maximum(density, np.finfo(density.dtype).tiny))
        if np.ptp(logarithm) >= FLAT:
            regions(above.contour, field.grid, logarithm, colors="white", linewidths=0.6, linestyles="solid")
        torus_axes(above, ("", ""))
        above.set_title(f"t = {t:.2f}")
        below.semilogy(field.grid, marginal, color=BLUE)
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
