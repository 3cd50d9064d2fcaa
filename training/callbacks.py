"""What happens around the training: progress, pictures for TensorBoard, checkpoints, a clean end on a signal."""

import copy
import io
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tqdm import tqdm

from training.lightning_module import MONITOR, PATH_KL, ScoreMatching
from utils.files import atomic_write
from utils.plots.views import Field, Line
from utils.runs.configuration import Configuration
from utils.runs.curves import Curves
from utils.runs.run import Run
from utils.score.networks import ScoreNetwork

LINE_TIMES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.8, 0.9, 1.0)
FIELD_TIMES = (0.0, 0.3, 0.6, 1.0)
LINE_POINTS = 401
SAVE_EVERY_N_EPOCHS = 10  # a killed run loses at most this many epochs, and repeats them exactly
EVENT_FILES = "events.out.tfevents."  # then the second a file was begun in, the machine, the process, a count


class Progress(Callback):
    """One bar over the epochs, with the losses and the time left."""

    def on_train_start(self, trainer: Trainer, module: ScoreMatching) -> None:
        total, initial, seconds = trainer.max_epochs, trainer.current_epoch, 0.2 if sys.stderr.isatty() else 10.0
        self.bar = tqdm(None, "training", total, initial=initial, unit="epoch", dynamic_ncols=True, mininterval=seconds)

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        loss, validation, path_kl = (module.scalars[n] for n in ("score_matching_loss/training", MONITOR, PATH_KL))
        self.bar.set_postfix_str(f"loss {loss:.4f}, validation {validation:.4f}, path KL {path_kl:.3f}", refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, module: ScoreMatching, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()  # so that the message stands on a line of its own


class LastCheckpoint(Checkpoint):
    """Saves the state from which a training goes on, between epochs only: so a resumed run repeats nothing. Where the
    last weights are the ones to use, they are saved as best.ckpt as well. It is a `Checkpoint` because Lightning calls
    these after the module's own on_train_epoch_end."""

    def __init__(self, run: Run, configuration: Configuration):
        self.path = run.last_checkpoint
        self.best = run.best_checkpoint if configuration.judges_last_weights else None

    best_model_path = property(lambda self: str(self.best) if self.best and self.best.exists() else "")

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        if module.epochs_done % SAVE_EVERY_N_EPOCHS == 0:
            self.on_train_end(trainer, module)

    def on_train_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Save, after the curves: a resumed run repeats none of the epochs before."""
        trainer.logger.save()
        trainer.save_checkpoint(self.best or self.path)
        if self.best:  # before last.ckpt, or a run that is stopped between them counts as finished with older weights
            with atomic_write(self.path) as temporary:
                shutil.copyfile(self.best, temporary)


class StopCleanly(Callback):
    """Stops after the epoch in which Ctrl-C or SIGTERM arrived, or `asked` was set. A second Ctrl-C ends at once. The
    trainer is told between epochs only: in the middle of one it would leave out what remains of it."""

    def __init__(self, asked: threading.Event | None = None):
        self.asked, self.received = asked or threading.Event(), 0

    def on_train_start(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Listen to signals, where this is the main thread of a process: a worker of a sweep is told by `asked`."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self.hear)

    def hear(self, number: int, _: Any) -> None:
        self.received = number
        self.asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        trainer.should_stop = trainer.should_stop or self.asked.is_set()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are renamed into place, so that a reader or a crash never meets half of one."""

    def save_checkpoint(self, checkpoint: dict, path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch's own writer does not say why a full disk took no more
        torch.save(checkpoint, content)
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())


class RunLogger(TensorBoardLogger):
    """TensorBoard's event files and curves.csv, in the run's folder; a resumed run goes on after epochs_done."""

    def __init__(self, run: Run, epochs_done: int):
        folder = run.folder
        earlier = sorted(folder.glob(f"{EVENT_FILES}*"))
        # TensorBoard reads the files in the order of their names, and drops the new epochs for the lost ones where the
        # new file is not the last: of a run that continues within the same second, or by a clock that runs behind.
        if earlier and earlier[-1].name >= f"{EVENT_FILES}{int(time.time()):010d}":
            for place, path in enumerate(earlier):  # to the beginning of time
                rest = path.name.removeprefix(EVENT_FILES).partition(".")[2]
                path.rename(folder / f"{EVENT_FILES}{place:010d}.{rest}")
        super().__init__(folder.parent, name="", version=folder.name, default_hp_metric=False, purge_step=epochs_done)
        self.curves = Curves(run.curves_file, epochs_done)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self.curves.append(step or 0, metrics)

    def save(self) -> None:
        """Write out what is buffered; config.yaml stands beside it, so Lightning's hparams.yaml is not needed."""
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Close the file once: after a Ctrl-C in this moment Lightning asks again, and a closed file is an error."""
        experiment, self._experiment = self._experiment, None
        if experiment is not None:
            experiment.close()

    def add_png(self, tag: str, png: bytes, step: int) -> None:
        """Add a picture that is encoded already; add_image would decode and encode it again."""
        value = Summary.Value(tag=tag, image=Summary.Image(encoded_image_string=png, colorspace=3))
        self.experiment.file_writer.add_summary(Summary(value=[value]), step)


class ScorePicture(Callback):
    """A picture of the score for TensorBoard, every so many epochs. `make` returns the function that draws a network's
    score as PNG, under a title. It imports matplotlib, so it is called only when the first picture is due."""

    def __init__(self, tag: str, every_n_epochs: int, make: Callable[[], Callable[[ScoreNetwork, str], bytes]]):
        self.tag, self.every_n_epochs, self.make = tag, every_n_epochs, cache(make)

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        if module.epochs_done % self.every_n_epochs == 0:
            network = module.judged if module.device.type == "cpu" else copy.deepcopy(module.judged).cpu()
            png = self.make()(network, f"{module.epochs_done} epochs")
            trainer.logger.add_png(self.tag, png, trainer.current_epoch)


def line_picture(configuration: Configuration) -> Callable[[ScoreNetwork, str], bytes]:
    """Return what draws the score along a line through two modes, at eight times."""
    from utils.plots.score_field import ScoreLineFigure

    line = Line(configuration.toy_problem, LINE_POINTS)
    return ScoreLineFigure(line, configuration.build_truth(), torch.tensor(LINE_TIMES)).png


def field_picture(configuration: Configuration) -> Callable[[ScoreNetwork, str], bytes]:
    """Return what draws the score over the torus, beside the exact one, at four times."""
    from utils.plots.score_field import ScoreFieldFigure

    field, times = Field(configuration.toy_problem, configuration.noise_schedule), torch.tensor(FIELD_TIMES)
    figure = ScoreFieldFigure(field, times)
    figure.show_exact(configuration.build_truth(), times)
    return figure.png
