"""What sets the analysed runs side by side: figures of all of them, and the table of their numbers."""

import csv
from collections.abc import Mapping
from pathlib import Path

from scipy.ndimage import median_filter

from utils.evaluation.registry import HEADLINE
from utils.files import replacing, sentence
from utils.plots import comparison_figures, views
from utils.plots import experiment_figures as figures
from utils.reports.experiment import Result, band, is_stray
from utils.runs.curves import read_curves
from utils.runs.loading import ANALYTICAL, Run, UserError

SMOOTHED_EPOCHS = 21


def draw_comparison(results: Mapping[Run, Result], output: Path) -> list[str]:
    """Write the figures that set all runs side by side; return what is wrong with the curves that are left out."""
    if not results:
        return []
    curves = {result.title: result.report.curves for result in results.values()}

    def draw(names: Mapping[str, str], ylabel: str, title: str, signed: bool = False):
        panes = {heading: {run: band(found[name]) for run, found in curves.items()} for heading, name in names.items()}
        return comparison_figures.comparison_figure(panes, "diffusion time t", ylabel, title, signed)

    noised, uniform = "under the noised law", "at uniform points"
    error = draw(
        {f"error {noised}": "score_error_noised", f"error {uniform}": "score_error_uniform"},
        "rms of $\\sigma(t)\\,(s_\\theta - s)$",
        "Score error",
    )
    residual = draw(
        {f"residual {noised}": "residual_score_fpe_noised", f"residual {uniform}": "residual_score_fpe_uniform"},
        "rms of $\\sigma^2 \\varepsilon / \\dot\\sigma$",
        "Residual of the score's Fokker-Planck equation",
    )
    gap = draw(
        {
            uniform: "consistency_gap_uniform",
            f"{uniform}, less the exact score's": "consistency_excess_uniform",
            f"{noised}, less the exact score's": "consistency_excess_noised",
        },
        "$\\sigma^2 |\\mathrm{gap}|^2$ (5 of 100 reverse steps)",
        "Consistency gap",
        signed=True,
    )
    for name, picture in (("score_error", error), ("residual", residual), ("consistency", gap)):
        figures.save(picture, output / f"{name}_comparison.png")
    faults = draw_learning_curves(results, output)
    with_plane = [r for r in results.values() if views.has_plane(r.configuration.toy_problem)]
    if with_plane:
        problem = with_plane[0].configuration.toy_problem
        points = {r.title: r.samples.flatten(1)[:, :2].numpy() for r in with_plane}
        strays = {r.title: is_stray(r.samples, r.configuration).numpy() for r in with_plane}
        modes = problem.modes().flatten(1)[:, :2].numpy()
        title = f"{len(with_plane[0].samples):,} samples of each"
        picture = comparison_figures.samples_comparison_figure(points, modes, strays, title)
        figures.save(picture, output / "samples_comparison.png")
    return faults


def draw_learning_curves(results: Mapping[Run, Result], output: Path) -> list[str]:
    """Write learning_curves.png from the curves.csv of the runs; return a sentence for each that cannot be read."""
    kinds = {
        "excess_loss/validation": "score-matching loss above that of the exact score",
        "path_kl_in_nats/validation": "path KL, nats",
    }
    panes: dict[str, dict] = {name: {} for name in kinds.values()}
    faults = []
    for run, result in results.items():
        if run.experiment == ANALYTICAL:
            continue
        try:
            curves = read_curves(run.curves_file)
        except (UserError, OSError) as error:
            faults.append(sentence(error))
            continue
        for column, name in kinds.items():
            smooth = median_filter(curves[column], SMOOTHED_EPOCHS, mode="nearest")  # or the noise hides the others
            panes[name][result.title] = (curves["epoch"] + 1, smooth, None)
    (output / "learning_curves.png").unlink(missing_ok=True)  # that of other runs
    if any(panes.values()):
        title = f"Learning curves (running medians of {SMOOTHED_EPOCHS} epochs)"
        picture = comparison_figures.comparison_figure(panes, "epoch", "on the validation set", title)
        figures.save(picture, output / "learning_curves.png")
    return faults


def write_summary(results: Mapping[Run, Result], output: Path) -> None:
    """Write summary.csv, a row for each run and all its numbers, and print the headline ones as a table."""
    if not results:
        return
    names = list(dict.fromkeys(name for result in results.values() for name in result.report.estimates))
    with replacing(output / "summary.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [column for name in names for column in (name, f"{name}_standard_error")]
        writer.writerow(["experiment", "run", "oracle", "training_seed", *columns])
        for run, (_, configuration, report, _) in results.items():
            numbers = [v for n in names for v in report.estimates.get(n, (None, None))[:2]]
            writer.writerow([run.experiment, run.name, configuration.is_oracle, configuration.seed, *numbers])
    print("\n" + summary_table(results))


def summary_table(results: Mapping[Run, Result]) -> str:
    """Return the headline numbers, a line for each run, with the error of the last digit in brackets."""
    titles = [result.title + (" (oracle)" if result.configuration.is_oracle else "") for result in results.values()]
    width = max(map(len, titles))
    lines = [" " * width + "".join(f" {heading:>11}" for heading, _ in HEADLINE.values())]
    for title, result in zip(titles, results.values(), strict=True):
        found = ((result.report.estimates.get(name), factor) for name, (_, factor) in HEADLINE.items())
        lines.append(f"{title:{width}}" + "".join(f" {str(e.scaled(f)) if e else '-':>11}" for e, f in found))
    lines.append("path KL and ODE KL in nats, W2 in relative coordinates, (n): standard error of the last digit")
    if any(result.configuration.is_oracle for result in results.values()):
        lines.append("oracle: its training is told the answer")
    return "\n".join(lines)
