"""The score in pictures that are drawn again and again: along a line, and as a field of arrows."""

import matplotlib
import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.patches import Patch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from utils.plots.style import QUARTERS, SHADES, SKY, VERMILLION, new_figure, png, regions, styled, torus_axes
from utils.plots.views import Field, Line
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

ARROW_SHRINKAGE = 8  # a displacement is at most about 0.5, and arrows start about 0.05 apart
ERROR_COLOURS = ListedColormap(matplotlib.colormaps["inferno"](np.linspace(0.1, 0.75, 256)))  # none vanishes on white
ERROR_NORM = LogNorm(1e-3, 1e-1)  # from a tenth of the base case's sigma_d to a fifth of the distance of its sites


class _KeptCanvas:
    """A figure drawn once: what changes is drawn on a copy of this background, ten times as fast as everything.
    `pixels` returns that of a network's score, (height, width, 4) of 8 bits, RGBA; `png` the same as a PNG file."""

    def _keep(self, figure, *changing):
        self.palette = None
        self.title = figure.text(0.5, 1 - 0.25 / figure.get_figheight(), "", ha="center", va="center", size="large")
        for artist in (self.title, *changing):
            artist.set_animated(True)
        figure.canvas.draw()
        self.figure, self.background = figure, figure.canvas.copy_from_bbox(figure.bbox)

    def _redraw(self, background, artists, title="") -> Array:
        self.figure.canvas.restore_region(background)
        self.title.set_text(title)
        for artist in (*artists, self.title):
            artist.draw(self.figure.canvas.renderer)
        return np.asarray(self.figure.canvas.buffer_rgba()).copy()

    def png(self, network: ScoreNetwork, title: str) -> bytes:
        return png(self.pixels(network, title), compress_level=1, palette=self.palette)


