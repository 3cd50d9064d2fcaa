"""What is made of one experiment: samples, pictures, a video and numbers, in a folder of its own."""

import csv
import json
import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor
from tqdm import tqdm

from utils import comparison_figures, figures, metrics, views
from utils.catalogue import HEADLINE, describe
from utils.curves import read_curves
from utils.estimates import Curve
from utils.evaluation import Report, evaluate
from utils.experiments import (
    ANALYTICAL,
    FORMAT_VERSION,
    ROOT,
    Configuration,
    Run,
    UserError,
    configure,
    difference,
    load_run,
)
from utils.files import replacing, sentence
from utils.noise_schedule import time_grid
from utils.randomness import keyed_generator
from utils.samplers import predictor_corrector
from utils.score_networks import ScoreNetwork
from utils.videos import write_video

CHUNK = 2_000  # samples carried together: larger ones leave the processor's cache and take half as long again
VIDEO_FRAMES = 51  # one for every 0.02 of t
MARGINAL_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
MAP_TIMES = (0.0, 0.3, 0.6, 1.0)
SMOOTHED_EPOCHS = 21
STOPS = 11  # times along the sampler, both ends included, at which the samples' law is compared with the exact one


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn; the same for every experiment that is compared."""

    number_of_samples: int
    time_steps: int
    corrector_steps: int
    start: str  # "uniform", or "exact" for the law at t = 1
    seed: int

    @classmethod
    def of(cls, options) -> "Sampling":
        """Return the sampling that a command line asks for."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    @property
    def times(self) -> Tensor:
        """The time grid of the sampler."""
        return time_grid(self.time_steps)

    @property
    def network_evaluations(self) -> int:
        """How often the network is evaluated for one sample."""
        return self.time_steps * (1 + self.corrector_steps)

    def draw(self, network: ScoreNetwork, configuration: Configuration, progress: bool = False) -> dict[float, Tensor]:
        """Return samples of the reverse diffusion, (sample, atom, dimension), at a few times on the way from 1 to 0.

        `progress` shows a bar, where there is a terminal.
        """
        generator, times = keyed_generator(self.seed, "sampling"), self.times
        stops = sorted({round(i * self.time_steps / (STOPS - 1)) for i in range(STOPS)}, reverse=True)
        chunks: dict[float, list[Tensor]] = {times[i].item(): [] for i in stops}
        options = {"corrector_steps": self.corrector_steps, "generator": generator}
        with tqdm(
            total=self.number_of_samples, desc="  samples", leave=False, disable=None if progress else True
        ) as bar:
            for first in range(0, self.number_of_samples, CHUNK):
                x = self._start(min(CHUNK, self.number_of_samples - first), configuration, generator)
                chunks[1.0].append(x)
                for upper, lower in pairwise(stops):
                    x = predictor_corrector(network, x, times[lower : upper + 1], **options)
                    chunks[times[lower].item()].append(x)
                bar.update(len(x))
        return {t: torch.cat(parts) for t, parts in chunks.items()}

    def _start(self, n, configuration, generator):
        problem, schedule = configuration.toy_problem, configuration.noise_schedule
        if self.start == "exact":
            return problem.sample_noised(schedule.sigma(torch.ones(n)), generator)
        return torch.rand(n, *problem.shape, generator=generator)


class Result(NamedTuple):
    """What the comparison needs of one run."""

    title: str
    configuration: Configuration
    report: Report
    samples: Tensor


