"""What happens around a training: pictures, checkpoints, event files, and a clean end when it is asked for."""

import io
import runpy
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import snapshot
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter
from trained import SMALL, events, train

from training.callbacks import SAVE_EVERY_N_EPOCHS, AtomicCheckpointIO
from training.lightning_module import ScoreMatching
from training.train import train as train_run
from utils.files import UserError
from utils.runs.checkpoints import read_checkpoint
from utils.runs.loading import configure
from utils.runs.run import Run

pytestmark = pytest.mark.usefixtures("training")


def test_pictures_can_be_looked_at(clone):
    _, images = events(clone / "training" / "no_regularizer" / "output" / "run1")
    sizes = {"score_along_the_line": (1100, 580), "score_field": (1452, 902)}  # inches times dots per inch
    assert images.keys() == sizes.keys()
    for tag, size in sizes.items():
        assert [event.step for event in images[tag]] == [1, 3]  # after the second and the fourth epoch
        first, second = (Image.open(io.BytesIO(event.encoded_image_string)) for event in images[tag])
        assert first.format == "PNG" and first.size == second.size == size and first != second
        assert first.convert("L").getextrema() == second.convert("L").getextrema() == (0, 255)  # neither is blank


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # of runpy
def test_training_without_pictures_imports_nothing_that_draws(monkeypatch):
    monkeypatch.setitem(sys.modules, "utils.plots.score_field", None)  # to import it now is an ImportError
    for module in ("callbacks", "fitting"):
        runpy.run_module(f"training.{module}")
    assert train("max_epochs=1") == 0
    with pytest.raises(ImportError):
        train("max_epochs=1", "--run-name", "drawn", "score_viewer.every_n_epochs=1")


def test_what_a_checkpoint_does_not_repeat_is_on_disk(monkeypatch):
    """Or a run that is killed then has a gap in its curves. A thread writes them, and the disk may be slow."""
    save, write, found = AtomicCheckpointIO.save_checkpoint, RecordWriter.write, []

    def look_and_save(self, checkpoint, path, storage_options=None):
        if Path(path).name == "best.ckpt":
            found.append((checkpoint["epochs_done"], len(events(Path(path).parent.parent)[0]["learning_rate"])))
        save(self, checkpoint, path, storage_options)

    def write_slowly(self, data):
        time.sleep(0.01)
        write(self, data)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", look_and_save)
    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    assert train(f"max_epochs={SAVE_EVERY_N_EPOCHS + 2}") == 0
    assert found == [(epochs, epochs) for epochs in (SAVE_EVERY_N_EPOCHS, SAVE_EVERY_N_EPOCHS + 2)]


def test_training_stops_after_the_epoch_in_which_it_is_asked_to_and_keeps_its_end(monkeypatch, capsys):
    """It is asked to in another thread, as a sweep does."""
    stop, run = threading.Event(), Run("no_regularizer")
    configuration, longer = (configure("no_regularizer", [*SMALL, f"max_epochs={epochs}"]) for epochs in (4, 6))
    monkeypatch.setattr(ScoreMatching, "on_train_epoch_start", lambda module: module.current_epoch == 1 and stop.set())
    assert ThreadPoolExecutor(1).submit(train_run, run, configuration, stop=stop).result() == 1
    assert f"{run.title}: stopped after 2 epochs. To continue: {run.command}\n" in capsys.readouterr().out
    assert read_checkpoint(run.last_checkpoint)["epochs_done"] == 2
    with pytest.raises(UserError, match="max_epochs: 4 in the run, 6 now\nChoose"):
        train_run(run, longer)
    assert train_run(run, configuration) == 0
    before, reason = snapshot(run.folder), "under the schedule cosine the learning rate depends on it"
    with pytest.raises(UserError, match=rf"max_epochs: 4 in the run, 6 now\n  \({reason}"):
        train_run(run, longer)
    assert snapshot(run.folder) == before


def test_signal_handlers_are_what_they_were_after_a_training():
    numbers, run = (signal.SIGINT, signal.SIGTERM), Run("no_regularizer")
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        assert train_run(run, configure("no_regularizer", [*SMALL, "max_epochs=1"])) == 0
        with pytest.raises(UserError, match="infinite"):
            train_run(run, configure("no_regularizer", [*SMALL, "optimizer.learning_rate=1e25"]), from_scratch=True)
        assert [*map(signal.getsignal, numbers)] == [signal.SIG_IGN, signal.SIG_IGN]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
