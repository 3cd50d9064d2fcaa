"""What a Dask worker does in a sweep: starts trainings, one process each, and leaves none behind.

A worker may be told to stop, or be killed. Told to stop, it sends its trainings a SIGTERM, so they save where they are.
Killed, it sends nothing; but each training's standard input is a pipe that it holds the other end of, and a training
stops when that closes (see train.py). Its log is locked as long as any process has it open, so when Dask gives the run
to another worker, the new process waits until the old one is gone.
"""

import asyncio
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cloudpickle
from distributed import Reschedule, WorkerPlugin, get_worker

SECONDS_TO_SAVE = 20.0  # a training saves after its epoch, within a second; one that hangs is killed
LAST_LINES = 8


class Trainings(WorkerPlugin):
    """The trainings that a worker has started. Dask gives one to each worker, and takes it away to end them."""

    def setup(self, worker) -> None:
        """Begin with none."""
        self.processes: set[subprocess.Popen] = set()
        self.stopping, self.lock = False, threading.Lock()

    async def teardown(self, worker) -> None:
        """End them all, and start no others."""
        with self.lock:
            self.stopping, processes = True, list(self.processes)
        for process in processes:
            process.terminate()
        patience = time.monotonic() + SECONDS_TO_SAVE
        while any(process.poll() is None for process in processes):
            await asyncio.sleep(0.05)
            if time.monotonic() > patience:
                for process in processes:
                    process.kill()

    def train(self, words: list[str], root: str, log: str) -> tuple[int, str]:
        """Train in a process of its own; return its exit status and the last lines that it said."""
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            self.take(file)
            process = self.start(words, root, file)
        status = process.wait()
        with self.lock:
            process.stdin.close()
            self.processes.discard(process)
        if status and self.stopping:
            raise Reschedule  # it was this worker that had to end, not the training
        return status, "\n".join(Path(log).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])

    def take(self, file) -> None:
        """Wait until no other process trains this run."""
        while not self.stopping:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)

    def start(self, words: list[str], root: str, file) -> subprocess.Popen:
        """Start the process, with one thread: there are as many workers as processors."""
        with self.lock:
            if self.stopping:
                raise Reschedule
            process = subprocess.Popen(
                [sys.executable, "-m", "training.train", "--end-with-stdin", *words],
                cwd=root,
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for the sweep, which passes it on
            )
            self.processes.add(process)
        return process


def task(plugin: str) -> Callable[[list[str], str, str], tuple[int, str]]:
    """Return a function that calls `train` of this plugin of the worker it runs on.

    Since it is made here, it reaches a worker by its content, and so does the plugin: a worker need not find this
    module, only the folders of the runs.
    """

    def train(words: list[str], root: str, log: str) -> tuple[int, str]:
        return get_worker().plugins[plugin].train(words, root, log)

    return train


cloudpickle.register_pickle_by_value(sys.modules[__name__])
