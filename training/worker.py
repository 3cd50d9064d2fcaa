"""What a Dask worker does: trains and evaluates one run after another, in its own process.

Told to stop, a worker finishes the epoch and saves; Dask gives the run to another one, which continues it. Killed, it
loses the epochs since the last checkpoint: the lock on the run ends with the process, and the next worker continues.
"""

import asyncio
import contextlib
import ctypes
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Reschedule, Worker, WorkerPlugin, get_worker
from tqdm import tqdm

SECONDS_TO_SAVE = 20.0  # a training saves after its epoch, within a second


class Trainings(WorkerPlugin):
    """Trains and evaluates runs of the repository at `root`, which all machines see under the same path."""

    def __init__(self, root: str):
        self.root = root

    def setup(self, worker: Worker) -> None:
        """Make the repository importable; torch and Lightning are imported once, by the first run."""
        self.stop, self.training = threading.Event(), threading.Lock()
        if worker.nanny:  # SLURM ends a job with a signal to all of its processes; the nanny says when to stop
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tqdm.set_lock(threading.RLock())  # for threads alone: Python warns of one for processes where they are killed
        sys.path.insert(0, self.root)
        with contextlib.suppress(AttributeError):  # where there is glibc: Dask makes it return freed memory at once,
            for threshold in (-1, -3):  # for trimming and mapping; and an evaluation takes three times as long
                ctypes.CDLL(None).mallopt(threshold, 2**25)

    async def teardown(self, worker: Worker) -> None:
        """Let the run that is being trained save, and start no other."""
        self.stop.set()
        patience = time.monotonic() + SECONDS_TO_SAVE
        while self.training.locked() and time.monotonic() < patience:
            await asyncio.sleep(0.05)

    def work(self, experiment: str, name: str, overrides: list[str], sampling: dict[str, Any], output: str) -> str:
        """Train a run, evaluate it, and return what went wrong, or nothing; what it prints goes to its log.

        With `output` everything that an analysis makes of a run is written there, else metrics.json beside the run.
        """
        from utils.files import UserError, error_message
        from utils.runs.run import ANALYTICAL, Run
        from utils.runs.store import evaluated
        from utils.score.samplers import Sampling

        run = Run(experiment, name)
        run.log_file.parent.mkdir(parents=True, exist_ok=True)
        with run.log_file.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                if experiment != ANALYTICAL:
                    self.train(run, overrides)
                if output:
                    from utils.reports.experiment import analyse_run  # and matplotlib

                    analyse_run(run, Sampling(**sampling), Path(output), again=False)
                else:
                    evaluated(run, Sampling(**sampling))
            except Reschedule:
                raise
            except Exception as error:  # this run has failed, the others need not
                print(error_message(error) if isinstance(error, UserError) else traceback.format_exc())
                return error_message(error)
        return ""

    def train(self, run: Any, overrides: list[str]) -> None:
        """Train until the run is finished; raises Reschedule where this worker is to stop before."""
        from training.train import RunIsBusy, train
        from utils.runs.loading import configure

        with self.training:
            while not self.stop.is_set():
                try:
                    if train(run, configure(run.experiment, overrides), overrides=overrides, stop=self.stop) == 0:
                        return
                except RunIsBusy:  # a killed worker's process that is about to end, or another sweep
                    time.sleep(0.2)
        raise Reschedule


def task(plugin: str) -> Callable[..., str]:
    """Return a function that calls `work` of this plugin of the worker it runs on."""
    return lambda *words: get_worker().plugins[plugin].work(*words)  # type: ignore[attr-defined]


# So a worker on another machine need not be able to import this module before the plugin's setup.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
