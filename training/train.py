"""Trains one experiment: merge and validate the configuration, then start, continue or leave the run."""

import signal

if __name__ == "__main__":  # a Ctrl-C in the seconds that the imports take ends this at once, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Sequence

import torch

from utils.files import UserError, locked, run_command
from utils.runs.checkpoints import load_run, read_state, why_finished
from utils.runs.configuration import Configuration, difference
from utils.runs.curves import rise_of_validation_loss, what_ran_away
from utils.runs.loading import configure, read_configuration
from utils.runs.run import ANALYTICAL, PUBLISHED, Run


class RunIsBusy(UserError):
    """Another process trains this run."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line of run.sh."""
    parser = argparse.ArgumentParser(
        prog="run.sh",
        description="Trains the experiment in whose folder run.sh stands. The configuration is ../base_config.yaml, "
        "then specific_config.yaml, then the key=value pairs given here; it is written beside the run and here as "
        "config.yaml. The same command again continues an interrupted run and leaves a finished one alone. "
        "Ctrl-C ends the training cleanly, with a checkpoint.",
        epilog="example: bash run.sh --run-name short max_epochs=50 optimizer.learning_rate=5e-4",
    )
    parser.add_argument("experiment", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that override the YAML files")
    parser.add_argument("--run-name", default="run1", help="folder under output/ (default: run1)")
    parser.add_argument("--from-scratch", action="store_true", help="remove what the run has so far and start over")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    options = parse_arguments(arguments)

    def action() -> int:
        if options.experiment == ANALYTICAL:
            raise UserError(f"{ANALYTICAL} is the exact score: there is nothing to train")
        if options.run_name == PUBLISHED:
            raise UserError(f"--run-name {PUBLISHED} names the weights that come with the code; choose another")
        configuration = configure(options.experiment, options.overrides)
        return train(Run(options.experiment, options.run_name), configuration, options.from_scratch, options.overrides)

    # Once the training has begun, callbacks.StopCleanly hears the first signal.
    return run_command(action, options.debug, "Stopped at once; the same command goes on from what is saved.")


def train(
    run: Run,
    configuration: Configuration,
    from_scratch: bool = False,
    overrides: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> int:
    """Start the run, or continue it from its last checkpoint; return the exit status (130 after a Ctrl-C). It stops
    after the epoch in which `stop` is set. Raises UserError where it cannot be trained."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found.get(name := configuration.accelerator, True):  # on this machine, by this build of torch
        raise UserError(f"accelerator: torch finds no {name} device here; accelerator=cpu is as fast on this problem")
    if next(run.folder.glob("*/config.yaml"), None):
        raise UserError(f"{run.folder} holds the runs of a sweep; choose another --run-name")
    if not from_scratch and epochs_to_continue_after(run, configuration) is None:
        return 0  # before the lock: a finished run may lie where nothing can be written
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(run.lock_file))
        except BlockingIOError as error:
            text = f"{error} is training it; wait for it or stop it, or choose another --run-name"
            raise RunIsBusy(f"{run.folder}: {text}") from error
        for path in run.folder.glob("*") if from_scratch else ():  # the folder itself may be a link, which stays
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        epochs_done = epochs_to_continue_after(run, configuration)  # again: another may have trained until now
        return 0 if epochs_done is None else fit(run, configuration, epochs_done, overrides, stop)


def epochs_to_continue_after(run: Run, configuration: Configuration) -> int | None:
    """Return how many epochs a run has behind it, or None, with a message, where it needs no more. Raises UserError
    where it was begun with another configuration, or cannot be continued."""
    if not os.path.lexists(run.last_checkpoint):
        if run.configuration_file.exists():
            check_same_configuration(run, read_configuration(run.configuration_file), configuration, finished=False)
        return 0
    try:
        before, last = read_configuration(run.configuration_file), read_state(run)
    except UserError as fault:
        text = "The run cannot be continued; --from-scratch removes it and starts over"
        with contextlib.suppress(UserError):
            load_run(run)
            text += f". {run.best_checkpoint.name} beside it is whole: analyse_experiments.py can use it as it is"
        raise UserError(f"{fault}\n{text}.") from fault
    check_same_configuration(run, before, configuration, finished=why_finished(last, before) is not None)
    if reason := why_finished(last, configuration):
        print(f"{run.title}: nothing to do, it {reason}. Pictures and numbers: {run.analysis}")
        return None
    return last["epochs_done"]


def fit(
    run: Run, configuration: Configuration, epochs_done: int, overrides: Sequence[str], stop: threading.Event | None
) -> int:
    """Train on after so many epochs; return the exit status."""
    if epochs_done:
        print(f"{run.title}: continues after {epochs_done} epochs")
    elif run.best_checkpoint.exists():
        print(f"{run.title}: no {run.last_checkpoint.name} is there, so it starts over, towards the same result")

    from training import fitting  # Lightning takes seconds to import, and is not needed to find a mistake above

    configuration.write(run.configuration_file)
    if not run.sweep:  # hundreds of runs would overwrite each other's there
        configuration.write(run.folder.parent.parent / "config.yaml")
    try:
        received = fitting.fit(run, configuration, epochs_done, stop)
    except OSError as error:
        text = "The training stopped; once that is mended, the same command goes on from the last checkpoint"
        raise UserError(f"{error.filename or run.folder}: {error.strerror or error}. {text}.") from error
    last = read_state(run)
    if reason := why_finished(last, configuration):
        print(f"{run.title}: {reason}. The run is in {run.folder}\nPictures and numbers: {run.analysis}")
        if warning := what_ran_away(rise_of_validation_loss(run.curves_file)):
            print(f"{run.title}: {warning}", file=sys.stderr)
        return 0
    command = f"{run.command} {shlex.join(overrides)}".rstrip()
    print(f"{run.title}: stopped after {last['epochs_done']} epochs. To continue: {command}")
    return 128 + received if received else 1


def check_same_configuration(run: Run, before: Configuration, now: Configuration, finished: bool) -> None:
    """Raise UserError with the difference where the run was begun with another configuration. One that has finished may
    be given more epochs, but not under a schedule that depends on their number: that would be another training."""
    differences = difference(before, now)
    longer = finished and differences.keys() == {"max_epochs"} and now.max_epochs > before.max_epochs
    if not differences or (longer and not now.scheduler.depends_on_max_epochs):
        return
    lines = [f"{run.folder}: this run was begun with another configuration:"]
    lines += [f"  {key}: {old} in the run, {new} now" for key, (old, new) in differences.items()]
    if longer:
        lines.append(f"  (under the schedule {now.scheduler.type} the learning rate depends on it from the beginning)")
    lines.append("Choose another --run-name, or --from-scratch to remove it and start over.")
    raise UserError("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
