"""What happens around the training: progress, pictures for TensorBoard, checkpoints, a clean end on a signal."""

import copy
import io
import signal
import sys
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tqdm import tqdm

from training.lightning_module import MONITOR, PATH_KL, ScoreMatching
from utils.files import replacing
from utils.plots import views
from utils.plots.experiment_figures import ScoreFieldFigure, ScoreLineFigure
from utils.runs.curves import Curves
from utils.runs.loading import Configuration, Run
from utils.score.networks import ScoreNetwork

LINE_TIMES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.8, 0.9, 1.0)
FIELD_TIMES = (0.0, 0.3, 0.6, 1.0)
LINE_POINTS = 401
SAVE_EVERY_N_EPOCHS = 10  # a killed run loses at most this many epochs, and repeats them exactly


class Progress(Callback):
    """One bar over the epochs, with the losses and the time left."""

    def on_train_start(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Open the bar where a resumed run goes on."""
        self.bar = tqdm(
            total=trainer.max_epochs,
            initial=trainer.current_epoch,
            unit="epoch",
            desc="training",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Move the bar on."""
        loss, validation = module.scalars["score_matching_loss/training"], module.scalars[MONITOR]
        path_kl = module.scalars[PATH_KL]
        self.bar.set_postfix_str(f"loss {loss:.4f}, validation {validation:.4f}, path KL {path_kl:.3f}", refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: Trainer, module: ScoreMatching, exception: BaseException) -> None:
        """Close the bar, so that the message stands on a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()


class LastCheckpoint(Checkpoint):
    """Saves the state from which a training goes on, between epochs only: so a resumed run repeats nothing."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Save from time to time."""
        if module.epochs_done % SAVE_EVERY_N_EPOCHS == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Save when the training is finished, or was stopped by a signal."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save, after the curves: a resumed run repeats none of the epochs before."""
        trainer.logger.save()
        trainer.save_checkpoint(self.path)


class StopOnSignal(Callback):
    """Ctrl-C or SIGTERM: the epoch is finished, the state saved. A second Ctrl-C ends at once.

    The trainer is told between epochs only: in the middle of one it would leave out what remains of it.
    """

    received: signal.Signals | None = None

    def on_train_start(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Listen."""

        def stop(number, _):
            self.received = signal.Signals(number)
            signal.signal(signal.SIGINT, signal.default_int_handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Begin no other epoch."""
        trainer.should_stop = trainer.should_stop or self.received is not None


class WholeFilesOnly(TorchCheckpointIO):
    """Checkpoints that are renamed into place, so that a reader or a crash never meets half of one."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        """Write beside the final name, then rename."""
        content = io.BytesIO()  # torch's own writer does not say why a full disk took no more
        torch.save(checkpoint, content)
        with replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())


EVENT_FILES = "events.out.tfevents."  # then the second a file was begun in, the machine, the process, a count


def put_earlier_events_first(folder: Path) -> None:
    """See that a resumed run's next event file is read last, or TensorBoard drops the new epochs for the lost ones.

    It reads the files in the order of their names. Where the clock was set back, runs behind that of the machine
    that began the run, or still shows the same second, the earlier files are renamed to the beginning of time.
    """
    earlier = sorted(folder.glob(f"{EVENT_FILES}*"))
    if earlier and earlier[-1].name >= f"{EVENT_FILES}{int(time.time()):010d}":
        for place, path in enumerate(earlier):
            _, _, rest = path.name.removeprefix(EVENT_FILES).partition(".")
            path.rename(folder / f"{EVENT_FILES}{place:010d}.{rest}")


class RunLogger(TensorBoardLogger):
    """TensorBoard's event files and curves.csv, in the run's folder; a resumed run goes on after epochs_done."""

    def __init__(self, run: Run, epochs_done: int):
        folder = run.folder
        put_earlier_events_first(folder)
        super().__init__(folder.parent, name="", version=folder.name, default_hp_metric=False, purge_step=epochs_done)
        self.curves = Curves(run.curves_file, epochs_done)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Write the scalars of an epoch to both."""
        super().log_metrics(metrics, step)
        self.curves.append(step, metrics)

    def save(self) -> None:
        """Write out what is buffered; config.yaml stands beside it, so Lightning's hparams.yaml is not needed."""
        self.experiment.flush()

    def add_png(self, tag: str, png: bytes, step: int) -> None:
        """Add a picture that is encoded already; add_image would decode and encode it again."""
        value = Summary.Value(tag=tag, image=Summary.Image(encoded_image_string=png, colorspace=3))
        self.experiment.file_writer.add_summary(Summary(value=[value]), step)


class ScorePicture(Callback):
    """A picture of the score for TensorBoard, every so many epochs; a subclass says of what."""

    tag: str

    def __init__(self, every_n_epochs: int):
        self.every_n_epochs = every_n_epochs

    def draw(self, network: ScoreNetwork, title: str) -> bytes:
        """Return the PNG of the network's score."""
        raise NotImplementedError

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Draw on the CPU, whatever the training runs on."""
        if module.epochs_done % self.every_n_epochs == 0:
            network = module.network if module.device.type == "cpu" else copy.deepcopy(module.network).cpu()
            png = self.draw(network, f"{module.epochs_done} epochs")
            trainer.logger.add_png(self.tag, png, trainer.current_epoch)


class ScoreLine(ScorePicture):
    """The score along the line through both modes, at eight times."""

    tag = "score_along_the_line"

    def __init__(self, configuration: Configuration):
        super().__init__(configuration.score_viewer.every_n_epochs)
        self.configuration, self.times = configuration, torch.tensor(LINE_TIMES)
        self.positions, self.x, self.direction = views.line_through_modes(configuration.toy_problem, LINE_POINTS)

    @cached_property  # at the first picture, for it takes half a second
    def figure(self) -> ScoreLineFigure:
        """The figure, with all but the model's lines drawn."""
        problem, sigma = self.configuration.toy_problem, self.configuration.noise_schedule.sigma(self.times)
        gaussian, in_distribution = views.gaussian_along_line(problem, self.x, self.direction, sigma)
        exact = views.along_line(self.configuration.build_truth(), self.x, self.direction, self.times)
        arrays = (self.positions, self.times, exact, gaussian, in_distribution)
        return ScoreLineFigure(*(array.numpy() for array in arrays))

    def draw(self, network: ScoreNetwork, title: str) -> bytes:
        """Return the PNG of the network's score along the line."""
        return self.figure.png(views.along_line(network, self.x, self.direction, self.times).numpy(), title)


class ScoreField(ScorePicture):
    """The score over the torus, beside the exact one, at four times."""

    tag = "score_field"

    def __init__(self, configuration: Configuration):
        super().__init__(configuration.score_viewer.field_every_n_epochs)
        self.truth, self.times = configuration.build_truth(), torch.tensor(FIELD_TIMES)
        self.field = views.Field(configuration.toy_problem, configuration.noise_schedule)

    @cached_property
    def figure(self) -> ScoreFieldFigure:
        """The figure, with the exact score's arrows and laws drawn."""
        figure = ScoreFieldFigure(self.field.points, self.field.grid, self.field.modes, FIELD_TIMES)
        figure.show_exact(self.arrows(self.truth), np.stack([self.field.log_density(t) for t in self.times]))
        return figure

    def arrows(self, network: ScoreNetwork) -> np.ndarray:
        """Return the arrows at all times, (time, point, 2)."""
        return np.stack([self.field.arrows(network, t) for t in self.times])

    def draw(self, network: ScoreNetwork, title: str) -> bytes:
        """Return the PNG of the network's field."""
        return self.figure.png(self.arrows(network), title)
