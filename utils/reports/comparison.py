"""What sets all analysed runs side by side: figures, the table of their numbers, and the page.

Everything is read from the output folder, so an analysis of a part keeps what was analysed before. Runs of different
problems are compared with their own exact score, problem by problem.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import median_filter

from utils.evaluation.registry import METRICS
from utils.evaluation.sample_metrics import radii
from utils.files import UserError, atomic_write, error_message
from utils.plots.comparison_figures import comparison_figure, samples_comparison_figure
from utils.plots.style import save
from utils.plots.views import Plane, has_plane
from utils.reports.experiment import band, draw_marginal_distribution
from utils.reports.formatting import MISSING, half_width, with_interval
from utils.runs.configuration import Problem
from utils.runs.curves import read_curves
from utils.runs.run import ANALYTICAL, BASELINE, Run
from utils.runs.store import Record

SMOOTHED_EPOCHS = 21
FIGURES = {  # name -> title, label of the axis, whether values may be negative, and the panes: heading -> curve
    "score_error_comparison": (
        "Score error",
        "rms of $\\sigma(t)\\,(s_\\theta - s)$",
        False,
        {"error at noised points": "score_error_noised", "error at uniform points": "score_error_uniform"},
    ),
    "residual_comparison": (
        "Residual of the score's Fokker-Planck equation",
        "rms of $\\sigma^2 \\varepsilon / \\dot\\sigma$",
        False,
        {
            "residual at noised points": "residual_score_fpe_noised",
            "residual at uniform points": "residual_score_fpe_uniform",
        },
    ),
    "consistency_comparison": (
        "Consistency gap",
        "$\\sigma^2 |\\mathrm{gap}|^2$ (5 of 100 reverse steps)",
        True,
        {
            "at uniform points": "consistency_gap_uniform",
            "difference to the exact score's, uniform": "consistency_error_uniform",
            "difference to the exact score's, noised": "consistency_error_noised",
        },
    ),
    "drift_comparison": (
        "Along the sampler, from t = 1 to 0",
        "at time t of the sampler",
        True,
        {"drift of the samples, nats": "law_drift", "share beyond the stray radius": "stray_fraction"},
    ),
}
LEARNING_CURVES = {
    "excess_loss/validation": "score-matching loss above that of the exact score",
    "path_kl_in_nats/validation": "path KL, nats",
}


def read_records(output: Path, problems: list[str]) -> list[Record]:
    """Return every run found: the exact score, the baseline, then by name. What is unreadable is added to problems."""
    records = []
    for path in sorted(output.glob("*/*/metrics.json")):
        try:
            records.append(Record.read(path))
        except UserError as error:
            problems.append(str(error))
    order = {ANALYTICAL: 0, BASELINE: 1}
    return sorted(records, key=lambda r: (order.get(r.facts["experiment"], 2), r.facts["experiment"], r.facts["run"]))


def by_problem(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records of each problem, that of base_config.yaml first."""
    problems = {record.problem_in_words: record.problem for record in records}
    return [[record for record in records if record.problem == problems[words]] for words in sorted(problems)]


def compare(output: Path) -> tuple[str, list[str]]:
    """Write the figures and summary.csv of everything analysed in a folder; return the table of the headline numbers,
    and a line on each thing that is left out."""
    problems: list[str] = []
    records = read_records(output, problems)
    groups = by_problem(records)
    for name in [*FIGURES, "samples_comparison", "learning_curves", "marginal_distribution"]:
        for path in output.glob(f"{name}*.png"):  # of runs that may be gone
            path.unlink()
    for number, group in enumerate(groups, 1):
        problems += _draw(group, output, f"_{number}" if number > 1 else "")
    write_summary(records, output)
    tables = [summary_table(group) for group in groups]
    if len(tables) > 1:
        tables = [f"Problem: {name_of(group[0])}\n{table}" for group, table in zip(groups, tables, strict=True)]
    return "\n\n".join(tables), problems


