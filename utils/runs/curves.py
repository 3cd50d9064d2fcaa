"""curves.csv: a row of scalars for every epoch of a run, for the figures that compare runs without TensorBoard.

A row is written before the checkpoint that holds its epoch, so a resumed run drops the rows of epochs that it will
repeat, and any half of a line: no epoch is missing or there twice, also after a kill.
"""

import sys
from pathlib import Path

import numpy as np

from utils.files import UserError, write_text

LOSSES = "score_matching_loss/training,score_matching_loss/validation,excess_loss/validation,path_kl_in_nats/validation"
HEADING = f"epoch,{LOSSES},regularizer/training,learning_rate"
COLUMNS = tuple(HEADING.split(","))
SMOOTHED = 10  # epochs of which the mean validation loss is taken
RAN_AWAY = 0.02  # of the loss; the shipped experiments end within 0.004 of its lowest value


class Curves:
    """The file of a run, to which a training adds. A resumed one keeps the rows of the epochs that it has done, and
    counts on the standard error stream those that are damaged or missing: no training is lost for them."""

    def __init__(self, path: Path, epochs_done: int):
        self.path = path
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if path.exists() else []
        lines = lines if lines[:1] == [HEADING] else []  # rows of other columns would stand under wrong names
        kept = {row[0]: line for line in lines if (row := _row(line)) and row[0] < epochs_done}
        if missing := epochs_done - len(kept):
            text = "damaged or missing; the training goes on, and its learning curves leave them out"
            print(f"{path}: {missing} of {epochs_done} epochs are {text}", file=sys.stderr)
            if path.exists():
                path.rename(path.with_suffix(".damaged.csv"))
        write_text(path, "\n".join([HEADING, *kept.values(), ""]))

    def append(self, epoch: int, scalars: dict[str, float]) -> None:
        """Write the row of one epoch; a column is empty where the epoch has no such scalar."""
        with self.path.open("a", encoding="utf-8") as file:
            print(epoch, *(scalars.get(name, "") for name in COLUMNS[1:]), sep=",", file=file)


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """Return each column, (epoch,), not-a-number where it is empty; without the half of a line that is being written.
    Raises UserError where the file is damaged or has no epoch, OSError where it cannot be read."""
    heading, *lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines(True) or [HEADING]
    rows = [_row(line) for line in lines if line.endswith("\n")]
    damaged = [number for number, whole in enumerate([heading.strip() == HEADING, *rows], 1) if not whole]
    if damaged or not rows:
        text = f"line {damaged[0]} is damaged" if damaged else "holds no epoch"
        raise UserError(f"{path}: {text}, so there is no learning curve of this run")
    return dict(zip(COLUMNS, np.array(rows).T, strict=True))


def rise_of_validation_loss(path: Path) -> float | None:
    """Return by which fraction the validation loss, a mean over 10 epochs, ends above its lowest value; None where
    there are fewer epochs, or no file that can be read."""
    try:
        loss = read_curves(path)["score_matching_loss/validation"]
        loss = loss[np.isfinite(loss)]  # a training that ended in an infinite loss has written it
    except (UserError, OSError):
        return None
    if len(loss) < SMOOTHED:
        return None
    means = np.convolve(loss, np.full(SMOOTHED, 1 / SMOOTHED), "valid")
    return float(means[-1] / means.min() - 1)


def what_ran_away(rise: float | None) -> str:
    """Return a warning where the validation loss rose by more than noise makes it, else nothing."""
    if rise is None or rise < RAN_AWAY:
        return ""
    end = f"the validation loss ended {100 * rise:.0f} % above its lowest value"
    return f"{end}, so the last epochs made the network worse; try a smaller regularizer weight or learning rate"


def _row(line: str) -> list[float] | None:
    """Return the numbers of a line, or None for one that is no whole row."""
    try:
        epoch, *scalars = line.strip().split(",")
        row = [int(epoch), *(float(cell or "nan") for cell in scalars)]
    except ValueError:
        return None
    return row if len(row) == len(COLUMNS) and row[0] >= 0 else None


def epochs_written(path: Path) -> int:
    """Return how many epochs a training has written so far."""
    try:
        return max(path.read_bytes().count(b"\n") - 1, 0)
    except OSError:
        return 0