def analyse_run(run: Run, sampling: Sampling, output: Path, keep_frames: bool = False) -> Result:
    """Write everything about one run under output/<experiment>/<run>/ and return its numbers and samples."""
    configuration, network, checkpoint = load_run(run, fall_back=True)
    title = run.experiment if run.name == "run1" else f"{run.experiment}, {run.name}"
    print(title)
    torch.set_num_threads(1)
    clock = Clock()
    folder = folder_of(run, output)
    states = sampling.draw(network, configuration, progress=True)
    check_finite(states, run)
    clock.lap("sampling")
    x = states[0.0]
    report = evaluate(network, configuration, states, sampling.seed, progress=True)
    clock.lap("metrics")
    with replacing(folder / "samples.npz") as temporary:
        np.savez_compressed(temporary, samples=x.numpy(), format_version=FORMAT_VERSION, **asdict(sampling))
    draw_samples(x, configuration, sampling, title, folder)
    draw_score_error(report, title, folder)
    if views.has_plane(configuration.toy_problem):
        draw_maps(network, configuration, title, folder)
        clock.lap("figures")
        draw_video(network, configuration, title, folder, keep_frames)
        clock.lap("video")
    else:
        clock.lap("figures")
        print("  no maps.png and no score_field.mp4: one atom in one dimension has no plane to show a field on")
    content = {
        "format_version": FORMAT_VERSION,
        "experiment": run.experiment,
        "run": run.name,
        "oracle": configuration.is_oracle,
        "checkpoint": checkpoint and checkpoint.name,  # last.ckpt where best.ckpt is damaged or missing
        "seed": sampling.seed,
        "code_version": code_version(),
        "sampling": asdict(sampling),
        "wall_clock_seconds": clock.total | {"total": sum(clock.total.values())},
        "wall_clock_seconds_of_metrics": report.seconds,
        "network_evaluations_per_sample": sampling.network_evaluations,
        "network_evaluations": {"sampling": sampling.network_evaluations * len(x)} | report.evaluations,
        "configuration_difference": difference(configure(ANALYTICAL), configuration),
        "metrics": {name: estimate._asdict() | describe(name)._asdict() for name, estimate in report.estimates.items()},
        "left_out": report.skipped,
        "curves": {name: curve._asdict() for name, curve in report.curves.items()},
    }
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Result(title, configuration, report, x)


def folder_of(run: Run, output: Path) -> Path:
    """Return where the analysis of a run is written; a run of a sweep is called sweep/tag, and gets one folder."""
    return output / run.experiment / run.name.replace("/", ",")


def check_finite(states: Mapping[float, Tensor], run: Run) -> None:
    """Raise UserError where samples are no numbers, as those of a network are whose output is none."""
    if not all(torch.isfinite(x).all() for x in states.values()):
        raise UserError(f"{run.title}: left out, since its network's output becomes infinite or not a number")


class Clock:
    """Wall-clock seconds of one part after another."""

    def __init__(self):
        self.began, self.total = time.perf_counter(), {}

    def lap(self, part: str) -> None:
        """Note the time since the last lap."""
        now = time.perf_counter()
        self.total[part], self.began = now - self.began, now


def _plain(value):
    """Return what JSON can hold: numbers that are not finite become null, times a few digits."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def draw_samples(x: Tensor, configuration: Configuration, sampling: Sampling, title: str, folder: Path) -> None:
    """Write samples.png and radial_distribution.png."""
    problem, schedule = configuration.toy_problem, configuration.noise_schedule
    sigma_0 = metrics.stationary_width(problem, schedule)
    radii = metrics.distance_to_nearest_mode(x, problem)
    is_stray = _is_stray(x, configuration)
    title = f"{title}: {len(x):,} samples, {sampling.time_steps} steps"
    if views.has_plane(problem):
        points, modes = (a.flatten(1)[:, :2].numpy() for a in (x, problem.modes()))
        picture = figures.samples_figure(points, modes, is_stray.numpy(), sigma_0, title)
        figures.save(picture, folder / "samples.png")
    width = metrics.sampler_width_ratio(problem, schedule, sampling.times) if not sampling.corrector_steps else None
    picture = figures.radial_distribution_figure(radii.numpy(), sigma_0, x[0].numel(), title, width)
    figures.save(picture, folder / "radial_distribution.png")


def draw_score_error(report: Report, title: str, folder: Path) -> None:
    """Write score_error.png: the error of the score against time, beside the size of the score itself."""
    size, noised, uniform, median = (
        _band(report.curves[name])
        for name in ("size_noised", "score_error_noised", "score_error_uniform", "score_error_median_uniform")
    )
    curves = {
        "rms of the exact $\\sigma(t)\\,s$ under the noised law, for scale": (size[1], None),
        "error under the noised law": noised[1:],
        "error at uniform points": uniform[1:],
        "error at uniform points, median": (median[1], None),
    }
    figures.save(figures.score_error_figure(noised[0], curves, title), folder / "score_error.png")


def _is_stray(x, configuration):
    problem = configuration.toy_problem
    sigma_0 = metrics.stationary_width(problem, configuration.noise_schedule)
    return metrics.distance_to_nearest_mode(x, problem) > metrics.STRAY_DISTANCE * sigma_0


def draw_maps(network: ScoreNetwork, configuration: Configuration, title: str, folder: Path) -> None:
    """Write maps.png: the size of the score over the torus, the model's, the exact one's and the error's."""
    maps = views.magnitude_maps(network, configuration.build_truth(), torch.tensor(MAP_TIMES))
    figures.save(comparison_figures.maps_figure(MAP_TIMES, *maps, title), folder / "maps.png")


