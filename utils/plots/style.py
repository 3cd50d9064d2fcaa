"""What all pictures share: one style, colours, and how they are written.

Densities are shown as the smallest regions that hold 39.3, 86.5 and 98.9 % of the probability: the discs of 1, 2 and 3
widths about each mode, as long as these do not touch. A grid is n equally spaced points of [0,1), and the first index
of a density on it, (n, n), is the horizontal coordinate. Points, modes and lengths are in relative coordinates.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy import ndarray as Array
from PIL import Image

from utils.files import atomic_write

# A user's own matplotlibrc, or a notebook's backend, plays no part.
DEFAULTS = {name: value for name, value in dict.items(matplotlib.rcParamsDefault) if "backend" not in name}
STYLE = DEFAULTS | {"figure.dpi": 150, "axes.titlesize": "medium", "legend.frameon": False}
styled = matplotlib.rc_context(STYLE)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, VERMILLION, SKY = COLOURS[0], COLOURS[1], COLOURS[5]
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
FLAT = 1e-3  # nats: what varies less is not worth a line
MASSES = (0.989, 0.865, 0.393)  # the share of a plane Gaussian within 3, 2 and 1 widths
SHADES = ("#E3F1FA", "#BCDFF4", "#8CC8EC")
DASHES = ("-", (0, (6, 2)), (0, (6, 1.5, 1, 1.5)), (0, (1.5, 1.5)), (0, (6, 1, 1, 1, 1, 1)), (0, (9, 3)))


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """Return an empty figure, in inches, that needs no display."""
    return FigureCanvasAgg(Figure(figsize=(width, height), **options)).figure


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
    with atomic_write(path) as temporary:
        temporary.write_bytes(png(picture))


def torus_axes(axes: Axes, labels: Sequence[str]) -> None:
    """Make axes show the torus, with a label for each coordinate at the outer ones."""
    axes.set(xticks=QUARTERS, xticklabels=QUARTERS, yticks=QUARTERS, yticklabels=QUARTERS)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=labels[0], ylabel=labels[1])
    axes.label_outer()


def regions(draw, grid, log_density, **options):
    """Draw, by contour or contourf, the regions that hold MASSES, across the seam of the torus."""
    ordered = np.sort(log_density, axis=None)[::-1]
    mass = np.cumsum(np.exp(ordered - ordered[0]))
    levels = np.array([*np.interp(MASSES, mass / mass[-1], ordered), ordered[0] + 1], dtype=float)
    levels += FLAT * np.arange(4)  # of a law that is flat, or at one point, they would be equal
    x = np.concatenate([grid[-1:] - 1, grid, grid[:1] + 1])
    return draw(x, x, np.pad(log_density, 1, "wrap").T, levels, **options)


def line_styles(names: Iterable[str]) -> dict[str, dict]:
    """Return colour and dashes for every name; after the sixth the colours go on with other dashes. Exact is black."""
    others = [name for name in names if name.split(" ")[0] != "analytical"]
    styles = {n: {"color": COLOURS[i % 6], "linestyle": DASHES[(i + i // 6) % 6]} for i, n in enumerate(others)}
    return {name: styles.get(name, {"color": "black", "linestyle": "-"}) for name in names}
