"""What is not in a sweep's rows, from the files of the runs of the sweep `confirm`: python -m findings.study.from_runs

writes judged.csv, the path KL at 1,024 validation points of the weights of the lowest validation loss and of the last
ones, and the rise of that loss; and limits.csv, the baseline's score error against time, beside that of the training
set's own score.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.runs.curves import read_curves, rise_of_validation_loss
from utils.runs.loading import read_configuration
from utils.runs.run import BASELINE, find_runs
from utils.runs.store import Record

SWEEP = "confirm"


def judged() -> Iterable[Sequence]:
    yield "experiment", "training_seed", "best_epoch", "path_kl_of_best", "path_kl_of_last", "rise_of_validation_loss"
    for run in find_runs(SWEEP):
        curves, seed = read_curves(run.curves_file), read_configuration(run.configuration_file).seed
        best, path_kl = curves["score_matching_loss/validation"].argmin(), curves["path_kl_in_nats/validation"]
        rise = rise_of_validation_loss(run.curves_file)
        yield run.experiment, seed, best + 1, f"{path_kl[best]:.4g}", f"{path_kl[-1]:.4g}", f"{rise:.4f}"


def limits() -> Iterable[Sequence]:
    yield "t", "network", "training_set"
    curves = [Record.read(run.metrics_file).curves for run in find_runs(SWEEP, [BASELINE])]
    errors, data = ([one[name].value for one in curves] for name in ("score_error_noised", "data_limit"))
    for t, *values in zip(curves[0]["data_limit"].t, *errors, *data, strict=True):
        network, training_set = np.array(values, dtype=float).reshape(2, -1).mean(1)
        yield f"{t:.3f}", f"{network:.4f}", "" if np.isnan(training_set) else f"{training_set:.4f}"


if __name__ == "__main__":
    for name, rows in {"judged": judged(), "limits": limits()}.items():
        with (Path(__file__).parent / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
