"""Trains in forked processes and sends them signals at random moments; prints what came of it as JSON.

`python killed.py '[["no_regularizer", "max_epochs=30"], ...]' 9 9 15` in the root of a clone. Lightning is imported
once, before the forks: so a kill takes a second instead of six.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from training import fitting, train  # noqa: F401  (fitting imports Lightning)
from utils.runs.loading import Run, read_checkpoint


def forked(words, number=None, moment=0.0):
    """Train in a process of its own; return its status and how long it took, since the signal where it got one."""
    began, process = time.time(), os.fork()
    if not process:
        log = os.open("killed.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = train.main(words)
        sys.stdout.flush()
        os._exit(status)
    if number is not None:
        time.sleep(moment)
        began = time.time()
        os.kill(process, number)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return status, time.time() - began


def interrupted(words, number, moment):
    """Send the training a signal, then give the same command again; return what is to be checked."""
    status, seconds = forked(words, number, moment)
    last = Run(words[0], words[2]).last_checkpoint
    found = read_checkpoint(last)["epochs_done"] if last.exists() else 0  # raises where it is damaged
    return {"signal": number, "status": status, "seconds": seconds, "epochs": found, "again": forked(words)[0]}


if __name__ == "__main__":
    commands, chance = json.loads(sys.argv[1]), random.Random()
    duration = {words[0]: forked([words[0], "--run-name", "whole", *words[1:]])[1] for words in commands}
    results = {}
    for count, number in enumerate(map(int, sys.argv[2:])):
        experiment, *settings = commands[count % len(commands)]
        words, moment = [experiment, "--run-name", f"killed{count}", *settings], chance.uniform(0, duration[experiment])
        results[str(Run(experiment, words[2]).folder)] = interrupted(words, number, moment) | {"moment": moment}
    print(json.dumps({"duration": duration, "results": results, "log": Path("killed.log").read_text()}))
