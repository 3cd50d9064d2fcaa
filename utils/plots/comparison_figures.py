"""Figures that set several runs side by side.

Curves go by the name of a run; a name has the same colour and dashes in every figure, the exact score is black. What a
logarithmic axis cannot show (the exact score's error of 0, up to rounding) is said in the legend.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray as Array

from utils.plots.style import BLUE, VERMILLION, line_styles, new_figure, styled, torus_axes
from utils.plots.views import Plane

ROUNDING = 1e-9  # what is always smaller is 0 up to the rounding of float64, and would only squeeze the axis

Band = tuple[Array, Array, Array | None]  # abscissa, values, standard errors


@styled
def comparison_figure(
    panes: Mapping[str, Mapping[str, Band]], xlabel: str, ylabel: str, title: str, signed: bool = False
) -> Figure:
    """Return panes side by side, each title -> name -> band, on a logarithmic axis.

    `signed` is for what may be negative by chance: the axis is linear as far as most of the errors reach.
    """
    names = list(dict.fromkeys(name for curves in panes.values() for name in curves))
    styles = line_styles(names)
    keys: dict[str, list] = {}
    figure = new_figure(
        (5.2 if len(panes) < 3 else 4.2) * len(panes) + 0.6, 4.6 + 0.24 * (-(-len(names) // 2)), layout="constrained"
    )
    figure.suptitle(title)
    for axes, (heading, curves) in zip(figure.subplots(1, len(panes), squeeze=False)[0], panes.items(), strict=True):
        for name, (x, values, errors) in curves.items():
            shown = values if signed else np.where(values > ROUNDING, values, np.nan)
            (line,) = axes.plot(x, shown, label=name, linewidth=1.5 if errors is not None else 1, **styles[name])
            keys.setdefault(name, [line, True])[1] &= bool(np.all(np.abs(values) < ROUNDING))
            if errors is not None:
                low, high = shown - errors, shown + errors
                low = low if signed else np.maximum(low, 0.2 * shown)  # a band to 0 would fill the axis
                axes.fill_between(x, low, high, color=styles[name]["color"], alpha=0.2, linewidth=0)
        axes.set(title=heading, xlabel=xlabel, xlim=_limits(curves))
        if signed:
            errors = np.concatenate([errors for _, _, errors in curves.values()])
            if np.any(errors > ROUNDING):  # not where all is 0, as for the exact score alone
                linear = np.quantile(errors[errors > ROUNDING], 0.9, method="higher")
                axes.set_yscale("symlog", linthresh=linear)
            axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        elif any(np.any(values > ROUNDING) for _, values, _ in curves.values()):
            axes.set_yscale("log")  # not where all is 0, as for the exact score alone
        axes.grid(color="0.9")
    figure.axes[0].set_ylabel(ylabel)
    labels = [f"{name} (0 up to rounding)" if always_zero else name for name, (_, always_zero) in keys.items()]
    figure.legend([line for line, _ in keys.values()], labels, loc="outside lower center", ncols=2, handlelength=3.5)
    return figure


def _limits(curves):
    ends = [(x[0], x[-1]) for x, _, _ in curves.values() if len(x)]
    if not ends:
        return 0, 1
    low, high = min(first for first, _ in ends), max(last for _, last in ends)
    return (0, 1) if low >= 0 and high <= 1 else (low, high)


@styled
def samples_comparison_figure(
    samples: Mapping[str, Array], is_stray: Mapping[str, Array], plane: Plane, title: str
) -> Figure:
    """Return the samples of all runs, name -> (n, 2), each on its torus, with strays, name -> (n,), crossed."""
    columns = min(3, len(samples))
    rows = -(-len(samples) // columns)
    figure = new_figure(3.9 * columns, 4.05 * rows + 0.9, layout="constrained")
    figure.suptitle(title)
    panes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    size = "small" if max(map(len, samples)) < 42 else "x-small"
    for axes, (name, x) in zip(panes, samples.items(), strict=False):
        stray, style = is_stray[name], {"ls": "none", "rasterized": True}
        torus_axes(axes, plane.labels)
        axes.label_outer()
        axes.plot(*x[~stray].T, "o", ms=1.8, mew=0, alpha=0.5, color=BLUE, label="near a mode", **style)
        axes.plot(*x[stray].T, "x", ms=3.5, mew=0.8, color=VERMILLION, label="stray", **style)
        axes.plot(*plane.modes.T, "+", ms=7, mew=1, color="white", zorder=3)
        axes.set_title(f"{name}\n{stray.mean():.2%} stray", size=size)
    for axes in panes[len(samples) :]:
        axes.remove()
    (key, cross), texts = panes[0].get_legend_handles_labels()
    figure.legend([key, cross], texts, loc="outside lower center", ncols=2, markerscale=2.5)
    return figure
