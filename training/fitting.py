"""The Lightning trainer of a run, put together. Apart from train.py because importing Lightning takes seconds."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from signal import Signals

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from training import callbacks
from training.data_module import ToyData
from training.lightning_module import MONITOR, ScoreMatching
from utils.plots import views
from utils.runs.loading import Configuration, Run

warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the batches are ready-made tensors
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # a resumed run's own checkpoints
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def fit(run: Run, configuration: Configuration, epochs_done: int = 0) -> Signals | None:
    """Train until the end or early stopping, or until a signal, which is returned."""
    torch.set_num_threads(1)  # two threads are slower than one on matrices this small
    stop = callbacks.StopOnSignal()
    trainer = Trainer(
        max_epochs=configuration.max_epochs,
        accelerator=configuration.accelerator,
        devices=1,
        logger=callbacks.RunLogger(run, epochs_done),
        callbacks=[*_callbacks(run, configuration), stop],
        plugins=[callbacks.WholeFilesOnly()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
    )
    checkpoint = run.last_checkpoint if epochs_done else None
    module, data = ScoreMatching(configuration), ToyData(configuration)
    with disk_errors_once():
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return stop.received


@contextlib.contextmanager
def disk_errors_once() -> Iterator[None]:
    """Print no traceback of TensorBoard's writing thread for a full disk: the training raises the same error."""
    before = threading.excepthook
    threading.excepthook = lambda thread: None if isinstance(thread.exc_value, OSError) else before(thread)
    try:
        yield
    finally:
        threading.excepthook = before


def _callbacks(run: Run, configuration: Configuration) -> list:
    chosen = [
        callbacks.Progress(),
        callbacks.ScoreLine(configuration),
        ModelCheckpoint(run.best_checkpoint.parent, filename="best", monitor=MONITOR, enable_version_counter=False),
        callbacks.LastCheckpoint(run.last_checkpoint),
    ]
    if views.has_plane(configuration.toy_problem):
        chosen.append(callbacks.ScoreField(configuration))
    if configuration.early_stopping_patience is not None:
        chosen.append(EarlyStopping(MONITOR, patience=configuration.early_stopping_patience))
    return chosen
