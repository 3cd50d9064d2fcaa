"""What is made of one run: samples, pictures, a video and numbers, in a folder of its own."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils.evaluation.sample_metrics import radii
from utils.files import atomic_write
from utils.physics.noise_schedule import NoiseSchedule
from utils.plots import figures
from utils.plots.score_field import ScoreFieldFigure
from utils.plots.style import save
from utils.plots.video import VideoError, write_video
from utils.plots.views import Field, Plane, magnitude_maps
from utils.runs.checkpoints import Loaded, load_run
from utils.runs.configuration import Configuration
from utils.runs.run import ANALYTICAL, Run
from utils.runs.store import Record, evaluate_run, facts_of, kept
from utils.score.samplers import Sampling, sampler_width_ratio

VIDEO_FRAMES = 51  # one for every 0.02 of t
MAP_TIMES = (0.0, 0.3, 0.6, 1.0)
SCORE_ERRORS = {  # label -> curve
    "rms of the exact $\\sigma(t)\\,s$ at noised points, for scale": "exact_score_size_noised",
    "error at noised points": "score_error_noised",
    "error at uniform points": "score_error_uniform",
    "error at uniform points, median": "score_error_median_uniform",
    "error of the training set's own score": "data_limit",
}
END = torch.zeros((), dtype=torch.float64)  # the time of the samples


def folder_of(run: Run, output: Path) -> Path:
    """Return where the analysis of a run is written; a run of a sweep, called sweep/tag, gets one folder as well."""
    return output / run.experiment / run.name.replace("/", ",")


def control_of(loaded: Loaded) -> Loaded:
    """Return the exact score of a run's own problem."""
    run, exact = loaded.run, load_run(Run(ANALYTICAL))
    if loaded.configuration.problem == exact.configuration.problem:
        return exact
    own = Run(ANALYTICAL, f"{run.experiment},{run.name.replace('/', ',')}")
    configuration = exact.configuration.model_copy(update=dict(loaded.configuration.problem))
    return Loaded(own, configuration, configuration.build_truth().eval(), None)


def analyse_run(run: Run, sampling: Sampling, output: Path, keep_frames: bool = False, again: bool = True) -> None:
    """Write everything about one run under output/<experiment>/<run>/; not `again` where this was done before. The
    exact score of its problem, the control, is analysed before, where that was not done or with other sampling."""
    loaded = load_run(run, fall_back=True)
    control, fault = control_of(loaded), None
    if not again and is_analysed(loaded, sampling, output):
        return
    if run.experiment != ANALYTICAL and not is_analysed(control, sampling, output):
        try:
            analyse(control, sampling, output, keep_frames)
        except VideoError as error:  # its numbers are there, and those of the run come first
            fault = error
    analyse(loaded, sampling, output, keep_frames)
    if fault:
        raise fault


def is_analysed(loaded: Loaded, sampling: Sampling, output: Path) -> bool:
    """Return whether the output folder holds the analysis of a run as it is now, sampled in this way."""
    record = kept(path := folder_of(loaded.run, output) / "metrics.json", **facts_of(loaded, sampling))
    if record is None or "figures" not in record.facts["wall_clock_seconds"]:  # it was interrupted
        return False
    return loaded.checkpoint is None or loaded.checkpoint.stat().st_mtime <= path.stat().st_mtime


