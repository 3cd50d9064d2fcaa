"""Arrays in, pictures out: every figure of the analysis and of TensorBoard, in one style.

Lines show the normalised score sigma(t) s(x, t). In the plane an arrow is a displacement in relative coordinates,

    sigma_eff(t)^2 s(x, t),    sigma_eff^2 = sigma_d^2 + sigma(t)^2,

which for a single Gaussian leads from x exactly to the mode, so one linear scale serves every pane and every time.
Densities are shown as the smallest regions that hold 39.3, 86.5 and 98.9 % of the probability: the discs of 1, 2 and 3
widths about each mode, as long as these do not touch. A grid is n equally spaced points of [0,1), and the first index
of a density on it, (n, n), is the horizontal coordinate. Points, modes and lengths are in relative coordinates.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch
from numpy import ndarray as Array
from PIL import Image
from scipy.stats import chi

from utils.files import replacing

styled = matplotlib.rc_context({"figure.dpi": 150, "axes.titlesize": "medium", "legend.frameon": False})
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
ATOMS = ("relative coordinate of atom 1", "relative coordinate of atom 2")
FLAT = 1e-3  # nats: what varies less is not worth a line
MASSES = (0.989, 0.865, 0.393)  # the share of a plane Gaussian within 3, 2 and 1 widths
SHADES = ("#E3F1FA", "#BCDFF4", "#8CC8EC")
ARROW_SHRINKAGE = 8  # a displacement is at most about 0.5, and arrows start about 0.05 apart
ERROR_COLOURS = ListedColormap(matplotlib.colormaps["inferno"](np.linspace(0.1, 0.75, 256)))  # none vanishes on white
ERROR_NORM = LogNorm(1e-3, 1e-1)  # from a tenth of the base case's sigma_d to a fifth of the distance of its sites


def _figure(width, height, **options):
    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


@styled  # ticks are made while drawing, so drawing needs the style as well
def png(picture: Figure | Array, compress_level: int = 6, palette: Image.Image | None = None) -> bytes:
    """Return the PNG file of a figure, or of pixels (height, width, 3 or 4); with a palette, in its colours alone."""
    if isinstance(picture, Figure):
        picture.canvas.draw()
        picture = np.asarray(picture.canvas.buffer_rgba())
    image, stream = Image.fromarray(picture).convert("RGB"), io.BytesIO()
    if palette is not None:
        image = image.quantize(palette=palette, dither=Image.Dither.NONE)
    image.save(stream, "png", compress_level=compress_level, dpi=(150, 150))
    return stream.getvalue()


def save(picture: Figure | Array, path: Path) -> None:
    """Write a figure, or pixels (height, width, 3 or 4), as a PNG file."""
    with replacing(path) as temporary:
        temporary.write_bytes(png(picture))


def _torus(axes, labels=ATOMS):
    axes.set_xticks(QUARTERS, map(str, QUARTERS))
    axes.set_yticks(QUARTERS, map(str, QUARTERS))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=labels[0], ylabel=labels[1])


def _regions(draw, grid, log_density, **options):
    """Draw, by contour or contourf, the regions that hold MASSES, across the seam of the torus."""
    ordered = np.sort(log_density, axis=None)[::-1]
    mass = np.cumsum(np.exp(ordered - ordered[0]))
    levels = np.array([*np.interp(MASSES, mass / mass[-1], ordered), ordered[0] + 1], dtype=float)
    levels += FLAT * np.arange(4)  # of a law that is flat, or at one point, they would be equal
    x = np.concatenate([grid[-1:] - 1, grid, grid[:1] + 1])
    return draw(x, x, np.pad(log_density, 1, "wrap").T, levels, **options)


@styled
def samples_figure(
    samples: Array, modes: Array, is_stray: Array, sigma_0: float, title: str, labels: Sequence[str] = ATOMS
) -> Figure:
    """Return the samples, (n, 2), on the torus, and closely about the first two modes, (m, 2); is_stray is (n,)."""
    figure = _figure(9.6, 6.9, layout="constrained")
    panes = figure.subplot_mosaic([["torus", i] for i in range(min(len(modes), 2))], width_ratios=(2, 1))
    torus = panes.pop("torus")
    figure.suptitle(title)
    _torus(torus, labels)
    strays, dots = int(np.sum(is_stray)), {"marker": "o", "ls": "none", "mew": 0, "color": BLUE, "rasterized": True}
    crosses = {"marker": "x", "ls": "none", "ms": 6 if strays < 300 else 3.5, "color": VERMILLION, "rasterized": True}
    torus.plot(*samples[~is_stray].T, label=f"{len(samples) - strays:,} samples near a mode", ms=2.5, alpha=0.6, **dots)
    torus.plot(*samples[is_stray].T, label=f"{strays:,} stray ({strays / len(samples):.2%})", **crosses)
    for mode in modes:
        torus.add_patch(Circle(mode, 5 * sigma_0, fill=False, linewidth=0.8))
    torus.plot([], [], "o", ms=9, mew=0.8, color="black", mfc="none", label="5 $\\sigma_0$ about a mode")
    figure.legend(loc="outside lower center", ncols=3)
    for i, axes in panes.items():
        u = ((samples - modes[i] + 0.5) % 1 - 0.5) / sigma_0
        axes.plot(*u.T, ms=2.5, alpha=0.3, **dots)
        for radius in (1, 2, 3):
            axes.add_patch(Circle((0, 0), radius, fill=False, zorder=3))
        axes.set(xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), xticks=range(-4, 5, 2), yticks=range(-4, 5, 2), aspect="equal")
        axes.set(title="1, 2, 3 $\\sigma_0$ about ({:g}, {:g})".format(*modes[i]))
        axes.set(xlabel="displacement / $\\sigma_0$", ylabel="displacement / $\\sigma_0$")
    return figure


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
    name = f"{len(radii):,} samples; beyond {limit} $\\sigma_0$: {beyond:,} ({beyond / len(radii):.2%})"
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
    """Return the exact law at k times: densities, (k, n, n), above; marginals of one coordinate, (k, n), below."""
    figure = _figure(2.6 * len(times) + 0.8, 5.8, layout="constrained")
    panes = figure.subplots(2, len(times), squeeze=False, sharex=True, sharey="row")
    norm = LogNorm(1e-2, 10 ** np.ceil(np.log10(densities.max())))
    for (above, below), t, density, marginal in zip(panes.T, times, densities, marginals, strict=True):
        shown = np.maximum(density, norm.vmin)
        image = above.imshow(shown.T, norm=norm, extent=(0, 1, 0, 1), origin="lower", interpolation="bilinear")
        logarithm = np.log(np.maximum(density, np.finfo(density.dtype).tiny))
        if np.ptp(logarithm) >= FLAT:
            _regions(above.contour, grid, logarithm, colors="white", linewidths=0.6, linestyles="solid")
        _torus(above, ("", ""))
        above.set_title(f"t = {t:.2f}")
        below.semilogy(grid, marginal, color=BLUE)
        below.set(ylim=(norm.vmin, 2.5 * marginals.max()), box_aspect=1, xlabel=ATOMS[0])
        below.grid(color="0.9")
    panes[0, 0].set_ylabel(ATOMS[1])
    panes[1, 0].set_ylabel("marginal density")
    figure.colorbar(image, ax=panes[0], label="density", extend="min", pad=0.01)
    figure.supxlabel("White lines bound the smallest regions that hold 39.3, 86.5, 98.9 % of the probability.", size=9)
    return figure


@styled
def score_error_figure(times: Array, curves: Mapping[str, tuple[Array, Array | None]], title: str) -> Figure:
    """Return the score error against t: label -> (values, standard errors or None), each (k,), dimensionless."""
    figure = _figure(8, 4.8 + 0.12 * len(curves), layout="constrained")
    axes = figure.subplots()
    colours = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, "black")
    dashes = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 3)))  # it reads in grey as well
    for i, (label, (values, errors)) in enumerate(curves.items()):
        label = label if np.any(values > 0) else f"{label} (is 0)"
        axes.plot(times, values, color=colours[i % 7], linestyle=dashes[i % 7], label=label)
        if errors is not None:
            axes.fill_between(times, values - errors, values + errors, color=colours[i % 7], alpha=0.2, linewidth=0)
    positive = np.concatenate([values[values > 0] for values, _ in curves.values()])
    low, high = (positive.min() / 1.5, positive.max() * 1.5) if positive.size else (1e-6, 1)
    axes.set(xlim=(0, 1), ylim=(low, high), yscale="log", title=title, xlabel="diffusion time t")
    axes.set_ylabel("score error: rms of $\\sigma(t)\\,(s_\\theta - s)$")
    axes.grid(color="0.9")
    figure.legend(loc="outside lower center", ncols=1 + (len(curves) > 3))
    return figure


class _KeptCanvas:
    """A figure drawn once: what changes is drawn on a copy of this background, ten times as fast as everything."""

    def _keep(self, figure, *changing):
        self.title = figure.text(0.5, 1 - 0.25 / figure.get_figheight(), "", ha="center", va="center", size="large")
        for artist in (self.title, *changing):
            artist.set_animated(True)
        figure.canvas.draw()
        self.figure, self.background = figure, figure.canvas.copy_from_bbox(figure.bbox)

    def _redraw(self, background, artists) -> Array:
        self.figure.canvas.restore_region(background)
        for artist in artists:
            artist.draw(self.figure.canvas.renderer)
        return np.asarray(self.figure.canvas.buffer_rgba())


class ScoreLineFigure(_KeptCanvas):
    """The normalised score along a line, for several times: position (n,), times (k,), all else (k, n).

    gaussian is the score of one Gaussian about the nearest mode; in_distribution, boolean, is where data are likely.
    """

    @styled
    def __init__(self, position: Array, times: Array, analytical: Array, gaussian: Array, in_distribution: Array):
        figure = _figure(11, 5.8, dpi=100)
        panes = figure.subplots(2, -(-len(times) // 2), sharex=True).ravel()
        figure.subplots_adjust(left=0.065, right=0.985, top=0.83, bottom=0.1, wspace=0.24, hspace=0.2)
        for axes, t, exact, other, likely in zip(panes, times, analytical, gaussian, in_distribution, strict=False):
            axes.fill_between(position, 0, 1, where=likely, transform=axes.get_xaxis_transform(), color="0.88", lw=0)
            axes.plot(position, exact, color="black", linewidth=2.2)
            axes.plot(position, other, ":", color=SKY)
            margin = max(0.25 * np.ptp(exact), 1e-3)  # these limits stay; the model may leave them
            axes.set(title=f"t = {t:.2f}", xlim=(0, 1), ylim=(exact.min() - margin, exact.max() + margin))
            axes.set_xticks(QUARTERS, map(str, QUARTERS))
        self.lines = [axes.plot(position, 0 * position, "--", color=VERMILLION)[0] for axes in panes[: len(times)]]
        keys = [self.lines[0], *panes[0].lines[:2], Patch(color="0.88")]
        names = ["model", "analytical", "single Gaussian about the nearest mode", "in distribution"]
        figure.legend(keys, names, loc="upper center", bbox_to_anchor=(0.5, 0.94), ncols=4)
        figure.supxlabel("position along the line through both modes (relative coordinate of atom 1)", size="medium")
        figure.supylabel("normalised score along the line", size="medium", x=0.01)
        self._keep(figure, *self.lines)
        # In 256 colours a PNG is written five times as fast, which is most of the time that a picture takes; and the
        # same ones for all, so that a resumed run draws the same. Few pixels differ, by shades of smoothed edges.
        example = Image.fromarray(self.pixels(0.8 * analytical, "epochs")).convert("RGB")
        self.palette = example.quantize(256, Image.Quantize.MAXCOVERAGE)

    @styled
    def pixels(self, model: Array, title: str) -> Array:
        """Return the picture of a model, (k, n), as pixels (height, width, 4) of 8 bits, RGBA."""
        for line, values in zip(self.lines, model, strict=True):
            line.set_ydata(values)
        self.title.set_text(title)
        return self._redraw(self.background, [*self.lines, self.title])

    def png(self, model: Array, title: str) -> bytes:
        """Return the same picture as a PNG file."""
        return png(self.pixels(model, title), compress_level=1, palette=self.palette)


class ScoreFieldFigure(_KeptCanvas):
    """The score as arrows from points (m, 2): the model's, coloured by their error, and the analytical ones.

    With times, (k,), the model's row stands above the analytical one; without, they share a frame of 1920 x 1080.
    """

    @styled
    def __init__(self, points: Array, grid: Array, modes: Array, times: Array | None = None):
        width, height, shape, dpi = 12.8, 7.2, (1, 2), 150
        if times is not None:  # half the pixels, since writing the PNG takes longer than drawing
            width, height, shape, dpi = max(12.8, 3.1 * len(times) + 0.8), 8.2, (2, len(times)), 110
        figure = _figure(width, height, dpi=dpi)
        panes = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True).reshape(2, -1)
        figure.subplots_adjust(0.9 / width, 1.55 / height, 1 - 0.25 / width, 1 - 0.75 / height, 0.08, 0.06)
        self.grid, self.panes, none = grid, panes, np.zeros(len(points))
        for axes in panes.flat:
            _torus(axes)
            axes.label_outer()
        for axes, label in zip(panes[0], ["model"] if times is None else [f"t = {t:.2f}" for t in times], strict=True):
            axes.set_title(label)
        if times is None:
            panes[1, 0].set_title("analytical")
        else:
            panes[0, 0].set_ylabel(f"model\n{ATOMS[1]}")
            panes[1, 0].set_ylabel(f"analytical\n{ATOMS[1]}")
        style = {"scale": ARROW_SHRINKAGE, "scale_units": "width", "width": 0.0045}
        coloured = {"cmap": ERROR_COLOURS, "norm": ERROR_NORM} | style
        self.model = [axes.quiver(*points.T, none, none, none, **coloured) for axes in panes[0]]
        self.exact = [axes.quiver(*points.T, none, none, color="0.25", **style) for axes in panes[1]]
        self.marks = [axes.plot(*modes.T, "+", color=VERMILLION, markersize=9)[0] for axes in panes.flat]
        self.frames = [spine for axes in panes.flat for spine in axes.spines.values()]
        self._explain(figure, height)
        self._keep(figure, *self.model, *self.exact, *self.marks)

    def _explain(self, figure, height):
        """Say in a band at the bottom what arrows, colours and shades are."""
        bar = figure.add_axes((0.07, 0.68 / height, 0.34, 0.14 / height))
        figure.colorbar(self.model[0], bar, orientation="horizontal", extend="both")
        bar.set_xlabel("error of the model's arrow, in relative coordinates", labelpad=1)
        keys = [*(Patch(color=shade) for shade in SHADES[::-1]), self.marks[0]]
        names = ["39.3 %", "86.5 %", "98.9 % of the exact law", "mode"]
        place = {"loc": "center left", "bbox_to_anchor": (0.45, 0.76 / height)}
        figure.legend(keys, names, ncols=4, columnspacing=1.2, **place)
        key = self.exact[-1]
        key.axes.quiverkey(key, 0.895, 0.76 / height, 0.25, "length 0.25", labelpos="E", coordinates="figure")
        score = "$\\sigma_{\\mathrm{eff}}^2\\,\\times$ score"
        text = f"Arrows: {score}, for a single Gaussian the displacement to its mode."
        text += f" They are drawn at 1/{ARROW_SHRINKAGE} of their length."
        figure.text(0.98, 0.28 / height, text, ha="right", va="center", size="small")

    @styled
    def show_exact(self, arrows: Array, log_densities: Array) -> None:
        """Keep a background with the analytical arrows, (k, m, 2), and the exact laws, (k, n, n), in nats."""
        shades = []
        for (above, below), law in zip(self.panes.T, log_densities, strict=True):
            shade = _regions(above.contourf, self.grid, law, colors=SHADES)  # once: it costs as much as all arrows
            same = PathCollection(shade.get_paths(), facecolors=SHADES, edgecolors="none", antialiaseds=False)
            shades += [shade, below.add_collection(same, autolim=False)]
        for quiver, one in zip(self.exact, arrows, strict=True):
            quiver.set_UVC(*one.T)
        self._redraw(self.background, [*shades, *self.marks, *self.exact, *self.frames])
        self.exact_arrows, self.shaded = arrows, self.figure.canvas.copy_from_bbox(self.figure.bbox)
        for shade in shades:
            shade.remove()

    @styled
    def pixels(self, model_arrows: Array, title: str) -> Array:
        """Return the picture of the model's arrows, (k, m, 2), as pixels (height, width, 4) of 8 bits, RGBA."""
        for quiver, arrows, exact in zip(self.model, model_arrows, self.exact_arrows, strict=True):
            quiver.set_UVC(*arrows.T, np.maximum(np.linalg.norm(arrows - exact, axis=1), ERROR_NORM.vmin))
        self.title.set_text(title)
        return self._redraw(self.shaded, [*self.model, self.title]).copy()

    def png(self, model_arrows: Array, title: str) -> bytes:
        """Return the same picture as a PNG file, beside the analytical arrows shown last."""
        return png(self.pixels(model_arrows, title), compress_level=1)

    def frame(self, title: str, model_arrows: Array, exact_arrows: Array, log_density: Array) -> Array:
        """Return a frame of the video, (1080, 1920, 4) of 8 bits: arrows (m, 2), log_density (n, n) in nats."""
        self.show_exact(exact_arrows[None], log_density[None])
        return self.pixels(model_arrows[None], title)
