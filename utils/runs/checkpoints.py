"""Checkpoints: tensors and plain values only, so that none can run code; and the networks that they hold."""

import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils.files import UserError, error_message
from utils.runs.configuration import Configuration, flat
from utils.runs.loading import configure, read_configuration
from utils.runs.published import published
from utils.runs.run import ANALYTICAL, PUBLISHED, Run
from utils.score.networks import ScoreNetwork


class BadCheckpoint(UserError):
    """A checkpoint that is damaged, or not one of its run."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content on the CPU; raises BadCheckpoint where it is none."""
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():  # torch.load compares no check sums
                raise zipfile.BadZipFile(f"its record {damaged} is damaged")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path}: missing") from error
    except Exception as error:  # damaged bytes lead the unpickler to errors of any kind
        reason = error_message(error).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's own text recommends to run it
            reason = "it holds other things than tensors and plain values, which could run code; nothing of it was run"
        raise BadCheckpoint(f"{path}: not a readable checkpoint: {reason}") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise BadCheckpoint(f"{path}: not a checkpoint of a training: it holds no state_dict")
    return checkpoint


def network_of(checkpoint: dict[str, Any], path: Path, configuration: Configuration) -> ScoreNetwork:
    """Return the network with the weights of a checkpoint; raises BadCheckpoint where they are not of this run."""
    network = configuration.build_network()
    state, prefix = checkpoint["state_dict"], "average.module."
    averaged = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    weights = averaged or {key.removeprefix("network."): value for key, value in state.items()}
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"{path}: not of the network that its run's config.yaml describes: {reason}") from error
    before, now = flat(checkpoint.get("hyper_parameters", {})), flat(configuration.as_dict())
    same = before.keys() & now.keys() - {"max_epochs"}
    if others := sorted(key for key in same if before[key] != now[key]):
        differences = ", ".join(f"{key} is {before[key]} in it and {now[key]} there" for key in others)
        raise BadCheckpoint(f"{path}: not of the run that config.yaml describes: {differences}")
    return network


class Loaded(NamedTuple):
    """A run, its network in evaluation mode, and the checkpoint that this is from, if any."""

    run: Run
    configuration: Configuration
    network: ScoreNetwork
    checkpoint: Path | None
    epochs: int = 0  # behind these weights


def load_run(run: Run, fall_back: bool = False) -> Loaded:
    """Return a run with the network of its best checkpoint; raises UserError where there is none.
    With `fall_back` the last one takes its place, with a message, where it is damaged or missing."""
    if run.experiment == ANALYTICAL:
        configuration = configure(ANALYTICAL)
        return Loaded(run, configuration, configuration.build_truth().eval(), None)
    if run.name == PUBLISHED:
        configuration, network, epochs = published(run.experiment)
        return Loaded(run, configuration, network, None, epochs)
    if not run.best_checkpoint.exists() and not run.last_checkpoint.exists():
        raise UserError(f"{run.title}: not trained yet; train it with: {run.command}")
    configuration = read_configuration(run.configuration_file)
    faults: list[BadCheckpoint] = []
    for path in (run.best_checkpoint, run.last_checkpoint)[: 1 + fall_back]:
        try:
            network = network_of(checkpoint := read_checkpoint(path), path, configuration)
        except BadCheckpoint as fault:
            faults.append(fault)
            continue
        if faults:
            text = f"taking {path.name} beside it, the weights of the last epoch instead of the best"
            print(f"{faults[0]}; {text}", file=sys.stderr)
        return Loaded(run, configuration, network.eval(), path, checkpoint.get("epochs_done", 0))
    raise BadCheckpoint("\n".join(map(str, faults))) from faults[-1]


def load_score_network(experiment_name: str, run_name: str = "run1") -> ScoreNetwork:
    """Return the network of a run's best checkpoint in evaluation mode, on the CPU, in float32.

    Called with x (batch, atom, dimension) in [0,1) and t (batch,) in [0,1], it returns sigma(t) times the score, shaped
    like x; `.score(x, t)` returns the score. The run "published" needs no training: its weights come with the code.
    "analytical" is the exact score of base_config.yaml; that of a run's own problem is
    `load_run(Run(experiment, run)).configuration.build_truth()`. Raises UserError where there is no run.
    """
    return load_run(Run(experiment_name, run_name)).network


def why_finished(checkpoint: dict[str, Any], configuration: Configuration) -> str | None:
    """Return why a run needs no more training, or None."""
    epochs, patience = checkpoint["epochs_done"], configuration.early_stopping_patience
    stopping = next((state for name, state in checkpoint["callbacks"].items() if "EarlyStopping" in name), None)
    if patience is not None and stopping and stopping["wait_count"] >= patience:
        return f"stopped early, after {epochs} epochs, the last {patience} of them without a better validation loss"
    return f"finished its {epochs} epochs" if epochs >= configuration.max_epochs else None


def read_state(run: Run) -> dict[str, Any]:
    """Return the last checkpoint of a run; raises UserError where no training can go on from it."""
    path = run.last_checkpoint
    last = read_checkpoint(path)
    network_of(last, path, read_configuration(run.configuration_file))
    if missing := {"epochs_done", "callbacks", "loops", "optimizer_states", "lr_schedulers"} - last.keys():
        raise BadCheckpoint(f"{path}: no training can go on from it: it holds no {', '.join(sorted(missing))}")
    return last


def is_finished(run: Run) -> bool:
    """Return whether a run needs no more training; one that is damaged, or was not begun, does."""
    try:
        return why_finished(read_state(run), read_configuration(run.configuration_file)) is not None
    except UserError:
        return False
