"""Arrays in, pictures out: every figure of the analysis and of TensorBoard, in one style.

Lines show the normalised score sigma(t) s(x, t). In the plane an arrow is a displacement in relative coordinates,

    sigma_eff(t)^2 s(x, t),    sigma_eff^2 = sigma_d^2 + sigma(t)^2,

which for a single Gaussian leads from x exactly to the mode, so one linear scale serves every panel and every time.
Densities are shown as the smallest regions that hold 39.3, 86.5 and 98.9 % of the probability: the discs of 1, 2 and 3
widths about each mode, as long as these do not touch. A grid is n equally spaced points of [0,1), and the first index
of a density on it, (n, n), is the coordinate on the horizontal axis.
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy import ndarray as Array
from PIL import Image
from scipy.stats import chi

ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#444444"
STYLE = {"figure.dpi": 150, "font.size": 10, "axes.titlesize": "medium", "legend.frameon": False, "grid.color": "0.9"}
styled = matplotlib.rc_context(STYLE)  # ticks are made while drawing, so drawing needs the style as well

QUARTERS = (0, 0.25, 0.5, 0.75, 1)
ATOMS = ("relative coordinate of atom 1", "relative coordinate of atom 2")
MASSES = (0.989, 0.865, 0.393)  # the share of a plane Gaussian within 3, 2 and 1 widths
SHADES = ("#E3F1FA", "#BCDFF4", "#8CC8EC")
ARROW_SHRINKAGE = 8  # a displacement is at most about 0.5, and arrows start about 0.05 apart
ERROR_COLOURS = ListedColormap(matplotlib.colormaps["inferno"](np.linspace(0.1, 0.75, 256)))  # none vanishes on white
ERROR_NORM = LogNorm(1e-3, 1e-1)  # from a tenth of the base case's sigma_d to a fifth of the distance of its sites
MODE = {"color": VERMILLION, "marker": "+", "linestyle": "none", "label": "mode"}


def _figure(width, height, **options):
    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


@styled
def png(picture: Figure | Array, compress_level: int = 6) -> bytes:
    """Return the PNG file of a figure, or of pixels (height, width, 3 or 4)."""
    if isinstance(picture, Figure):
        picture.canvas.draw()
        picture = np.asarray(picture.canvas.buffer_rgba())
    stream = io.BytesIO()
    Image.fromarray(picture).convert("RGB").save(stream, "png", compress_level=compress_level, dpi=(150, 150))
    return stream.getvalue()


def save(picture: Figure | Array, path: Path) -> None:
    """Write a figure, or pixels (height, width, 3 or 4), as PNG: beside its final name first, then renamed."""
    unfinished = Path(f"{path}.unfinished")
    unfinished.write_bytes(png(picture))
    os.replace(unfinished, path)


def _torus(axes, labels=ATOMS):
    axes.set_xticks(QUARTERS, map(str, QUARTERS))
    axes.set_yticks(QUARTERS, map(str, QUARTERS))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=labels[0], ylabel=labels[1])


def _density(draw, grid, log_density, **options):
    """Draw (contour or contourf) the regions that hold MASSES, across the seam of the torus."""
    ordered = np.sort(log_density, axis=None)[::-1]
    mass = np.cumsum(np.exp(ordered - ordered[0]))
    levels = [*np.interp(MASSES, mass / mass[-1], ordered), ordered[0] + 1]
    x = np.concatenate([grid[-1:] - 1, grid, grid[:1] + 1])
    return draw(x, x, np.pad(log_density, 1, "wrap").T, levels, **options)


@styled
def samples_figure(
    samples: Array, modes: Array, is_stray: Array, sigma_0: float, title: str, labels: Sequence[str] = ATOMS
) -> Figure:
    """Return the samples, (n, 2), on the torus, and closely about the first two modes, (m, 2).

    is_stray, (n,), is boolean. Samples, modes and the stationary width sigma_0 are in relative coordinates.
    """
    figure = _figure(9.6, 6.9, layout="constrained")
    zooms = [f"zoom {i}" for i in range(min(len(modes), 2))]
    panes = figure.subplot_mosaic([["torus", name] for name in zooms], width_ratios=(2, 1))
    figure.suptitle(title)
    _torus(panes["torus"], labels)
    strays = int(np.sum(is_stray))
    dots = {"s": 5, "color": BLUE, "alpha": 0.3, "linewidth": 0, "rasterized": True}
    crosses = {"s": np.clip(6000 / max(strays, 1), 6, 30), "color": VERMILLION, "marker": "x", "linewidth": 0.9}
    panes["torus"].scatter(*samples[~is_stray].T, **dots)
    panes["torus"].scatter(*samples[is_stray].T, **crosses, rasterized=True)
    panes["torus"].plot(*modes.T, "o", color="black", fillstyle="none", markersize=22, markeredgewidth=0.8)
    for name, mode in zip(zooms, modes, strict=False):
        _zoom(panes[name], ((samples - mode + 0.5) % 1 - 0.5) / sigma_0, mode, dots)
    names = [f"{len(samples) - strays:,} samples", f"{strays:,} stray ({strays / len(samples):.2%})", "mode"]
    keys = [
        Line2D([], [], marker="o", color=BLUE, linestyle="none", markersize=4),
        Line2D([], [], marker="x", color=VERMILLION, linestyle="none", markersize=5),
        Line2D([], [], marker="o", color="black", fillstyle="none", linestyle="none", markersize=11, markeredgewidth=0.8),
    ]
    figure.legend(keys, names, loc="outside lower center", ncols=3)
    return figure


def _zoom(axes, u, mode, dots):
    """Show the displacements u, (n, 2), from a mode in units of sigma_0, with circles at 1, 2 and 3."""
    axes.scatter(*u[np.abs(u).max(1) < 4.5].T, **dots)
    angle = np.linspace(0, 2 * np.pi, 181)
    for radius in (1, 2, 3):
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color="black", linewidth=0.9)
    ticks = range(-4, 5, 2)
    axes.set(xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), xticks=ticks, yticks=ticks, aspect="equal")
    axes.set(title=f"about ({mode[0]:g}, {mode[1]:g}); circles: 1, 2, 3 $\\sigma_0$")
    axes.set(xlabel="displacement / $\\sigma_0$", ylabel="displacement / $\\sigma_0$")


@styled
def radial_distribution_figure(
    radii: Array, sigma_0: float, dimension: int, title: str, samplers_law_width: float | None = None
) -> Figure:
    """Return the density of r / sigma_0, for the distances r, (n,), of the samples from their nearest modes.

    samplers_law_width is the width, in units of sigma_0, that this sampler gives a mode when the score is exact.
    """
    figure = _figure(7, 4.8, layout="constrained")
    axes = figure.subplots()
    limit = max(5, round(dimension**0.5 + 4))  # the chi law is centred at sqrt(dimension), 0.7 wide at most
    counts, edges = np.histogram(radii / sigma_0, bins=10 * limit, range=(0, limit))
    beyond, r = len(radii) - counts.sum(), np.linspace(0, limit, 501)
    name = f"{len(radii):,} samples; {beyond:,} of them ({beyond / len(radii):.2%}) lie beyond {limit} $\\sigma_0$"
    axes.stairs(counts / len(radii) / np.diff(edges), edges, fill=True, color=SHADES[2], label=name)
    axes.plot(r, chi.pdf(r, dimension), color="black", label=f"exact law (chi, {dimension} degrees of freedom)")
    if samplers_law_width is not None:
        oracle = f"exact score with this sampler (oracle recursion): {samplers_law_width:.3f} times as wide"
        axes.plot(r, chi.pdf(r, dimension, scale=samplers_law_width), "--", color=VERMILLION, label=oracle)
    axes.set(xlim=(0, limit), ylim=(0, None), title=title, ylabel="probability density")
    axes.set(xlabel="distance from the nearest mode, in units of the stationary width $\\sigma_0$")
    figure.legend(loc="outside lower center")
    return figure


@styled
def marginal_distribution_figure(times: Array, grid: Array, densities: Array, marginals: Array) -> Figure:
    """Return the exact law at k times: densities, (k, n, n), above; marginals of coordinate 1, (k, n), below."""
    figure = _figure(2.6 * len(times) + 0.8, 5.6, layout="constrained")
    panes = figure.subplots(2, len(times), squeeze=False, sharex=True, sharey="row")
    norm = LogNorm(1e-2, 1e3)
    for column, t, density, marginal in zip(panes.T, times, densities, marginals, strict=True):
        logarithm = np.log(np.maximum(density, np.finfo(float).tiny))
        options = {"extent": (0, 1, 0, 1), "origin": "lower", "interpolation": "bilinear"}
        image = column[0].imshow(np.maximum(density.T, norm.vmin), norm=norm, cmap="viridis", **options)
        _density(column[0].contour, grid, logarithm, colors="white", linewidths=0.5)
        _torus(column[0], ("", ""))
        column[0].set_title(f"t = {t:.2f}")
        column[1].semilogy(grid, marginal, color=BLUE)
        column[1].set(ylim=(norm.vmin, 50), box_aspect=1, xlabel=ATOMS[0])
        column[1].grid(True)
    panes[0, 0].set_ylabel(ATOMS[1])
    panes[1, 0].set_ylabel("marginal density")
    figure.colorbar(image, ax=panes[0], label="density", extend="min", pad=0.01)
    return figure


@styled
def score_error_figure(times: Array, curves: Mapping[str, tuple[Array, Array | None]], title: str) -> Figure:
    """Return the score error against t: label -> (values, standard errors or None), each (k,), dimensionless."""
    figure = _figure(7.5, 4.8 + 0.12 * len(curves), layout="constrained")
    axes = figure.subplots()
    colours = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, "black")
    dashes = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 3)))
    for i, (label, (values, errors)) in enumerate(curves.items()):
        label = label if np.any(values > 0) else f"{label} (exactly 0)"
        colour = colours[i % 7]
        axes.plot(times, values, color=colour, linestyle=dashes[i % 7], label=label)
        if errors is not None:
            axes.fill_between(times, values - errors, values + errors, color=colour, alpha=0.2, linewidth=0)
    positive = np.concatenate([values[values > 0] for values, _ in curves.values()])
    low, high = (positive.min() / 2, positive.max() * 2) if positive.size else (1e-6, 1)
    axes.set(yscale="log", xlim=(0, 1), ylim=(low, high), title=title, xlabel="diffusion time t")
    axes.set_ylabel("score error: rms of $\\sigma(t)\\,(s_\\theta - s)$")
    axes.grid(True)
    figure.legend(loc="outside lower center", ncols=1 + (len(curves) > 3))
    return figure


class _KeptCanvas:
    """A figure drawn once: what changes is drawn on a copy of the kept background, ten times as fast as everything."""

    def _keep(self, figure, *changing):
        for artist in changing:
            artist.set_animated(True)
        figure.canvas.draw()
        self.figure, self.background = figure, figure.canvas.copy_from_bbox(figure.bbox)

    def _redraw(self, artists) -> Array:
        self.figure.canvas.restore_region(self.background)
        for artist in artists:
            artist.draw(self.figure.canvas.renderer)
        return np.asarray(self.figure.canvas.buffer_rgba())


class ScoreLineFigure(_KeptCanvas):
    """The normalised score along a line at eight times: position (n,); the score's projections on the line (8, n).

    gaussian is the score of one Gaussian about the nearest mode; in_distribution, (8, n), marks where data are likely.
    """

    @styled
    def __init__(self, position: Array, times: Array, analytical: Array, gaussian: Array, in_distribution: Array):
        figure = _figure(11, 5.6)
        panes = figure.subplots(2, 4, sharex=True).flat
        figure.subplots_adjust(left=0.065, right=0.985, top=0.82, bottom=0.1, wspace=0.2, hspace=0.22)
        for axes, t, exact, approximation, band in zip(
            panes, times, analytical, gaussian, in_distribution, strict=True
        ):
            axes.fill_between(position, 0, 1, where=band, transform=axes.get_xaxis_transform(), color="0.88", lw=0)
            axes.plot(position, approximation, ":", color=BLUE)
            axes.plot(position, exact, color="black", linewidth=2)
            margin = 0.25 * np.ptp(exact)
            axes.set(title=f"t = {t:.2f}", xlim=(0, 1), ylim=(exact.min() - margin, exact.max() + margin))
            axes.set_xticks(QUARTERS, map(str, QUARTERS))
        self.lines = [axes.plot(position, 0 * position, "--", color=VERMILLION)[0] for axes in panes]
