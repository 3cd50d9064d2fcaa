"""The Lightning trainer of a run, put together. Separate from train.py because importing Lightning takes seconds."""

import gc
import logging
import os
import threading
import warnings
from functools import partial

import torch

os.environ["MPLBACKEND"] = "agg"  # torchmetrics imports pyplot, and that loads whatever a notebook has set

from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from training import callbacks
from training.data_module import ToyData
from training.lightning_module import MONITOR, ScoreMatching
from utils.files import signals_to
from utils.runs.configuration import Configuration
from utils.runs.run import Run

for nothing_to_change in (
    ".*does not have many workers.*",  # the batches are ready-made tensors
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*exists and is not empty.*",  # a resumed run's own checkpoints
    "The `srun` command is available",  # a run is one process, also there
    "GPU available but not used",  # the processor is as fast on this problem
):
    warnings.filterwarnings("ignore", message=nothing_to_change)
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def fit(run: Run, configuration: Configuration, epochs_done: int = 0, stop: threading.Event | None = None) -> int:
    """Train until the end or early stopping, or until a signal or `stop`; return the number of the signal, or 0."""
    torch.set_num_threads(1)  # two threads are slower than one on matrices this small
    # Lightning takes a rank, arguments that are not given, and with SLURM other checkpoints from the environment.
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    for name in [name for name in os.environ if name.startswith(("PL_", "SLURM_"))]:
        del os.environ[name]
    stopping = callbacks.StopCleanly(stop)
    trainer = Trainer(
        max_epochs=configuration.max_epochs,
        accelerator=configuration.accelerator,
        devices=1,
        default_root_dir=run.folder,
        logger=callbacks.RunLogger(run, epochs_done),
        callbacks=[*_callbacks(run, configuration), stopping],
        # One process on one device, whatever cluster or launcher this machine shows: Lightning guesses nothing.
        plugins=[callbacks.AtomicCheckpointIO(), LightningEnvironment()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
    )
    checkpoint = run.last_checkpoint if epochs_done else None
    module, data = ScoreMatching(configuration), ToyData(configuration)
    # For a full disk TensorBoard's writing thread prints no traceback: the training raises the same error.
    before = threading.excepthook
    threading.excepthook = lambda thread: None if isinstance(thread.exc_value, OSError) else before(thread)
    try:
        with signals_to():
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            del trainer, module, data
            gc.collect()  # now, while signals are only noted: one that raises in a destructor of Lightning's is lost
    except SystemExit as error:  # Lightning's answer to a Ctrl-C that no epoch waits for
        raise KeyboardInterrupt from error
    finally:
        threading.excepthook = before
    return stopping.received


def _callbacks(run: Run, configuration: Configuration) -> list:
    viewer, patience = configuration.score_viewer, configuration.early_stopping_patience
    line, field = (partial(make, configuration) for make in (callbacks.line_picture, callbacks.field_picture))
    chosen = [
        callbacks.Progress(),
        callbacks.ScorePicture("score_along_the_line", viewer.every_n_epochs, line),
        callbacks.LastCheckpoint(run, configuration),
    ]
    if not configuration.judges_last_weights:
        folder = run.best_checkpoint.parent
        chosen.insert(0, ModelCheckpoint(folder, filename="best", monitor=MONITOR, enable_version_counter=False))
    if configuration.toy_problem.has_plane:
        chosen.append(callbacks.ScorePicture("score_field", viewer.field_every_n_epochs, field))
    return chosen if patience is None else [*chosen, EarlyStopping(MONITOR, patience=patience)]
