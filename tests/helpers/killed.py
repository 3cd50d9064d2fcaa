"""Trains in forked processes, and ends some of them with a signal.

Started in the root of a copy of the repository, it reads a line of JSON for each training, and answers with its status
and what it printed. Lightning is imported once, before the forks: so a run that is killed takes a second, not six.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from training import callbacks, train
from utils.runs.curves import epochs_written
from utils.runs.run import Run

callbacks.SAVE_EVERY_N_EPOCHS = 3  # so a short run has saved something when it is killed
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as training.train has it from its first line on


def forked(words, number=0, epochs=0, wait=0.0):
    """Train in a process of its own, which gets a signal so many seconds after so many epochs are written."""
    process, status = os.fork(), 1
    if not process:
        log = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            status = train.main(words)
        finally:
            sys.stdout.flush()
            os._exit(status)
    if number:
        curves, has_ended = Run(words[0], words[2]).curves_file, os.WEXITED | os.WNOHANG | os.WNOWAIT
        while epochs_written(curves) < epochs and not os.waitid(os.P_PID, process, has_ended):
            time.sleep(0.003)
        time.sleep(wait)
        os.kill(process, number)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), Path("said.txt").read_text()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(forked(**json.loads(line))), flush=True)
