"""Trains run1 of every experiment side by side: as many at once as there are processors, one thread each.

Each is its own run.sh, and how far it is stands in its curves.csv. After a Ctrl-C all end cleanly.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":  # a Ctrl-C in the seconds that the imports take ends this at once, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tqdm import tqdm

from utils.runs.loading import ROOT, Run, UserError, configure, find_experiments

POLL_SECONDS = 0.3
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}  # the bars are drawn here


class Training:
    """A run.sh at work, with a progress bar on its line of the terminal."""

    def __init__(self, experiment: str, line: int):
        self.experiment, self.line, self.curves = experiment, line, Run(experiment).curves_file
        self.said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed by close)
        script = ROOT / "training" / experiment / "run.sh"
        # In a session of its own, so that a Ctrl-C is for this process alone: one more would end it without saving.
        self.process = subprocess.Popen(
            ["bash", script, "--end-with-stdin"],  # that is a pipe, which closes however this process ends
            stdin=subprocess.PIPE,
            stdout=self.said,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT,
            start_new_session=True,
        )
        epochs = None
        with contextlib.suppress(UserError):  # run.sh says what is wrong
            epochs = configure(experiment).max_epochs
        self.bar = tqdm(total=epochs, desc=experiment, unit="epoch", position=line, leave=False, disable=None)

    def is_over(self) -> bool:
        """Move the bar to where the training is, and return whether that has ended."""
        with contextlib.suppress(OSError):
            rows = self.curves.read_text(encoding="utf-8").count("\n") - 1
            self.bar.update(rows - self.bar.n)
        return self.process.poll() is not None

    def interrupt(self) -> None:
        """End it and all that its run.sh has started; by SIGTERM, since bash may forget a SIGINT while it waits."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def close(self) -> int:
        """Remove the bar, print what the training said, and return its exit status."""
        self.bar.close()
        self.process.stdin.close()
        self.said.seek(0)
        tqdm.write(self.said.read().strip() or f"{self.experiment}: exit status {self.process.returncode}")
        self.said.close()
        return self.process.returncode


def train_all(experiments: list[str], at_once: int) -> int:
    """Train these experiments, so many at once; return 0, 1 where one failed, or 130 after a Ctrl-C or SIGTERM."""
    waiting, running, statuses, interrupted = list(experiments), [], [], False

    def interrupt(*_):  # no exception: that could come between the start of a training and its place in `running`
        nonlocal interrupted
        interrupted = True

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while waiting or running:
            if interrupted:
                interrupted = False
                waiting.clear()
                statuses.append(130)
                for training in running:
                    training.interrupt()
            while waiting and len(running) < at_once:
                line = min(set(range(at_once)) - {training.line for training in running})
                running.append(Training(waiting.pop(0), line))
            time.sleep(POLL_SECONDS)
            for training in [training for training in running if training.is_over()]:
                running.remove(training)
                statuses.append(training.close())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 130 if 130 in statuses else int(any(statuses))


def usable_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> int:
    """Train them all; return the exit status."""
    # The baseline is the quickest: as the last one it leaves no processor idle for long.
    experiments, at_once = find_experiments()[::-1], usable_processors()
    print(f"Training {len(experiments)} experiments, {min(at_once, len(experiments))} at once.", flush=True)
    status = train_all(experiments, at_once)
    if status == 130:
        print("Stopped; what was trained is saved. To go on with all of them: bash run_all.sh", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
