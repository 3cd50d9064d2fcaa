"""What the analysis does most: samples, and frames of the video."""

import tempfile
from pathlib import Path

import torch

from benchmarks.timing import medians
from utils.plots import experiment_figures as figures
from utils.plots import views
from utils.reports.experiment import VIDEO_FRAMES, Sampling, draw_video
from utils.runs.loading import configure

SAMPLES, STEPS = 10_000, (50, 100)


def sampling_seconds(repeats: int = 3) -> dict[int, float]:
    """Return the seconds of drawing SAMPLES samples by number of predictor steps."""
    configuration = configure("no_regularizer")
    network = configuration.build_network()
    kinds = {str(n): Sampling(SAMPLES, n, corrector_steps=0, start="uniform", seed=0) for n in STEPS}
    found = medians({n: lambda s=s: s.draw(network, configuration) for n, s in kinds.items()}, repeats)
    return {int(n): seconds for n, seconds in found.items()}


def frame_seconds(repeats: int = 2) -> dict[str, float]:
    """Return the seconds of a frame of score_field.mp4, 1920 x 1080, drawn, and drawn and encoded."""
    configuration = configure("no_regularizer")
    network, truth = configuration.build_network(), configuration.build_truth()
    field = views.Field(configuration.toy_problem, configuration.noise_schedule)
    picture = figures.ScoreFieldFigure(field.points, field.grid, field.modes)

    def draw():
        for t in torch.linspace(0, 1, VIDEO_FRAMES):
            picture.frame("title", field.arrows(network, t), field.arrows(truth, t), field.log_density(t))

    with tempfile.TemporaryDirectory() as folder:
        actions = {
            "drawn": draw,
            "drawn and encoded": lambda: draw_video(network, configuration, "title", Path(folder)),
        }
        return {name: seconds / VIDEO_FRAMES for name, seconds in medians(actions, repeats).items()}
