"""What a training leaves behind, and whether two trainings left the same."""

import contextlib

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.train import main

SMALL = ("data.training_set_size=512", "data.validation_set_size=128", "score_viewer.every_n_epochs=1000")


def train(*words, experiment="no_regularizer"):
    """Train in this process, little and without pictures where the words do not say otherwise; return the status."""
    given = [word.partition("=")[0] for word in words]
    small = [word for word in SMALL if not any(word.startswith((f"{key}=", f"{key}.")) for key in given)]
    return main([experiment, *small, *words])


@contextlib.contextmanager
def stopping_after(epochs):
    """Let the trainings within the block end after so many epochs, as if they had been asked to."""
    hook = "training.callbacks.Progress.on_train_epoch_end"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, lambda _, trainer, module: setattr(trainer, "should_stop", module.epochs_done == epochs))
        yield


def events(folder):
    """Return what TensorBoard shows of a run: scalars as tag -> [(step, value)], images as tag -> events."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = accumulator.Tags()
    scalars = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {tag: accumulator.Images(tag) for tag in tags["images"]}


def steps(series):
    return [step for step, _ in series]


def values(series):
    return [value for _, value in series]


def equal(one, other):
    """Whether two nests of dictionaries, sequences, tensors and numbers are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def outcome(folder):
    """Return all that an interruption must not change."""
    last, best = (torch.load(folder / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt"))
    scalars, images = events(folder)
    pictures = {tag: [(event.step, event.encoded_image_string) for event in images[tag]] for tag in images}
    written = {"scalars": scalars, "pictures": pictures, "curves": (folder / "curves.csv").read_text()}
    state = {key: last[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "epochs_done")}
    return state | {"best": best["state_dict"]} | written


def differences(folder, other):
    one, two = outcome(folder), outcome(other)
    return [key for key in one if not equal(one[key], two[key])]
