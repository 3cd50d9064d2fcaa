"""What sets all analysed runs side by side: figures, and the table of their numbers. All is read from the output
folder, so an analysis of a part keeps what was analysed before. Each problem is compared with its own exact score."""

import re
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from scipy.ndimage import median_filter

from utils.evaluation.registry import METRICS, Metric
from utils.files import UserError, error_message
from utils.plots.figures import comparison_figure, marginal_distribution_figure, samples_comparison_figure
from utils.plots.style import save
from utils.plots.views import Field, Plane
from utils.reports.experiment import samples_in
from utils.reports.formatting import MISSING, aligned, half_width, with_interval
from utils.runs.configuration import Problem
from utils.runs.curves import read_curves
from utils.runs.run import Run, place
from utils.runs.store import Record
from utils.sweeps.results import row_of, write_results

SMOOTHED_EPOCHS = 21
MARGINAL_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
FIGURES = {  # name -> title, label of the axis, and heading -> curve of each pane
    "score_error_comparison": (
        "Score error",
        "rms of $\\sigma(t)\\,(s_\\theta - s)$",
        {"at noised points": "score_error_noised", "at uniform points": "score_error_uniform"},
    ),
    "residual_comparison": (
        "Residual of the score's Fokker-Planck equation",
        "rms of $\\sigma^2 \\varepsilon / \\dot\\sigma$",
        {"at noised points": "residual_score_fpe_noised", "at uniform points": "residual_score_fpe_uniform"},
    ),
    "consistency_comparison": (
        "Consistency gap",
        "$\\sigma^2 |\\mathrm{gap}|^2$ (5 of 100 reverse steps)",
        {
            "at uniform points": "consistency_gap_uniform",
            "difference to the exact score's, uniform": "consistency_error_uniform",
            "difference to the exact score's, noised": "consistency_error_noised",
        },
    ),
    "drift_comparison": (
        "Along the sampler, from t = 1 to 0",
        "at time t of the sampler",
        {"drift of the samples, nats": "law_drift", "share beyond the stray radius": "stray_fraction"},
    ),
}
SIGNED = ("consistency_comparison", "drift_comparison")  # may be negative by chance
LEARNING_CURVES = {
    "excess_loss/validation": "score-matching loss above that of the exact score",
    "path_kl_in_nats/validation": "path KL, nats",
}


def read_records(output: Path, problems: list[str]) -> list[Record]:
    """Return every run found, the exact score first, run1 before others; unreadable files are named in `problems`."""
    records = []
    for path in sorted(output.glob("[!.]*/[!.]*/metrics.json")):
        try:
            records.append(Record.read(path))
        except UserError as error:
            problems.append(str(error))
    return sorted(records, key=lambda r: (place(r.facts["experiment"]), r.facts["run"] != "run1", r.facts["run"]))


