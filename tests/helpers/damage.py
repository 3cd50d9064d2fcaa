"""What can be wrong with a checkpoint, and what is said of it."""

import os

import torch


class RunsCode:
    """When unpickled, makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def changed(path, change):
    torch.save(change(torch.load(path, weights_only=True)), path)


def with_weights(path, change):
    changed(path, lambda checkpoint: checkpoint | {"state_dict": change(checkpoint["state_dict"])})


def half(path, _=None):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped_weight(path, _=None):
    """Flip a bit of a weight, which torch.load alone does not notice: it compares no check sums."""
    content, weights = bytearray(path.read_bytes()), next(iter(torch.load(path)["state_dict"].values()))
    content[content.index(weights.numpy().tobytes()) + weights.nbytes // 2] ^= 1
    path.write_bytes(content)


def code(path, marker):
    changed(path, lambda checkpoint: checkpoint | {"extra": RunsCode(marker)})


WEIGHT = {"network.layers.2.weight": torch.zeros(8, 8)}
NO_ZIP, FOREIGN = "not a readable checkpoint: File is not a zip file", "not of the network that its run's config.yaml "
NO_TRAINING = "not a checkpoint of a training: it holds no state_dict"
DAMAGES = {  # -> what is done to the file, and what is said of it; code that runs would make the folder `marker`
    "half of it": (half, NO_ZIP),
    "a flipped bit": (flipped_weight, "not a readable checkpoint: its record .*/data/"),
    "code": (code, "not a readable checkpoint: it holds other things than tensors and plain values"),
    "a list": (lambda path, _: torch.save([1, 2], path), NO_TRAINING),
    "a list of weights": (lambda path, _: with_weights(path, lambda state: [1, 2]), NO_TRAINING),
    "other sizes": (lambda path, _: with_weights(path, lambda state: state | WEIGHT), f"{FOREIGN}.*size mismatch"),
    "another run's": (
        lambda path, _: changed(path, lambda checkpoint: checkpoint | {"hyper_parameters": {"seed": 77}}),
        "not of the run that config.yaml describes: seed is 77 in it and 1234 there",
    ),
}
