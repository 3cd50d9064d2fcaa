"""Trains in forked processes, and ends some of them with a signal.

Started in the root of a copy of the repository, it reads a line of JSON from standard input for each training, and
answers with one: its exit status and what it printed. Lightning is imported once, before the forks: so a run that is
killed takes a second instead of six.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from training import fitting, train  # noqa: F401  (fitting imports Lightning)
from utils.runs.curves import epochs_written
from utils.runs.loading import Run

signal.signal(signal.SIGINT, signal.SIG_DFL)  # as training.train has it from its first line on


def forked(experiment, name, words, number=0, epochs=0, wait=0.0):
    """Train in a process of its own, which gets a signal so many seconds after so many epochs are written."""
    process = os.fork()
    if not process:
        log = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            status = train.main([experiment, "--run-name", name, *words])
        except SystemExit as error:
            status = error.code or 0
        print("matplotlib is imported" if "matplotlib" in sys.modules else "")
        sys.stdout.flush()
        os._exit(status)
    if number:
        while epochs_written(Run(experiment, name).curves_file) < epochs and not has_ended(process):
            time.sleep(0.003)
        time.sleep(wait)
        os.kill(process, number)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return status, Path("said.txt").read_text()


def has_ended(process):
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(forked(**json.loads(line))), flush=True)
