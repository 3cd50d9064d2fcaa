"""What a training leaves behind, and whether two trainings left the same."""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.train import main

SMALL = ("data.training_set_size=512", "data.validation_set_size=128", "score_viewer.every_n_epochs=1000")


def train(*words):
    """Train in this process; the folder is the one that the fixture `training` makes."""
    small = [word for word in SMALL if not any(other.startswith(word.partition(".")[0] + "=") for other in words)]
    return main(["no_regularizer", *small, *words])


def events(folder):
    """Return what TensorBoard shows of a run: scalars as tag -> [(step, value)], images as tag -> events."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = accumulator.Tags()
    scalars = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {tag: accumulator.Images(tag) for tag in tags["images"]}


def steps(series):
    return [step for step, _ in series]


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
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "epochs_done")
    pictures = {tag: [(event.step, event.encoded_image_string) for event in images[tag]] for tag in images}
    return {key: last[key] for key in kept} | {"best": best["state_dict"], "scalars": scalars, "pictures": pictures}