def _band(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.array(values, dtype=float) for values in curve)  # None becomes not-a-number


def draw_video(
    network: ScoreNetwork, configuration: Configuration, title: str, folder: Path, keep_frames: bool = False
) -> None:
    """Write score_field.mp4, and its frames as PNG under frames/ where they are to be kept."""
    schedule, truth = configuration.noise_schedule, configuration.build_truth()
    field = views.Field(configuration.toy_problem, schedule)
    picture = figures.ScoreFieldFigure(field.points, field.grid, field.modes)

    def frames() -> Iterator[np.ndarray]:
        for number, t in enumerate(tqdm(torch.linspace(0, 1, VIDEO_FRAMES), desc="  video", leave=False, disable=None)):
            label = f"{title}     t = {t:.2f}     $\\sigma$ = {schedule.sigma(t):.4f}"
            frame = picture.frame(label, field.arrows(network, t), field.arrows(truth, t), field.log_density(t))
            if keep_frames:
                figures.save(frame, folder / "frames" / f"frame_{number:03d}.png")
            yield frame

    write_video(frames(), folder / "score_field.mp4")


def draw_marginal_distribution(output: Path) -> None:
    """Write marginal_distribution.png: the exact law of base_config.yaml at five times."""
    configuration = configure(ANALYTICAL)
    if not views.has_plane(configuration.toy_problem):
        return
    times, field = torch.tensor(MARGINAL_TIMES), views.Field(configuration.toy_problem, configuration.noise_schedule)
    densities = np.exp(np.stack([field.log_density(t) for t in times]).astype(np.float64))
    picture = figures.marginal_distribution_figure(times.numpy(), field.grid, densities, densities.mean(2))
    figures.save(picture, output / "marginal_distribution.png")


def draw_comparison(results: Mapping[Run, Result], output: Path) -> list[str]:
    """Write the figures that set all runs side by side; return what is wrong with the curves that are left out."""
    if not results:
        return []
    curves = {result.title: result.report.curves for result in results.values()}

    def panes(**names: str) -> dict[str, dict]:
        headings = {"noised": "under the noised law", "uniform": "at uniform points"}
        return {
            f"{what.replace('_', ' ')} {headings[law]}".strip(): {
                title: _band(found[f"{name}_{law}"]) for title, found in curves.items()
            }
            for what, name in names.items()
            for law in headings
        }

    draw, time_label = comparison_figures.comparison_figure, "diffusion time t"
    error = draw(panes(error="score_error"), time_label, "rms of $\\sigma(t)\\,(s_\\theta - s)$", "Score error")
    residual = draw(
        panes(residual="residual_score_fpe"),
        time_label,
        "rms of $\\sigma^2 \\varepsilon / \\dot\\sigma$",
        "Residual of the score's Fokker-Planck equation",
    )
    gap_label = "$\\sigma^2 |\\mathrm{gap}|^2$ (5 of 100 reverse steps)"
    gaps = {
        "at uniform points": "consistency_gap_uniform",
        "at uniform points, less the exact score's": "consistency_excess_uniform",
        "under the noised law, less the exact score's": "consistency_excess_noised",
    }
    gap_panes = {where: {title: _band(found[name]) for title, found in curves.items()} for where, name in gaps.items()}
    gap = draw(gap_panes, time_label, gap_label, "Consistency gap", signed=True)
    for name, picture in (("score_error", error), ("residual", residual), ("consistency", gap)):
        figures.save(picture, output / f"{name}_comparison.png")
    faults = draw_learning_curves(results, output)
    with_plane = [r for r in results.values() if views.has_plane(r.configuration.toy_problem)]
    if with_plane:
        problem = with_plane[0].configuration.toy_problem
        points = {r.title: r.samples.flatten(1)[:, :2].numpy() for r in with_plane}
        strays = {r.title: _is_stray(r.samples, r.configuration).numpy() for r in with_plane}
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


def code_version() -> str:
    """Return the commit of the code, with -dirty where files were changed since, or "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
