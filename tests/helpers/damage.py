"""What can be wrong with a checkpoint: each function damages the file at `path`; what runs code would make `marker`."""

import os
import pickle

import torch


class RunsCode:
    """When unpickled, makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def changed(path, **others):
    torch.save(torch.load(path, weights_only=True) | others, path)


def flipped(path, where):
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


def half(path, marker=None):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_short(path, marker):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path, marker):
    path.write_bytes(b"")


def flipped_weight(path, marker=None):
    weights = next(iter(torch.load(path)["state_dict"].values())).numpy().tobytes()
    flipped(path, path.read_bytes().index(weights) + len(weights) // 2)


def code_in_a_checkpoint(path, marker):
    torch.save(torch.load(path) | {"extra": RunsCode(marker)}, path)


def code_in_a_pickle(path, marker):
    path.write_bytes(pickle.dumps(RunsCode(marker), protocol=2))


def weights_that_are_none(path, marker):
    changed(path, state_dict={"network.layers.0.weight": RunsCode})


def no_weights(path, marker):
    torch.save({"epoch": 3}, path)


def no_dictionary_of_weights(path, marker):
    changed(path, state_dict=[1, 2])


def not_a_dictionary(path, marker):
    torch.save([1, 2], path)


def other_sizes(path, marker):
    state = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict=state | {"network.layers.2.weight": torch.zeros(8, 8)})


def one_weight_less(path, marker):
    state = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict={key: value for key, value in state.items() if key != "network.layers.2.bias"})


def of_another_run(path, marker):
    settings = torch.load(path, weights_only=True)["hyper_parameters"]
    changed(path, hyper_parameters=settings | {"seed": 77})


DAMAGES = {  # -> what is said of it
    half: "not a readable checkpoint: File is not a zip file",
    cut_short: "not a readable checkpoint",
    empty: "not a readable checkpoint: File is not a zip file",
    flipped_weight: "not a readable checkpoint: its record archive/data/",
    code_in_a_checkpoint: "not a readable checkpoint: it holds other things than tensors and plain values",
    code_in_a_pickle: "not a readable checkpoint: File is not a zip file",
    weights_that_are_none: "not a readable checkpoint: it holds other things than tensors and plain values",
    no_weights: "not a checkpoint of a training: it holds no state_dict",
    no_dictionary_of_weights: "not a checkpoint of a training: it holds no state_dict",
    not_a_dictionary: "not a checkpoint of a training: it holds no state_dict",
    other_sizes: "not of the network that its run's config.yaml describes: .*size mismatch for layers.2.weight",
    one_weight_less: "not of the network that its run's config.yaml describes: .*Missing.*layers.2.bias",
    of_another_run: "not of the run that config.yaml describes: seed is 77 in it and 1234 there",
}
