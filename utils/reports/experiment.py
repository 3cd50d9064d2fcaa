"""What is made of one experiment: samples, pictures, a video and numbers, in a folder of its own."""

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
from torch import Tensor
from tqdm import tqdm

from utils.evaluation import sample_metrics as metrics
from utils.evaluation.estimates import Curve
from utils.evaluation.evaluate import Report, evaluate
from utils.evaluation.registry import describe
from utils.files import replacing
from utils.physics.noise_schedule import time_grid
from utils.plots import comparison_figures, views
from utils.plots import experiment_figures as figures
from utils.plots.video import write_video
from utils.randomness import keyed_generator
from utils.runs.loading import (
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
from utils.score.networks import ScoreNetwork
from utils.score.samplers import predictor_corrector

CHUNK = 2_000  # samples carried together: larger ones leave the processor's cache and take half as long again
VIDEO_FRAMES = 51  # one for every 0.02 of t
MARGINAL_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
MAP_TIMES = (0.0, 0.3, 0.6, 1.0)
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
    strays = is_stray(x, configuration)
    title = f"{title}: {len(x):,} samples, {sampling.time_steps} steps"
    if views.has_plane(problem):
        points, modes = (a.flatten(1)[:, :2].numpy() for a in (x, problem.modes()))
        picture = figures.samples_figure(points, modes, strays.numpy(), sigma_0, title)
        figures.save(picture, folder / "samples.png")
    width = metrics.sampler_width_ratio(problem, schedule, sampling.times) if not sampling.corrector_steps else None
    picture = figures.radial_distribution_figure(radii.numpy(), sigma_0, x[0].numel(), title, width)
    figures.save(picture, folder / "radial_distribution.png")


def draw_score_error(report: Report, title: str, folder: Path) -> None:
    """Write score_error.png: the error of the score against time, beside the size of the score itself."""
    size, noised, uniform, median = (
        band(report.curves[name])
        for name in ("size_noised", "score_error_noised", "score_error_uniform", "score_error_median_uniform")
    )
    curves = {
        "rms of the exact $\\sigma(t)\\,s$ under the noised law, for scale": (size[1], None),
        "error under the noised law": noised[1:],
        "error at uniform points": uniform[1:],
        "error at uniform points, median": (median[1], None),
    }
    figures.save(figures.score_error_figure(noised[0], curves, title), folder / "score_error.png")


def is_stray(x: Tensor, configuration: Configuration) -> Tensor:
    """Return which samples, (sample, atom, dimension), are strays, (sample,)."""
    problem = configuration.toy_problem
    sigma_0 = metrics.stationary_width(problem, configuration.noise_schedule)
    return metrics.distance_to_nearest_mode(x, problem) > metrics.STRAY_DISTANCE * sigma_0


def draw_maps(network: ScoreNetwork, configuration: Configuration, title: str, folder: Path) -> None:
    """Write maps.png: the size of the score over the torus, the model's, the exact one's and the error's."""
    maps = views.magnitude_maps(network, configuration.build_truth(), torch.tensor(MAP_TIMES))
    figures.save(comparison_figures.maps_figure(MAP_TIMES, *maps, title), folder / "maps.png")


def band(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, values and errors of a curve as arrays, with not-a-number where it has none."""
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


def code_version() -> str:
    """Return the commit of the code, with -dirty where files were changed since, or "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
