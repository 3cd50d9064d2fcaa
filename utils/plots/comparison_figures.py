"""Figures that set experiments side by side, in the style of `figures.py`: arrays in, pictures out.

Curves go by experiment name; a name has the same colour and dashes in every figure, the exact score is black. What a
logarithmic axis cannot show (the exact score's error of 0, up to rounding) is said in the legend.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray as Array

from utils.plots.experiment_figures import ATOMS, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, _figure, _torus, styled

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", (0, (6, 2)), (0, (6, 1.5, 1, 1.5)), (0, (1.5, 1.5)), (0, (6, 1, 1, 1, 1, 1)), (0, (9, 3)))
EXACT = "analytical"
MAGNITUDES = LogNorm(0.01, 30)  # of the normalised score: the base case's largest is about 18

ROUNDING = 1e-9  # what is always smaller is 0 up to the rounding of float64, and would only squeeze the axis

Band = tuple[Array, Array, Array | None]  # abscissa, values, standard errors


def _styles(names: Iterable[str]) -> dict[str, dict]:
    """Return colour and dashes for every name; after the sixth the colours go on with other dashes."""
    others = [name for name in names if name != EXACT]
    styles = {n: {"color": COLOURS[i % 6], "linestyle": DASHES[(i + i // 6) % 6]} for i, n in enumerate(others)}
    return {EXACT: {"color": "black", "linestyle": "-"}} | styles


@styled
def comparison_figure(
    panes: Mapping[str, Mapping[str, Band]], xlabel: str, ylabel: str, title: str, signed: bool = False
) -> Figure:
    """Return panes side by side, each title -> name -> band, on a logarithmic axis.

    `signed` is for what may be negative by chance: the axis is linear as far as most of the errors reach.
    """
    names = list(dict.fromkeys(name for curves in panes.values() for name in curves))
    styles, keys = _styles(names), {}
    figure = _figure(
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
    samples: Mapping[str, Array], modes: Array, is_stray: Mapping[str, Array], title: str
) -> Figure:
    """Return the samples of all experiments, name -> (n, 2), each on its torus, with strays, name -> (n,), crossed."""
    columns = min(3, len(samples))
    rows = -(-len(samples) // columns)
    figure = _figure(3.9 * columns, 4.05 * rows + 0.9, layout="constrained")
    figure.suptitle(title)
    panes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    size = "small" if max(map(len, samples)) < 42 else "x-small"
    for axes, (name, x) in zip(panes, samples.items(), strict=False):
        stray, style = is_stray[name], {"ls": "none", "rasterized": True}
        _torus(axes)
        axes.label_outer()
        axes.plot(*x[~stray].T, "o", ms=1.8, mew=0, alpha=0.5, color=BLUE, label="near a mode", **style)
        axes.plot(*x[stray].T, "x", ms=3.5, mew=0.8, color=VERMILLION, label="stray", **style)
        axes.plot(*modes.T, "+", ms=7, mew=1, color="white", zorder=3)
        axes.set_title(f"{name}\n{stray.mean():.2%} stray", size=size)
    for axes in panes[len(samples) :]:
        axes.remove()
    (key, cross), texts = panes[0].get_legend_handles_labels()
    figure.legend([key, cross], texts, loc="outside lower center", ncols=2, markerscale=2.5)
    return figure


@styled
def maps_figure(times: Sequence[float], model: Array, exact: Array, error: Array, title: str) -> Figure:
    """Return maps over the torus, each (time, n, n): the size of the model's normalised score, the exact, the error.

    The first index of a map is the horizontal coordinate. One logarithmic scale serves all.
    """
    width, height = 2.75 * len(times) + 1.9, 9.5
    figure = _figure(width, height)
    panes = figure.subplots(3, len(times), squeeze=False, sharex=True, sharey=True)
    figure.subplots_adjust(1.05 / width, 0.6 / height, 1 - 1.25 / width, 1 - 0.85 / height, 0.07, 0.1)
    figure.suptitle(title, y=1 - 0.25 / height)
    names = ("model $|\\sigma s_\\theta|$", "exact $|\\sigma s|$", "error $|\\sigma (s_\\theta - s)|$")
    for row, name, maps in zip(panes, names, (model, exact, error), strict=True):
        for axes, values in zip(row, maps, strict=True):
            shown = np.maximum(values, MAGNITUDES.vmin / 10).T
            place = {"extent": (0, 1, 0, 1), "origin": "lower", "interpolation": "bilinear"}
            image = axes.imshow(shown, norm=MAGNITUDES, cmap="cividis", **place)
            _torus(axes)
            axes.label_outer()
        row[0].set_ylabel(f"{name}\n{ATOMS[1]}")
    for axes, t in zip(panes[0], times, strict=True):
        axes.set_title(f"t = {t:.2f}")
    bar = figure.add_axes((1 - 1.05 / width, 0.6 / height, 0.2 / width, 1 - 1.45 / height))
    figure.colorbar(image, bar, extend="both", label="size of the normalised score (dimensionless)")
    return figure


@styled
def weights_figure(
    panes: Mapping[str, tuple[Mapping[str, Sequence[Array]], Sequence[float] | None]], title: str
) -> Figure:
    """Return metrics against the weight of a regularizer: heading -> (name -> weights, means, low, high; the baseline's
    mean, low and high or None). Bands and the grey stripe of the baseline are intervals over seeds."""
    names = list(dict.fromkeys(name for curves, _ in panes.values() for name in curves))
    styles, keys = _styles(["no_regularizer", *names]), {}  # it has no curve here, but its colour elsewhere
    columns = 2
    rows = -(-len(panes) // columns)
    figure = _figure(11.2, 3.7 * rows + 0.5 + 0.24 * (-(-len(names) // 2)), layout="constrained")
    figure.suptitle(title, size="medium")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
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
def forest_figure(
    sections: Mapping[str, Mapping[str, tuple[bool, Sequence[Sequence[float]]]]], headings: Sequence[str], title: str
) -> Figure:
    """Return differences with their intervals, a line each: section -> label -> (whether it is an oracle, a value, low
    and high in percent for each heading). Filled dots are those whose interval leaves out zero."""
    lines = sum(map(len, sections.values())) + 1.6 * len(sections)
    figure = _figure(13.5, 0.24 * lines + 1.5, layout="constrained")
    figure.suptitle(title, size="medium")
    figure.get_layout_engine().set(wspace=0.04)
    panes, ticks, y = figure.subplots(1, len(headings), sharey=True), {}, 0.0
    for section, rows in sections.items():
        ticks[y + 0.6] = section
        y += 1.6
        for label, (is_oracle, differences) in rows.items():
            ticks[y], colour = label, PURPLE if is_oracle else BLUE
            for axes, (value, low, high) in zip(panes, differences, strict=True):
                axes.plot([low, high], [y, y], color=colour, linewidth=1.2)
                axes.plot(value, y, "o", ms=5, color=colour, mfc=colour if low > 0 or high < 0 else "white")
            y += 1
    for axes, heading in zip(panes, headings, strict=True):
        axes.axvline(0, color="0.4", linewidth=1, zorder=0)
        axes.set_xscale("symlog", linthresh=100, linscale=1.5)
        axes.set_xticks([-100, -50, 0, 50, 100, 1000], ["-100", "-50", "0", "+50", "+100", "+1,000"])
        axes.minorticks_off()
        axes.set(xlabel=heading, ylim=(y - 0.4, -0.4), xlim=(None, 1.5 * axes.get_xlim()[1]))
        axes.grid(axis="x", color="0.9")
        axes.tick_params(axis="y", length=0)
    panes[0].set_yticks(list(ticks), list(ticks.values()))
    for label in panes[0].get_yticklabels():
        label.set(size="small", weight="bold" if label.get_text() in sections else "normal")
    keys = [Line2D([], [], color=colour, marker="o", mfc="white") for colour in (BLUE, PURPLE)]
    keys.append(Line2D([], [], color="0.3", marker="o", linestyle="none"))
    names = ["does not know the answer", "oracle", "filled: the 95 % interval leaves out zero"]
    figure.legend(keys, names, loc="outside lower center", ncols=3)
    return figure
