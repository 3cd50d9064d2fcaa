"""What a sweep shows: tables of means over seeds with paired differences, and figures against the weight."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.evaluation.registry import complete, describe
from utils.files import UserError, atomic_write, error_message, write_text
from utils.plots.figures import weights_figure
from utils.plots.style import save
from utils.reports.comparison import headline
from utils.reports.formatting import EXPLANATION, MISSING, aligned, with_interval
from utils.reports.page import write_page
from utils.runs.checkpoints import is_finished
from utils.runs.loading import read_configuration
from utils.runs.run import find_runs
from utils.runs.store import evaluated
from utils.score.samplers import Sampling
from utils.sweeps.paired import NO_MEAN, Group, Mean, groups
from utils.sweeps.results import read_results, row_of, write_results


def report_sweep(name: str, only: Sequence[str] | None, sampling: Sampling, results: Path, output: Path) -> list[str]:
    """Write and print what the finished runs of a sweep say over seeds; return a line on each run that is left out. A
    row of the results file counts for the run that was trained in the same way, whatever its name. What neither the
    file nor the run's metrics.json holds is evaluated. Raises UserError where there is nothing to show."""
    runs, rows, problems, chosen = find_runs(name, only), read_results(results, sampling), [], []
    for run in tqdm(runs, "evaluated", unit="run", disable=None if runs else True):
        try:
            if not is_finished(run):
                problems.append(f"{run.title}: not finished, left out")
                continue
            key = read_configuration(run.configuration_file).key()
            held = key in rows and complete(name for name, value in rows[key].items() if value)
            if run.metrics_file.exists() or not held:  # its own numbers come first: it may be trained anew
                rows[key] = row_of(evaluated(run, sampling))
            chosen.append(key)
        except (UserError, OSError) as error:
            problems.append(f"{run.title}: {error_message(error)}")
    chosen = chosen or [key for key, row in rows.items() if row["run"].startswith(f"{name}/")]
    if not chosen:
        unfinished = f"no run of the sweep {name!r} has finished ({len(runs)} begun)"
        command = f"train it with `python -m training.sweep --config FILE`, FILE having `name: {name}`"
        raise UserError("\n".join([f"{unfinished if runs else f'no sweep {name!r} is here'}; {command}", *problems]))
    write_results(results, rows.values())
    found, folder = groups([rows[key] for key in chosen], rows.values()), output / "sweeps" / name
    write_sweep(found, folder, name)
    page, left_out = write_page(output)
    for heading, some in by_settings(found).items():
        print("", heading, *aligned(table(some)), sep="\n")
    print(f"\n{EXPLANATION}\n\nEvery number: {folder / 'summary.csv'}; a row a run: {results}")
    print(f"The page: {page.resolve()}")
    return problems + left_out


def by_settings(groups: Iterable[Group]) -> dict[str, list[Group]]:
    """Return the groups of each table, by its heading: the training settings, without null keys of the plateau."""
    tables: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        words = [w for w in group.row["training_settings"].split(", ") if not re.fullmatch(r"scheduler\.\w+=null", w)]
        tables[", ".join(words) or "as in base_config.yaml, but for the regularizer"].append(group)
    return tables


def table(groups: Sequence[Group]) -> list[list[str]]:
    """Return rows of text, the headings first."""
    columns = [["training", *(group.title for group in groups)]]
    columns.append(["seeds", *(str(len(group.runs)) for group in groups)])
    for metric in headline():
        name, factor = metric.name, metric.factor
        columns.append([metric.heading, *(_text(group.mean(name), factor) for group in groups)])
        if metric.paired == "difference":
            compared = [_text(group.difference(name), factor, sign=True) for group in groups]
        else:
            compared = [_ratio(group.log_ratio(name)) for group in groups]
        if metric.paired and any(compared):
            columns.append([f"{metric.label.partition(',')[0]}, {metric.paired}", *compared])
    return [list(row) for row in zip(*columns, strict=True)]


def _text(mean: Mean | None, factor: float, sign: bool = False) -> str:
    if mean is None:
        return "" if sign else MISSING
    return with_interval(factor * mean.value, factor * mean.half_width, sign=sign) + " *" * (sign and mean.is_not_zero)


def _ratio(log: Mean | None) -> str:
    return "{:.3g} ({:.3g} to {:.3g})".format(*np.exp(log.ends)) + " *" * log.is_not_zero if log else ""


def write_sweep(groups: Sequence[Group], folder: Path, title: str) -> None:
    """Write summary.csv with all metrics, table.json for the page, and a figure for each table with several weights."""
    names = {column: about for group in groups for column in group.row if (about := describe(column))}
    parts = ("mean", "half_width", "difference", "difference_half_width", "p_value", "ratio", "ratio_low", "ratio_high")
    facts = ("experiment", "training_settings", "regularizer_settings", "weight", "oracle")
    rows: list[list[object]] = [[*facts, "seeds", *(f"{name}_{part}" for name in names for part in parts)]]
    for group in groups:
        row: list[object] = [*(group.row[fact] for fact in facts), len(group.runs)]
        for name in names:
            row += (group.mean(name) or ("", ""))[:2] + (group.difference(name) or ("", "", ""))[:3]
            log = group.log_ratio(name) if names[name].better else None  # a ratio of p-values says nothing
            row += np.exp(log.ends).tolist() if log else ("", "", "")
        rows.append(row)
    with atomic_write(folder / "summary.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    found = by_settings(groups)
    tables = {heading: table(some) for heading, some in found.items()}
    write_text(folder / "table.json", json.dumps({"title": title, "tables": tables}, indent=1) + "\n")
    for path in folder.glob("weights*.png"):
        path.unlink(missing_ok=True)
    figures = [(heading, panes) for heading, some in found.items() if (panes := weights_panes(some))]
    for number, (heading, panes) in enumerate(figures, 1):
        ending = f"_{number}" if number > 1 else ""
        save(weights_figure(panes, heading), folder / f"weights{ending}.png")


def weights_panes(groups: Sequence[Group]) -> dict[str, tuple[dict[str, list[np.ndarray]], np.ndarray | None]]:
    """Return the panes of `weights_figure`: a curve for each regularizer with several weights; nothing without any."""
    curves: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if group.weight is not None:
            name = ", ".join(filter(None, [group.row["experiment"], group.row["regularizer_settings"]]))
            curves[name].append(group)
    several = {name: some for name, some in curves.items() if len(some) > 1}
    baseline = next((group for group in groups if group.row["group"] == group.row["baseline"]), None)
    panes = {}

    def shown(group, metric):
        return metric.factor * (group.mean(metric.name) or NO_MEAN).ends

    known = [m for m in headline() if any(g.mean(m.name) for some in several.values() for g in some)]
    for metric in sorted(known, key=lambda metric: not metric.paired)[:4]:
        lines = {n: list(np.transpose([[g.weight, *shown(g, metric)] for g in some])) for n, some in several.items()}
        panes[metric.heading] = (lines, shown(baseline, metric) if baseline else None)
    return panes
