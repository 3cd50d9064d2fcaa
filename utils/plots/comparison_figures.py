"""Figures of several runs side by side. A name has the same colour and dashes in every figure of a comparison."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray as Array

from utils.plots.style import BLUE, VERMILLION, line_styles, new_figure, styled, torus_axes
from utils.plots.views import Plane

ROUNDING = 1e-9  # what is always smaller is 0 up to the rounding of float64, and would only squeeze the axis
Points = Mapping[str, Array]
Panes = Mapping[str, Mapping[str, tuple[Array, Array, Array | None]]]


@styled
def comparison_figure(panes: Panes, xlabel: str, ylabel: str, title: str, signed: bool = False) -> Figure:
    """Return panes side by side, title -> name -> (abscissa, values, standard errors or None), on a logarithmic axis.
    `signed` is for what may be negative by chance: the axis is linear as far as most of the errors reach."""
    styles = line_styles(dict.fromkeys(name for curves in panes.values() for name in curves))
    lines, always_zero = dict[str, object](), dict.fromkeys(styles, True)  # a logarithmic axis cannot show 0
    width = {1: 8.0, 2: 11.0}.get(len(panes), 4.2 * len(panes) + 0.6)
    figure = new_figure(width, 4.6 + 0.24 * (-(-len(styles) // 2)), layout="constrained")
    figure.suptitle(title)
    for axes, (heading, curves) in zip(figure.subplots(1, len(panes), squeeze=False)[0], panes.items(), strict=True):
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
