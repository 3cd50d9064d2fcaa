"""What a sweep shows: tables of means over seeds, with intervals and paired differences; figures against the weight."""

import csv
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.files import replacing
from utils.plots import comparison_figures
from utils.plots import experiment_figures as figures
from utils.sweeps.groups import Group
from utils.sweeps.paired import Difference, Mean
from utils.sweeps.results import METRICS

SHOWN = {  # metric -> heading and factor of the tables
    "path_kl": ("path KL, nats", 1),
    "stray_fraction": ("strays, %", 100),
    "ode_kl": ("ODE KL, nats", 1),
    "residual_score_fpe_noised": ("FP residual", 1),
    "consistency_excess_noised": ("excess gap, 1e-3", 1e3),
}
PAIRED = ("path_kl", "stray_fraction", "ode_kl")  # those whose paired difference is shown as well
PANES = (*PAIRED, "residual_score_fpe_noised")


def regime_title(regime: str) -> str:
    """Return what a regime is called in a table: without what the plateau schedule has and another one has not."""
    settings = [words for words in regime.split(", ") if not re.fullmatch(r"scheduler\.\w+=null", words)]
    return ", ".join(settings) or "as shipped, but for the regularizer"


def headings() -> list[str]:
    """Return the headings of a table."""
    columns = ["training", "seeds"]
    for metric, (heading, _) in SHOWN.items():
        columns += [heading, "difference"] if metric in PAIRED else [heading]
    return columns


def label(group: Group) -> str:
    """Return what a group is called in a table, oracles as such."""
    return group.title + (" (oracle)" if group.oracle else "")


def cells(group: Group) -> list[str]:
    """Return the row of a group: means with bootstrap intervals; paired ones with Student's, * where significant."""
    row = [label(group), str(max(mean.seeds for mean in group.means.values()))]
    for metric, (_, factor) in SHOWN.items():
        row.append(mean_text(group.means.get(metric), factor))
        if metric in PAIRED:
            row.append(difference_text(group.differences.get(metric), factor))
    return row


def mean_text(mean: Mean | None, factor: float = 1) -> str:
    """Return `0.034 [0.029, 0.040]`, without an interval where there is one seed, or all have the same number."""
    if mean is None or not math.isfinite(mean.value):
        return "-"
    if not math.isfinite(mean.low) or mean.low == mean.high:
        return f"{factor * mean.value:.3g}"
    places = _places(factor * max(mean.high - mean.low, 1e-12), factor * mean.value)
    value, low, high = (f"{factor * v:.{places}f}" for v in (mean.value, mean.low, mean.high))
    return f"{value} [{low}, {high}]"


def difference_text(difference: Difference | None, factor: float = 1) -> str:
    """Return `-0.006 +- 0.005 *`, with * where 0 is outside the interval."""
    if difference is None or not math.isfinite(difference.value):
        return ""
    if not math.isfinite(difference.low):
        return f"{factor * difference.value:+.3g}"
    half = factor * (difference.high - difference.low) / 2
    places = _places(half, factor * difference.value)
    return f"{factor * difference.value:+.{places}f} ± {half:.{places}f}" + (" *" if difference.is_significant else "")


def _places(width, value):
    """Return the decimals that show two digits of an interval's width."""
    scale = width if width > 1e-9 else abs(value)
    return min(max(1 - math.floor(math.log10(scale)), 0), 6) if scale > 1e-9 else 0


def plain(groups: Sequence[Group]) -> str:
    """Return the table of some groups for a terminal, a heading for each regime."""
    lines = []
    for regime in dict.fromkeys(group.regime for group in groups):
        table = [headings(), *(cells(group) for group in groups if group.regime == regime)]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines += ["", regime_title(regime)]
        lines += [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
    return "\n".join(
        [
            *lines,
            "",
            "[ ]: 95 % over seeds, bootstrap (with few seeds too narrow: with five it covers about 85 %).",
            "±: 95 %, Student's t, paired by seed. *: not zero.",
        ]
    )


def write_sweep(groups: Sequence[Group], folder: Path, title: str) -> None:
    """Write summary.csv with all numbers, table.json for the page, and a figure of each regime with several weights."""
    with replacing(folder / "summary.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        parts = ("mean", "low", "high", "seeds", "difference", "difference_low", "difference_high", "p_value")
        columns = [f"{metric}_{part}" for metric in METRICS for part in parts]
        writer.writerow(["sweep", "experiment", "regime", "setting", "weight", "oracle", *columns])
        for group in groups:
            numbers: list[object] = []
            for metric in METRICS:
                numbers += group.means.get(metric, [""] * 4)
                numbers += group.differences[metric][:4] if metric in group.differences else [""] * 4
            facts = (group.sweep, group.experiment, group.regime, group.setting, group.weight, group.oracle)
            writer.writerow([*facts, *numbers])
    content = {
        "title": title,
        "headings": headings(),
        "regimes": {
            regime_title(regime): [cells(group) for group in groups if group.regime == regime]
            for regime in dict.fromkeys(group.regime for group in groups)
        },
    }
    with replacing(folder / "table.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, picture in weights_figures(groups, "weights").items():
        figures.save(picture, folder / f"{name}.png")


def weights_figures(groups: Sequence[Group], name: str) -> dict[str, figures.Figure]:
    """Return a figure for each regime in which a regularizer has several weights: name, name_2, ..."""
    found = {}
    for regime in dict.fromkeys(group.regime for group in groups):
        picture = weights_figure([group for group in groups if group.regime == regime], regime)
        if picture is not None:
            found[f"{name}_{len(found) + 1}" if found else name] = picture
    return found


def weights_figure(groups: Sequence[Group], regime: str) -> figures.Figure | None:
    """Return the metrics of PANES against the weight, a curve for each regularizer with several weights, or None.

    Groups come as `sweep_results.groups` returns them, in the order of their weights.
    """
    curves: dict[str, list[Group]] = {}
    for group in groups:
        if group.weight is not None:
            name = ", ".join(filter(None, [group.experiment, group.setting]))
            curves.setdefault(name, []).append(group)
    curves = {name: found for name, found in curves.items() if len(found) > 1}
    baseline = next((group for group in groups if group.weight is None), None)
    if not curves:
        return None

    def interval(group, metric):
        known = group.means.get(metric, (math.nan,) * 3)
        return SHOWN[metric][1] * np.array(known[:3])

    panes = {
        SHOWN[metric][0]: (
            {
                name: (np.array([g.weight for g in found]), *np.transpose([interval(g, metric) for g in found]))
                for name, found in curves.items()
            },
            interval(baseline, metric) if baseline and metric in baseline.means else None,
        )
        for metric in PANES
        if any(metric in group.means for found in curves.values() for group in found)
    }
    return comparison_figures.weights_figure(panes, regime_title(regime))
