"""The figure of a sweep: numbers against the strength of a regularizer."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray as Array

from utils.plots.style import line_styles, new_figure, styled


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
