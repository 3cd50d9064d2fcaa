"""What is made of one experiment: samples, pictures, a video and numbers, in a folder of its own."""

import csv
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils import figures, metrics, views
from utils.experiments import ANALYTICAL, ROOT, Configuration, Run, configure, load_run
from utils.files import replacing
from utils.metrics import Estimate
from utils.noise_schedule import time_grid
from utils.randomness import keyed_generator
from utils.samplers import predictor_corrector
from utils.score_networks import ScoreNetwork
from utils.videos import write_video

CHUNK = 2_000  # samples carried together: larger ones leave the processor's cache and take half as long again
VIDEO_FRAMES = 61
MARGINAL_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
ERROR_TIMES = 41
POINTS_PER_TIME = 2_000
PATH_KL_POINTS = 20_000


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn; the same for every experiment that is compared."""

    number_of_samples: int
    time_steps: int
    corrector_steps: int
    start: str  # "uniform", or "exact" for the law at t = 1
    seed: int

    @property
    def times(self) -> Tensor:
        """The time grid of the sampler."""
        return time_grid(self.time_steps)

    @property
    def network_evaluations(self) -> int:
        """How often the network is evaluated for one sample."""
        return self.time_steps * (1 + self.corrector_steps)

    def draw(self, network: ScoreNetwork, configuration: Configuration) -> Tensor:
        """Return samples of the reverse diffusion, (sample, atom, dimension)."""
        generator, chunks = keyed_generator(self.seed, "sampling"), []
        with tqdm(total=self.number_of_samples, desc="  samples", leave=False, disable=None) as bar:
            for first in range(0, self.number_of_samples, CHUNK):
                x = self._start(min(CHUNK, self.number_of_samples - first), configuration, generator)
                chunks.append(
                    predictor_corrector(
                        network, x, self.times, corrector_steps=self.corrector_steps, generator=generator
                    )
                )
                bar.update(len(x))
        return torch.cat(chunks)

    def _start(self, n, configuration, generator):
        problem, schedule = configuration.toy_problem, configuration.noise_schedule
        if self.start == "exact":
            return problem.sample_noised(schedule.sigma(torch.ones(n)), generator)
        return torch.rand(n, *problem.shape, generator=generator)


def analyse_run(run: Run, sampling: Sampling, output: Path, keep_frames: bool = False) -> dict[str, Estimate]:
    """Write everything about one run under output/<experiment>/<run>/ and return its metrics by name."""
    configuration, network = load_run(run)
    title = run.experiment if run.name == "run1" else f"{run.experiment}, {run.name}"
    print(title)
    torch.set_num_threads(1)
    began = time.perf_counter()
    folder = output / run.experiment / run.name
    x = sampling.draw(network, configuration)
    estimates = compute_metrics(network, configuration, x, sampling)
    with replacing(folder / "samples.npz") as temporary:
        np.savez_compressed(temporary, samples=x.numpy(), **asdict(sampling))
    draw_samples(x, configuration, sampling, title, folder)
    draw_score_error(network, configuration, sampling.seed, title, folder)
    if views.has_plane(configuration.toy_problem):
        draw_video(network, configuration, title, folder, keep_frames)
    else:
        print("  no score_field.mp4: one atom in one dimension has no plane to show a field on")
    report = {
        "experiment": run.experiment,
        "run": run.name,
        "code_version": code_version(),
        "sampling": asdict(sampling),
        "network_evaluations_per_sample": sampling.network_evaluations,
        "wall_clock_seconds": round(time.perf_counter() - began, 2),
        "metrics": {
            name: estimate._asdict() | {"unit": metrics.UNITS[name], "definition": metrics.DEFINITIONS[name]}
            for name, estimate in estimates.items()
        },
    }
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return estimates


def compute_metrics(
    network: ScoreNetwork, configuration: Configuration, x: Tensor, sampling: Sampling
) -> dict[str, Estimate]:
    """Return every metric of a network and its samples x, by name."""
    problem, schedule = configuration.toy_problem, configuration.noise_schedule
    sigma_0 = metrics.stationary_width(problem, schedule)
    generator = keyed_generator(sampling.seed, "path KL")
    return {
        "path_kl": metrics.path_kl(network, configuration.build_truth(), PATH_KL_POINTS, generator),
        "stray_fraction": metrics.stray_fraction(metrics.distance_to_nearest_mode(x, problem), sigma_0),
        "width_ratio": metrics.width_ratio(x, problem, sigma_0),
    }


def draw_samples(x: Tensor, configuration: Configuration, sampling: Sampling, title: str, folder: Path) -> None:
    """Write samples.png and radial_distribution.png."""
    problem, schedule = configuration.toy_problem, configuration.noise_schedule
    sigma_0 = metrics.stationary_width(problem, schedule)
    radii = metrics.distance_to_nearest_mode(x, problem)
    is_stray = radii > metrics.STRAY_DISTANCE * sigma_0
    title = f"{title}: {len(x):,} samples, {sampling.time_steps} steps"
    if views.has_plane(problem):
        points, modes = (a.flatten(1)[:, :2].numpy() for a in (x, problem.modes()))
        picture = figures.samples_figure(points, modes, is_stray.numpy(), sigma_0, title)
        figures.save(picture, folder / "samples.png")
    width = metrics.sampler_width_ratio(problem, schedule, sampling.times) if not sampling.corrector_steps else None
    picture = figures.radial_distribution_figure(radii.numpy(), sigma_0, x[0].numel(), title, width)
    figures.save(picture, folder / "radial_distribution.png")


def draw_score_error(network: ScoreNetwork, configuration: Configuration, seed: int, title: str, folder: Path) -> None:
    """Write score_error.png: the error of the score against time, beside the size of the score itself."""
    times, truth = torch.linspace(0, 1, ERROR_TIMES), configuration.build_truth()
    generator = keyed_generator(seed, "score error")
    error, size = metrics.score_error_against_time(network, truth, times, POINTS_PER_TIME, generator)
    curves = {
        "rms of the exact $\\sigma(t)\\,s$, for scale": (size.numpy(), None),
        "error under the noised law": tuple(a.numpy() for a in error),
    }
    figures.save(figures.score_error_figure(times.numpy(), curves, title), folder / "score_error.png")


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


def write_summary(results: Mapping[Run, Mapping[str, Estimate]], output: Path) -> None:
    """Write summary.csv, a row for each run, and print it as a table."""
    if not results:
        return
    names = list(next(iter(results.values())))
    with replacing(output / "summary.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["experiment", "run", *(column for n in names for column in (n, f"{n}_standard_error"))])
        for run, row in results.items():
            writer.writerow([run.experiment, run.name, *(v for n in names for v in row[n][:2])])
    width = max(len(run.experiment) for run in results)
    print(
        f"\n{'':{width}}"
        + "".join(f"{n + ' (' + metrics.UNITS[n] + ')' if metrics.UNITS[n] else n:>26}" for n in names)
    )
    for run, row in results.items():
        cells = (f"{row[n].value:.4g} ± {row[n].standard_error:.1g}" for n in names)
        print(f"{run.experiment:{width}}" + "".join(f"{cell:>26}" for cell in cells))


def code_version() -> str:
    """Return the commit of the code, with -dirty where files were changed since, or "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