class ScoreLineFigure(_KeptCanvas):
    """The normalised score along a line through two modes, at several times."""

    @styled
    def __init__(self, line: Line, truth: AnalyticalScoreNetwork, times: Tensor):
        self.line, self.times, position = line, times, line.position.numpy()
        exact = line.along(truth, times).numpy()
        gaussian, likely = (array.numpy() for array in line.gaussian(truth.schedule.sigma(times)))
        figure = new_figure(11, 5.8, dpi=100)
        panes = figure.subplots(2, -(-len(times) // 2), sharex=True).ravel()
        figure.subplots_adjust(left=0.065, right=0.985, top=0.83, bottom=0.1, wspace=0.24, hspace=0.2)
        for axes, t, one, other, where in zip(panes, times, exact, gaussian, likely, strict=False):
            axes.fill_between(position, 0, 1, where=where, transform=axes.get_xaxis_transform(), color="0.88", lw=0)
            axes.plot(position, one, color="black", linewidth=2.2)
            axes.plot(position, other, ":", color=SKY)
            margin = max(0.25 * np.ptp(one), 1e-3)  # these limits stay; the learned score may leave them
            axes.set(title=f"t = {t:.2f}", xlim=(0, 1), ylim=(one.min() - margin, one.max() + margin))
            axes.set_xticks(QUARTERS, map(str, QUARTERS))
        pairs = zip(panes, 0.8 * exact, strict=False)  # an example, until a network is drawn
        self.lines = [axes.plot(position, values, "--", color=VERMILLION)[0] for axes, values in pairs]
        keys = [self.lines[0], *panes[0].lines[:2], Patch(color="0.88")]
        names = ["learned", "exact", "single Gaussian about the nearest mode", "in distribution"]
        figure.legend(keys, names, loc="upper center", bbox_to_anchor=(0.5, 0.94), ncols=4)
        figure.supxlabel(f"position along the line {line.label} (relative coordinate of atom 1)", size="medium")
        figure.supylabel("normalised score along the line", size="medium", x=0.01)
        self._keep(figure, *self.lines)
        # In 256 colours, the same for all runs, a PNG is written five times as fast; few pixels differ, at edges.
        example = Image.fromarray(self._redraw(self.background, self.lines, "epochs")).convert("RGB")
        self.palette = example.quantize(256, Image.Quantize.MAXCOVERAGE)

    @styled
    def pixels(self, network: ScoreNetwork, title: str) -> Array:
        for line, values in zip(self.lines, self.line.along(network, self.times).numpy(), strict=True):
            line.set_ydata(values)
        return self._redraw(self.background, self.lines, title)


class ScoreFieldFigure(_KeptCanvas):
    """The score as arrows from a field's m points: the learned one, coloured by error, and what `show_exact` kept.
    With times, the learned row stands above the exact one; without, they share a frame of 1920 x 1080."""

    @styled
    def __init__(self, field: Field, times: Tensor | None = None):
        width, height, shape, dpi = 12.8, 7.2, (1, 2), 150
        if times is not None:  # half the pixels, since writing the PNG takes longer than drawing
            width, height, shape, dpi = max(12.8, 3.1 * len(times) + 0.8), 8.2, (2, len(times)), 110
        figure = new_figure(width, height, dpi=dpi)
        panes = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True).reshape(2, -1)
        figure.subplots_adjust(0.9 / width, 1.55 / height, 1 - 0.25 / width, 1 - 0.75 / height, 0.08, 0.06)
        self.panes, self.field, plane, none = panes, field, field.plane, np.zeros(len(field.points))
        for axes in panes.flat:
            torus_axes(axes, plane.labels)
        rows = ("learned", "exact")
        for axes, label in zip(panes.flat, rows if times is None else [f"t = {t:.2f}" for t in times], strict=False):
            axes.set_title(label)
        for axes, label in zip(panes[:, 0], rows if times is not None else (), strict=False):
            axes.set_ylabel(f"{label}\n{plane.labels[1]}")
        style = {"scale": ARROW_SHRINKAGE, "scale_units": "width", "width": 0.0045}
        coloured = {"cmap": ERROR_COLOURS, "norm": ERROR_NORM} | style
        self.model = [axes.quiver(*field.points.T, none, none, none, **coloured) for axes in panes[0]]
        self.exact = [axes.quiver(*field.points.T, none, none, color="0.25", **style) for axes in panes[1]]
        self.marks = [axes.plot(*plane.modes.T, "+", color=VERMILLION, markersize=9)[0] for axes in panes.flat]
        self.frames = [spine for axes in panes.flat for spine in axes.spines.values()]
        self._explain(figure, height, plane)
        self._keep(figure, *self.model, *self.exact, *self.marks)

    def _explain(self, figure, height, plane):
        """Say in a band at the bottom what arrows, colours and shades are."""
        bar = figure.add_axes((0.07, 0.68 / height, 0.34, 0.14 / height))
        figure.colorbar(self.model[0], bar, orientation="horizontal", extend="both")
        bar.set_xlabel("error of the learned arrow, in relative coordinates", labelpad=1)
        keys = [*(Patch(color=shade) for shade in SHADES[::-1]), self.marks[0]]
        names = ["39.3 %", "86.5 %", f"98.9 % of the exact {'slice' if plane.is_slice else 'distribution'}", "mode"]
        figure.legend(keys, names, ncols=4, columnspacing=1.2, loc="center left", bbox_to_anchor=(0.425, 0.76 / height))
        key = self.exact[-1]
        key.axes.quiverkey(key, 0.91, 0.76 / height, 0.25, "length 0.25", labelpos="E", coordinates="figure")
        where = f"This is a {plane.note}.\n" if plane.is_slice else ""
        score = "$\\sigma_{\\mathrm{eff}}^2\\,\\times$ score, for a single Gaussian the displacement to its mode"
        text = f"{where}Arrows: {score}. They are drawn at 1/{ARROW_SHRINKAGE} of their length."
        figure.text(0.98, 0.28 / height, text, ha="right", va="center", size="small")

    @styled
    def show_exact(self, truth: AnalyticalScoreNetwork, times: Tensor) -> None:
        """Keep a background with the exact arrows and distribution at these times, one for each column of panes."""
        self.times, self.exact_arrows, shades = times, [self.field.arrows(truth, t) for t in times], []
        for (above, below), t in zip(self.panes.T, times, strict=True):
            law = self.field.log_density(t)
            shade = regions(above.contourf, self.field.grid, law, colors=SHADES)  # once: it costs as much as all arrows
            same = PathCollection(shade.get_paths(), facecolors=SHADES, edgecolors="none", antialiaseds=False)
            shades += [shade, below.add_collection(same, autolim=False)]
        for quiver, one in zip(self.exact, self.exact_arrows, strict=True):
            quiver.set_UVC(*one.T)
        self._redraw(self.background, [*shades, *self.marks, *self.exact, *self.frames])
        self.shaded = self.figure.canvas.copy_from_bbox(self.figure.bbox)
        for shade in shades:
            shade.remove()

    @styled
    def pixels(self, network: ScoreNetwork, title: str) -> Array:
        for quiver, t, exact in zip(self.model, self.times, self.exact_arrows, strict=True):
            arrows = self.field.arrows(network, t)
            quiver.set_UVC(*arrows.T, np.maximum(np.linalg.norm(arrows - exact, axis=1), ERROR_NORM.vmin))
        return self._redraw(self.shaded, self.model, title)
