"""What happens around the training: progress, pictures for TensorBoard, checkpoints, a clean end on a signal."""

import signal
import sys
from pathlib import Path

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tqdm import tqdm

from training.lightning_module import MONITOR, ScoreMatching
from utils import views
from utils.experiments import Configuration
#from utils.figures import ScoreLineFigure, score_field_png
from utils.files import replacing

LINE_TIMES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.8, 0.9, 1.0)
FIELD_TIMES = (0.0, 0.3, 0.6, 1.0)
SAVE_EVERY_N_EPOCHS = 10  # a killed run loses at most this many epochs, and repeats them exactly


class Progress(Callback):
    """One bar over the epochs, with the losses and the time left."""

    def on_train_start(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Open the bar where a resumed run goes on."""
        self.bar = tqdm(
            total=trainer.max_epochs, initial=trainer.current_epoch, unit="epoch", desc="training", dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Move the bar on."""
        loss, validation = module.scalars["score_matching_loss/training"], module.scalars[MONITOR]
        path_kl = module.scalars["path_kl_in_nats/validation"]
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
        if (trainer.current_epoch + 1) % SAVE_EVERY_N_EPOCHS == 0:
            trainer.save_checkpoint(self.path)

    def on_train_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Save when the training is finished, or was stopped by a signal."""
        trainer.save_checkpoint(self.path)


class StopOnSignal(Callback):
    """Ctrl-C or SIGTERM: the epoch is finished, the state saved. A second Ctrl-C ends at once."""

    received: signal.Signals | None = None

    def on_train_start(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Listen."""

        def stop(number, _):
            self.received = signal.Signals(number)
            trainer.should_stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)


class WholeFilesOnly(TorchCheckpointIO):
    """Checkpoints that are renamed into place, so that a reader or a crash never meets half of one."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        """Write beside the final name, then rename."""
        with replacing(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class RunLogger(TensorBoardLogger):
    """TensorBoard's event files, in the run's folder."""

    def save(self) -> None:
        """Write out what is buffered; config.yaml stands beside it, so Lightning's hparams.yaml is not needed."""
        self.experiment.flush()

    def add_png(self, tag: str, png: bytes, step: int) -> None:
        """Add a picture that is encoded already; add_image would decode and encode it again."""
        value = Summary.Value(tag=tag, image=Summary.Image(encoded_image_string=png, colorspace=4))
        self.experiment.file_writer.add_summary(Summary(value=[value]), step)


class ScoreLine(Callback):
    """The score along the line through both modes, at eight times."""

    def __init__(self, configuration: Configuration):
        problem, truth = configuration.toy_problem, configuration.build_truth()
        self.every = configuration.score_viewer.every_n_epochs
        self.times = torch.tensor(LINE_TIMES)
        positions, self.x, self.direction = views.line_through_modes(problem, 401)
        sigma = configuration.noise_schedule.sigma(self.times)
        gaussian, in_distribution = views.gaussian_along_line(problem, self.x, self.direction, sigma)
        self.figure = ScoreLineFigure(
            positions.numpy(),
            self.times.numpy(),
            views.along_line(truth, self.x, self.direction, self.times).numpy(),
            gaussian.numpy(),
            in_distribution.numpy(),
        )

    def on_train_epoch_end(self, trainer: Trainer, module: ScoreMatching) -> None:
        """Draw the model's line."""
        if (trainer.current_epoch + 1) % self.every == 0:
            device = module.device
            line = views.along_line(
                module.network, self.x.to(device), self.direction.to(device), self.times.to(device)
            )
            png = self.figure.png(line.cpu().numpy(), f"epoch {trainer.current_epoch}")
            trainer.logger.add_png("score_along_the_line", png, trainer.current_epoch)
