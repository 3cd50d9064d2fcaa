"""Why the consistency regularizer runs away: what it does to the network during a training, in bins of time.

    python -m findings.study.run_away FILE [key=value ...]

trains consistency_regularizer with these settings and adds rows to FILE. The penalty pulls N(x, t) towards the mean of
its target N* = sigma_t grad log K(x_t | x_t'). The slope of N* against N says where to: above 1 the target lies further
out than N itself, and N grows without end, unless the data hold it.
"""

import csv
import itertools
import sys
from pathlib import Path

import torch
from pytorch_lightning import Callback

from training import fitting
from training.train import train
from utils.physics.torus import displacement, wrapped_normal_score
from utils.randomness import keyed_generator
from utils.runs.loading import configure
from utils.runs.run import Run
from utils.sweeps.plan import tag

BINS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
POINTS = 4_000
EVERY_N_EPOCHS = 20
COLUMNS = ("settings", "epoch", "t_from", "t_to", "points", "rms_of_N", "rms_of_exact_N", "rms_of_error", "slope")


class Watch(Callback):
    """Collects a row for each bin of time and kind of points."""

    def __init__(self, settings: str):
        self.settings, self.rows = settings, []

    @torch.no_grad()
    def on_train_epoch_end(self, trainer, module):
        if module.epochs_done % EVERY_N_EPOCHS == 0:
            for interval in itertools.pairwise(BINS):
                for where in ("uniform", "noised"):
                    numbers = [f"{number:.4g}" for number in measure(module, *interval, where)]
                    self.rows.append([self.settings, module.epochs_done, *interval, where, *numbers])


def measure(module, start, end, where):
    """Return rms of N, of the exact N and of their difference, and the slope of the target N* against N."""
    generator, network, truth = keyed_generator(0, f"run away, {where}"), module.network, module.truth
    t = start + (end - start) * torch.rand(POINTS, generator=generator)
    x = truth.problem.sample_noised(truth.schedule.sigma(t), generator)
    rule = module.configuration.regularizer.model_copy(update={"points": where, "batch_size": None})
    x, t = rule.choose_points(x, t, generator)
    ours, exact = network(x, t), truth(x, t)
    x, times, output, (reached,) = rule._trajectories(1, network, x, t, truth, generator)
    earlier, sigma = network.schedule.sigma(times[[0, -1]])[..., None, None]
    target = sigma * wrapped_normal_score(displacement(x, reached), (sigma**2 - earlier**2).sqrt())
    slope = (output * target).mean() / output.square().mean()
    return [*(a.square().mean().sqrt().item() for a in (ours, exact, ours - exact)), slope.item()]


def main(path: Path, overrides: list[str]) -> None:
    """Train once and add the rows."""
    settings = tag(dict(word.split("=", 1) for word in overrides))
    watch, callbacks = Watch(settings), fitting._callbacks
    fitting._callbacks = lambda *given: [*callbacks(*given), watch]
    viewer = [f"score_viewer.{name}=1000000" for name in ("every_n_epochs", "field_every_n_epochs")]
    configuration = configure("consistency_regularizer", [*overrides, *viewer])
    train(Run("consistency_regularizer", f"run_away/{settings}"), configuration, from_scratch=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not path.stat().st_size:
            writer.writerow(COLUMNS)
        writer.writerows(watch.rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
