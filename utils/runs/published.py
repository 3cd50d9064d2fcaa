"""Weights that come with the code, as the run "published" of each experiment: docs/live/published.json.

It is text that Python and the live page (utils/reports/live.py) both read. An entry holds the configuration of a run,
the numbers of its analysis, the version of the code that made these, and the weights under their names in the
state_dict, each with its shape and, in base64, its values as little-endian float32.
"""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.files import UserError, write_text
from utils.runs import run as runs
from utils.runs.configuration import Configuration
from utils.runs.loading import validated
from utils.score.networks import ScoreNetwork


def published_file() -> Path:
    return runs.ROOT / "docs" / "live" / "published.json"


def write_published(entries: Iterable[dict[str, Any]]) -> None:
    """Write the file anew, an entry a line."""
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
    write_text(published_file(), f'{{"entries": [\n{lines}\n]}}\n')


def read_published() -> list[dict[str, Any]]:
    """Return all entries."""
    return json.loads(published_file().read_bytes())["entries"]


def published(experiment: str) -> tuple[Configuration, ScoreNetwork, int]:
    """Return the configuration, the network in evaluation mode, and the epochs of the run that is published of an
    experiment; raises UserError where there is none."""
    entries = {entry["experiment"]: entry for entry in read_published()}
    if experiment not in entries:
        raise UserError(f"{published_file()}: no weights of {experiment} are published; of {', '.join(entries)} are")
    entry = entries[experiment]
    configuration = configuration_of(entry)
    network = configuration.build_network()
    network.load_state_dict({name: unpacked(weights) for name, weights in entry["weights"].items()})
    return configuration, network.eval(), entry["epochs"]


def configuration_of(entry: dict[str, Any]) -> Configuration:
    """Return the configuration of an entry; raises UserError with one line per fault."""
    return validated({f"{published_file()}, {entry['experiment']}": entry["configuration"]}, Configuration)


def packed(weights: Tensor) -> dict[str, Any]:
    """Return a tensor as plain values."""
    values = weights.detach().cpu().numpy().astype("<f4")
    return {"shape": list(values.shape), "base64": base64.b64encode(values.tobytes()).decode()}


def unpacked(weights: dict[str, Any]) -> Tensor:
    """Return the tensor of plain values."""
    values = np.frombuffer(base64.b64decode(weights["base64"], validate=True), "<f4")
    return torch.from_numpy(values.astype(np.float32)).view(weights["shape"])