def _draw(records: Sequence[Record], output: Path, ending: str) -> list[str]:
    """Write the figures of one problem; return what is wrong with the files that are left out."""
    problem, words = records[0].problem, records[0].problem_in_words
    about = f"\n{words}" if words else ""
    for name, (title, label, signed, headings) in FIGURES.items():
        panes = {
            heading: {record.title: band(record.curves[curve]) for record in records if curve in record.curves}
            for heading, curve in headings.items()
        }
        x_label = "time t of the sampler" if name == "drift_comparison" else "diffusion time t"
        save(comparison_figure(panes, x_label, label, title + about, signed), output / f"{name}{ending}.png")
    draw_marginal_distribution(problem, output / f"marginal_distribution{ending}.png")
    return _draw_samples(records, problem, output, ending) + _draw_learning_curves(records, output, ending)


def name_of(record: Record) -> str:
    """Return what the problem of a record is called."""
    return record.problem_in_words or "as in base_config.yaml"


def _draw_samples(records: Sequence[Record], problem: Problem, output: Path, ending: str) -> list[str]:
    law, points, strays, faults = problem.toy_problem, {}, {}, []
    if not has_plane(law):
        return []
    plane, sigma = Plane(law), problem.noise_schedule.sigma(torch.zeros((), dtype=torch.float64))
    for record in records:
        try:
            with np.load(record.folder / "samples.npz") as file:
                x = torch.from_numpy(file["samples"])
        except (OSError, ValueError, KeyError) as error:
            faults.append(f"{record.folder / 'samples.npz'}: {error_message(error)}")
            continue
        x = x[plane.holds(x, sigma)]
        points[record.title] = x.flatten(1)[:, :2].numpy()
        strays[record.title] = (radii(law, x, sigma) > law.stray_radius).numpy()
    if points:
        title = f"Samples, those in the {plane.note}" if plane.is_slice else "Samples"
        save(samples_comparison_figure(points, strays, plane, title), output / f"samples_comparison{ending}.png")
    return faults


def _draw_learning_curves(records: Sequence[Record], output: Path, ending: str) -> list[str]:
    panes: dict[str, dict] = {name: {} for name in LEARNING_CURVES.values()}
    faults = []
    for record in records:
        if record.is_control:
            continue
        try:
            curves = read_curves(Run(record.facts["experiment"], record.facts["run"]).curves_file)
        except (UserError, OSError) as error:
            faults.append(error_message(error))
            continue
        width = min(SMOOTHED_EPOCHS, len(curves["epoch"]))
        for column, name in LEARNING_CURVES.items():
            smooth = median_filter(curves[column], width, mode="nearest")  # or the noise hides the others
            panes[name][record.title] = (curves["epoch"] + 1, smooth, None)
    if any(panes.values()):
        title = f"Learning curves (running medians of at most {SMOOTHED_EPOCHS} epochs)"
        picture = comparison_figure(panes, "epoch", "on the validation set", title)
        save(picture, output / f"learning_curves{ending}.png")
    return faults


def write_summary(records: Sequence[Record], output: Path) -> None:
    """Write summary.csv: a row for each run, with all its numbers and their standard errors."""
    names = list(dict.fromkeys(name for record in records for name in record.estimates))
    with atomic_write(output / "summary.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [column for name in names for column in (name, f"{name}_standard_error")]
        writer.writerow(["experiment", "run", "problem", "oracle", "training_seed", *columns])
        for record in records:
            facts = [record.facts[key] for key in ("experiment", "run", "oracle", "training_seed")]
            numbers = [v for name in names for v in record.estimates.get(name, (None, None))[:2]]
            writer.writerow([*facts[:2], record.problem_in_words, *facts[2:], *numbers])


def headline() -> dict[str, str]:
    """Return the heading of each headline metric in a table, by name."""
    shown = (metric for metric in METRICS.values() if metric.headline)
    return {metric.name: metric.heading for metric in shown}


def summary_table(records: Sequence[Record]) -> str:
    """Return the headline numbers as text, a line for each run."""
    rows = [["", *headline().values()]]
    for record in records:
        title = record.title + (" (oracle)" if record.facts["oracle"] else "")
        title = title.replace("_regularizer", "") if title != BASELINE else title
        rows.append([title, *(_cell(record, name) for name in headline())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("±: half of the 95 % interval of the measurement; other seeds differ by more (docs/pictures.md)")
    if any(record.facts["oracle"] for record in records):
        lines.append("oracle: its training uses the exact score")
    return "\n".join(lines)


def _cell(record: Record, name: str) -> str:
    estimate, factor = record.estimates.get(name), METRICS[name].factor
    return with_interval(factor * estimate.value, factor * half_width(estimate), 1) if estimate else MISSING
