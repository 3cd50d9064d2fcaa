"""Trains one experiment: merge and validate the configuration, then start, continue or leave the run."""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import threading

if __name__ == "__main__":  # a Ctrl-C in the seconds that the imports take ends this at once, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch

from utils.files import locked, sentence
from utils.runs.loading import (
    ANALYTICAL,
    BadCheckpoint,
    Configuration,
    Run,
    UserError,
    configure,
    difference,
    load_run,
    network_of,
    read_checkpoint,
    read_configuration,
)


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
    parser.add_argument("--end-with-stdin", action="store_true", help="end cleanly when standard input closes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.end_with_stdin:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    try:
        if options.experiment == ANALYTICAL:
            raise UserError(f"{ANALYTICAL} is the exact score: there is nothing to train")
        configuration = configure(options.experiment, options.overrides)
        run = Run(options.experiment, options.run_name)
        return train(run, configuration, options.from_scratch, shlex.join(options.overrides))
    except KeyboardInterrupt:  # before the first epoch; later ones end cleanly, see callbacks.StopOnSignal
        print("Stopped before the first epoch; the same command starts again.", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        if options.debug:
            raise
        print(sentence(error), file=sys.stderr)
        return 2


def end_with_stdin() -> None:
    """Stop this process once its standard input closes: whoever held the other end, as a sweep does, is gone."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def train(run: Run, configuration: Configuration, from_scratch: bool = False, overrides: str = "") -> int:
    """Start the run, or continue it from its last checkpoint; return the exit status (130 after a Ctrl-C)."""
    check_accelerator(configuration.accelerator)
    if next(run.folder.glob("*/config.yaml"), None):
        raise UserError(f"{run.folder} holds the runs of a sweep; choose another --run-name")
    if not from_scratch and epochs_to_continue_after(run, configuration) is None:
        return 0  # before the lock: a finished run may lie where nothing can be written
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(run.lock_file))
        except BlockingIOError as error:
            text = f"{error} is training it; wait for it or stop it, or choose another --run-name"
            raise UserError(f"{run.folder}: {text}") from error
        if from_scratch:
            shutil.rmtree(run.folder, ignore_errors=True)
        epochs_done = epochs_to_continue_after(run, configuration)  # again: another may have trained until now
        return 0 if epochs_done is None else fit(run, configuration, epochs_done, overrides)


def epochs_to_continue_after(run: Run, configuration: Configuration) -> int | None:
    """Return how many epochs a run has behind it, or None, and say so, where it needs no more.

    Raises UserError where it was begun with another configuration.
    """
    if not os.path.lexists(run.last_checkpoint):
        if run.configuration_file.exists():
            check_same_configuration(run, configuration, None)
        return 0
    before, last = configuration_of(run), read_state(run)
    check_same_configuration(run, configuration, finished(last, before))
    if reason := finished(last, configuration):
        what, comma, how = reason.partition(",")
        print(f"{run.title}: {what} already{comma}{how}. Pictures and numbers: python analyse_experiments.py")
        return None
    return last["epochs_done"]


def configuration_of(run: Run) -> Configuration:
    """Return what the run was begun with; raises UserError, which says what to do, where that cannot be read."""
    try:
        return read_configuration(run.configuration_file)
    except UserError as fault:
        text = "The run cannot go on without it; --from-scratch removes it and starts over."
        raise UserError(f"{fault}\n{text}") from fault


def read_state(run: Run) -> dict:
    """Return the last checkpoint; raises UserError, which says what to do, where no training can go on from it."""
    path = run.last_checkpoint
    try:
        last = read_checkpoint(path)
        network_of(last, path, read_configuration(run.configuration_file))
        if missing := {"epochs_done", "callbacks", "loops", "optimizer_states", "lr_schedulers"} - last.keys():
            raise BadCheckpoint(f"{path}: no training can go on from it: it holds no {', '.join(sorted(missing))}")
        return last
    except BadCheckpoint as fault:
        text = "The run cannot go on; --from-scratch removes it and starts over"
        with contextlib.suppress(UserError):
            load_run(run)
            text += f". {run.best_checkpoint.name} beside it is whole: analyse_experiments.py can use it as it is"
        raise BadCheckpoint(f"{fault}\n{text}.") from fault


def fit(run: Run, configuration: Configuration, epochs_done: int, overrides: str) -> int:
    """Train on after so many epochs; return the exit status."""
    if not epochs_done and run.best_checkpoint.exists():
        print(f"{run.title}: no {run.last_checkpoint.name} is there, so it starts over, towards the same result")
    elif epochs_done:
        print(f"{run.title}: continues after {epochs_done} epochs")
        try:
            read_checkpoint(run.best_checkpoint)
        except BadCheckpoint as fault:
            print(f"{fault}; the run goes on, and writes it anew at the next better loss", file=sys.stderr)

    from training import fitting  # Lightning takes seconds to import, and is not needed to find a mistake above

    configuration.write(run.configuration_file)
    if not run.sweep:  # hundreds of runs would overwrite each other's there
        configuration.write(run.folder.parent.parent / "config.yaml")
    try:
        interrupted = fitting.fit(run, configuration, epochs_done)
    except OSError as error:
        text = "The training stopped; once that is mended, the same command goes on from the last checkpoint"
        raise UserError(f"{error.filename or run.folder}: {error.strerror or error}. {text}.") from error
    last = read_state(run)
    reason = finished(last, configuration)
    if interrupted and not reason:
        command = f"{run.command} {overrides}".rstrip()
        print(f"{run.title}: stopped after {last['epochs_done']} epochs. To continue: {command}")
        return 128 + interrupted
    print(f"{run.title}: {reason}. The run is in {run.folder}")
    return 0


def check_accelerator(name: str) -> None:
    """Raise UserError where this machine, or this build of torch, has no such device."""
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name in available and not available[name]():
        raise UserError(f"accelerator: torch finds no {name} device here; accelerator=cpu is as fast on this problem")


def finished(checkpoint: dict, configuration: Configuration) -> str | None:
    """Return why a run needs no more training, or None."""
    epochs, patience = checkpoint["epochs_done"], configuration.early_stopping_patience
    stopping = next((state for name, state in checkpoint["callbacks"].items() if "EarlyStopping" in name), None)
    if patience is not None and stopping and stopping["wait_count"] >= patience:
        return f"stopped early, after {epochs} epochs, the last {patience} of them without a better validation loss"
    return f"finished its {epochs} epochs" if epochs >= configuration.max_epochs else None


def is_finished(run: Run) -> bool:
    """Return whether a run needs no more training; one that is damaged, or was not begun, does."""
    try:
        return finished(read_state(run), read_configuration(run.configuration_file)) is not None
    except UserError:
        return False


def check_same_configuration(run: Run, configuration: Configuration, reason: str | None) -> None:
    """Raise UserError with the difference where the run was begun with another configuration.

    A run that has finished may be given more epochs.
    """
    before = configuration_of(run)
    differences = difference(before, configuration)
    if differences.keys() == {"max_epochs"} and reason and configuration.max_epochs > before.max_epochs:
        return
    if differences:
        lines = [f"  {key}: {old} in the run, {new} now" for key, (old, new) in differences.items()]
        raise UserError(
            f"{run.folder}: this run was begun with another configuration:\n" + "\n".join(lines) + "\n"
            "Choose another --run-name, or --from-scratch to remove it and start over."
        )


if __name__ == "__main__":
    sys.exit(main())