def analyse(loaded: Loaded, sampling: Sampling, output: Path, keep_frames: bool) -> None:
    """Write samples, numbers, pictures and video of a loaded run."""
    configuration, folder = loaded.configuration, folder_of(loaded.run, output)
    record, states, seconds = evaluate_run(loaded, sampling, folder, progress=True)
    print(record.title)
    record.write(seconds)  # the numbers first: a failing video should not lose them
    for old in (*folder.glob("[!.]*.png"), folder / "score_field.mp4"):  # no picture of other weights beside them
        old.unlink(missing_ok=True)
    with atomic_write(folder / "samples.npz") as temporary:
        np.savez_compressed(temporary, samples=states[0.0].numpy(), **sampling.model_dump())
    began, title = time.perf_counter(), record.title
    draw_samples(states[0.0], configuration, sampling, title, folder)
    draw_score_error(record, folder)
    if configuration.toy_problem.has_plane:
        plane = Plane(configuration.toy_problem)
        maps = magnitude_maps(loaded.network, configuration.build_truth(), torch.tensor(MAP_TIMES))
        save(figures.maps_figure(MAP_TIMES, maps, plane, f"{title}\n{plane.note}".rstrip()), folder / "maps.png")
        drawn = time.perf_counter()
        draw_video(loaded, title, folder, keep_frames)
        seconds["video"] = time.perf_counter() - drawn
    else:
        print("  no maps.png and no score_field.mp4: one atom in one dimension has no plane to show a field on")
    seconds["figures"] = time.perf_counter() - began - seconds.get("video", 0.0)
    record.write(seconds)


def draw_samples(x: Tensor, configuration: Configuration, sampling: Sampling, title: str, folder: Path) -> None:
    """Write samples.png and radial_distribution.png."""
    problem, schedule = configuration.toy_problem, configuration.noise_schedule
    title, sigma = f"{title}: {len(x):,} samples, {sampling.time_steps} steps", schedule.sigma(END)
    known = () if sampling.corrector_steps else problem.components  # what the predictor alone reaches
    widths = [(c.weight, sampler_width_ratio(c.width, schedule, sampling.times)) for c in known]
    picture = figures.radial_distribution_figure(radii(problem, x, sigma).numpy(), x[0].numel(), title, widths)
    save(picture, folder / "radial_distribution.png")
    if problem.has_plane:
        plane = Plane(problem)
        points, strays = samples_in(plane, x, schedule)
        title += f"\n{len(points):,} of them lie in the {plane.note}" if plane.is_slice else ""
        picture = figures.samples_figure(points, strays, plane, plane.widths(sigma), problem.stray_radius, title)
        save(picture, folder / "samples.png")


def samples_in(plane: Plane, x: Tensor, schedule: NoiseSchedule) -> tuple[np.ndarray, np.ndarray]:
    """Return those of the samples x that lie in a plane, (n, 2), and which of them are strays, (n,)."""
    x = x[plane.holds(x, sigma := schedule.sigma(END))]
    return x.flatten(1)[:, :2].numpy(), (radii(plane.problem, x, sigma) > plane.problem.stray_radius).numpy()


def draw_score_error(record: Record, folder: Path) -> None:
    """Write score_error.png: the error of the score against time, beside the size of the score itself."""
    found = {label: record.curves[name] for label, name in SCORE_ERRORS.items() if name in record.curves}
    label = "score error: rms of $\\sigma(t)\\,(s_\\theta - s)$"
    save(figures.comparison_figure({"": found}, "diffusion time t", label, record.title), folder / "score_error.png")


def draw_video(loaded: Loaded, title: str, folder: Path, keep_frames: bool = False) -> None:
    """Write score_field.mp4, and its frames as PNG under frames/ where they are to be kept."""
    truth, schedule = loaded.configuration.build_truth(), loaded.configuration.noise_schedule
    picture = ScoreFieldFigure(Field(loaded.configuration.toy_problem, schedule))

    def frames() -> Iterator[np.ndarray]:
        for number, t in enumerate(tqdm(torch.linspace(0, 1, VIDEO_FRAMES), desc="  video", leave=False, disable=None)):
            label = f"{title}     t = {t:.2f}     $\\sigma$ = {schedule.sigma(t):.4f}"
            picture.show_exact(truth, t[None])
            frame = picture.pixels(loaded.network, label)
            if keep_frames:
                save(frame, folder / "frames" / f"frame_{number:03d}.png")
            yield frame

    write_video(frames(), folder / "score_field.mp4")