def by_problem(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records of each problem, that of base_config.yaml first."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.problem_in_words):  # words of an older base may mislead
        groups.setdefault(record.problem.model_dump_json(), []).append(record)
    return list(groups.values())


def compare(output: Path) -> tuple[str, list[str]]:
    """Write the figures and summary.csv of everything analysed in a folder; return the table of the headline numbers,
    and a line on each thing that is left out."""
    problems: list[str] = []
    groups = by_problem(records := read_records(output, problems))
    for name in [*FIGURES, "samples_comparison", "learning_curves", "marginal_distribution"]:
        for path in output.glob(f"{name}*.png"):  # of runs that may be gone
            path.unlink(missing_ok=True)
    for number, group in enumerate(groups, 1):
        _draw(group, output, f"_{number}" if number > 1 else "", problems)
    write_results(output / "summary.csv", [row_of(record) | {"problem": record.problem_in_words} for record in records])
    layout = "Problem: {}\n{}" if len(groups) > 1 else "{1}"
    return "\n\n".join(layout.format(name_of(group[0]), summary_table(group)) for group in groups), problems


def _draw(records: Sequence[Record], output: Path, ending: str, problems: list[str]) -> None:
    """Write the figures of one problem. What is wrong with files that are left out is added to `problems`."""
    problem, about = records[0].problem, f"\n{textwrap.fill(records[0].problem_in_words, 110)}".rstrip()
    for name, (title, label, curves) in FIGURES.items():
        panes = {h: {r.title: r.curves[c] for r in records if c in r.curves} for h, c in curves.items()}
        x_label = "time t of the sampler" if name == "drift_comparison" else "diffusion time t"
        save(comparison_figure(panes, x_label, label, title + about, name in SIGNED), output / f"{name}{ending}.png")
    if problem.toy_problem.has_plane:
        field = Field(problem.toy_problem, problem.noise_schedule)
        picture = marginal_distribution_figure(field, torch.tensor(MARGINAL_TIMES))
        save(picture, output / f"marginal_distribution{ending}.png")
        _draw_samples(records, problem, output / f"samples_comparison{ending}.png", problems)
    _draw_learning_curves(records, output / f"learning_curves{ending}.png", problems)


def name_of(record: Record) -> str:
    return record.problem_in_words or "as in base_config.yaml"


def _draw_samples(records: Sequence[Record], problem: Problem, path: Path, problems: list[str]) -> None:
    plane, points, strays = Plane(problem.toy_problem), {}, {}
    for record in records:
        try:
            with np.load(record.folder / "samples.npz") as file:
                x = torch.from_numpy(file["samples"])
        except (OSError, ValueError, KeyError, BadZipFile, zlib.error) as error:
            problems.append(f"{record.folder / 'samples.npz'}: {error_message(error)}")
        else:
            points[record.title], strays[record.title] = samples_in(plane, x, problem.noise_schedule)
    if points:
        title = f"Samples, those in the {plane.note}" if plane.is_slice else "Samples"
        save(samples_comparison_figure(points, strays, plane, title), path)


def _draw_learning_curves(records: Sequence[Record], path: Path, problems: list[str]) -> None:
    panes: dict[str, dict] = {name: {} for name in LEARNING_CURVES.values()}
    for record in records:
        if record.is_control:
            continue
        try:
            curves = read_curves(Run(record.facts["experiment"], record.facts["run"]).curves_file)
        except FileNotFoundError:  # the run was removed from training/ since
            continue
        except (UserError, OSError) as error:
            problems.append(error_message(error))
            continue
        width = min(SMOOTHED_EPOCHS, len(curves["epoch"]) - 1 + len(curves["epoch"]) % 2)  # odd, or it would shift
        for column, name in LEARNING_CURVES.items():
            smooth = median_filter(curves[column], width, mode="nearest")  # or the noise hides the others
            panes[name][record.title] = (curves["epoch"] + 1, smooth, None)
    if any(panes.values()):
        title = f"Learning curves (running medians of at most {SMOOTHED_EPOCHS} epochs)"
        save(comparison_figure(panes, "epoch", "on the validation set", title), path)


def headline() -> list[Metric]:
    """Return the metrics that stand in tables."""
    return [metric for metric in METRICS.values() if metric.headline]


def summary_table(records: Sequence[Record]) -> str:
    """Return the headline numbers as text, a line for each run."""
    rows = [["", *(metric.heading for metric in headline())]]
    for record in records:
        title = re.sub(r"(?<!\bno)_regularizer", "", record.title + f" ({record.mark})" * bool(record.mark))
        found = [(metric.factor, record.estimates.get(metric.name)) for metric in headline()]
        rows.append([title, *(with_interval(f * e.value, f * half_width(e), 1) if e else MISSING for f, e in found)])
    lines = aligned(rows)
    lines.append("±: half of the 95 % interval of the measurement; other seeds differ by more (docs/pictures.md)")
    used = {"oracle": "the exact score", "forces": "the gradient of the log-density at the data"}
    marks = {record.mark for record in records}
    lines += [f"{mark}: its training uses {what}" for mark, what in used.items() if mark in marks]
    return "\n".join([*lines, *notes_on(records)])


def notes_on(records: Sequence[Record]) -> Iterator[str]:
    """Yield a line on each run of one problem whose numbers a reader could take for more than they are."""
    most = max((record.facts.get("epochs") or 0 for record in records), default=0)
    for record in records:
        if record.facts["checkpoint"] == "last.ckpt":
            yield f"{record.title}: best.ckpt is damaged or missing, these are the weights of the last epoch"
        if record.warning:
            yield f"{record.title}: {record.warning}"
        epochs = record.facts.get("epochs") or 0
        if not record.facts.get("finished", True):  # which older files do not say
            yield f"{record.title}: its training is not finished; these are the weights after {epochs} epochs"
        elif 0 < epochs < most:
            yield f"{record.title}: its weights are those after {epochs} epochs, others have up to {most}"
