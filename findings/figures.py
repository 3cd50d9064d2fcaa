"""The figures of the study: ratios to the baseline, with their intervals."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import numpy as np
from matplotlib.figure import Figure

from findings.tables import NUMBERS, STRAYS, TRUTHS, bounds, name_of, shipped, truth
from utils.plots.style import COLOURS, new_figure, styled
from utils.runs.run import in_words
from utils.sweeps.paired import Group

RATIOS = (0.05, 0.1, 0.2, 0.5, 1, 2)
Groups = Sequence[Group | None]


@styled
def ratios_figure(rows: Sequence[str], kinds: Mapping[str, Groups], numbers: Collection[str]) -> Figure:
    """Return a pane for each number, with the ratios of each kind to its baseline, a group a row."""
    figure = new_figure(2 + 3 * len(numbers), 1.6 + 0.35 * len(rows), layout="constrained")
    panes, shifts = figure.subplots(1, len(numbers), sharey=True), np.linspace(-0.25, 0.25, len(kinds) + 2)[1:-1]
    for pane, metric in zip(panes, numbers, strict=True):
        pane.axvline(1, color="black", linewidth=0.8)
        for (label, some), color, shift in zip(kinds.items(), COLOURS, shifts, strict=False):
            known = {row: b for row, one in enumerate(some) if one and (b := bounds(one, metric)) is not None}
            values, low, high = np.transpose([*known.values()]) if known else np.empty((3, 0))
            errors = np.stack([values - low, high - values])
            pane.errorbar(values, np.array([*known]) + shift, xerr=errors, fmt="o", color=color, label=label)
        pane.set(xscale="log", title=NUMBERS[metric], xlabel="ratio to no regularizer", xlim=(0.025, 3))
        pane.set_xticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
        pane.set_xticks([], minor=True)
    panes[0].set_yticks(range(len(rows)), rows)
    panes[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.legend(*panes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
    return figure


def shipped_figure() -> Figure:
    """Return the ratios of every shipped experiment, in equal epochs and in equal time."""
    found, in_time = shipped()
    names = [group.row["experiment"] for group in found[1:]]
    kinds = {"equal epochs": found[1:], "equal time": [in_time.get(name) for name in names]}
    return ratios_figure([in_words(name) for name in names], kinds, ("path_kl", "ode_kl", STRAYS))


def truths_figure() -> Figure:
    """Return the ratios of everything but oracles on every distribution, in equal time."""
    found = [{name_of(group): group for group in truth(name)[1]} for name in TRUTHS]
    names = dict.fromkeys(chain(*found))
    kinds = {title: [some.get(name) for name in names] for title, some in zip(TRUTHS.values(), found, strict=True)}
    return ratios_figure([in_words(name.replace("`", "")) for name in names], kinds, NUMBERS)
