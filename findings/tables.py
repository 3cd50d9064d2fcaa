"""Writes findings/tables/*.md from the rows of the study: python -m findings.tables

Every number of README.md and FINDINGS.md is in one of these tables. Means are over seeds; ratios are of geometric means,
paired by seed. All intervals are 95 % intervals of Student's t. * marks those that exclude 1 for a ratio, 0 for a
difference.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.evaluation.estimates import CONFIDENCE  # noqa: F401  (the level of every interval)
from utils.reports.formatting import with_interval
from utils.sweeps.paired import Group, Mean, groups

FOLDER = Path(__file__).parent
STUDY, TABLES = FOLDER / "study", FOLDER / "tables"
SHIPPED = (
    "fokker_planck_regularizer",
    "consistency_regularizer",
    "analytical_regression_regularizer",
    "consistency_with_analytical_guide_regularizer",
)
EPOCHS_IN_THE_SAME_TIME = dict(zip(SHIPPED, ("380", "340", "280", "400"), strict=True))
RAN_AWAY = 0.1  # nats of path KL; the baseline's worst seed has a tenth of it


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of one sweep of the study."""
    with (STUDY / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def mean(group: Group, metric: str, factor: float = 1.0) -> str:
    found = group.mean(metric)
    return with_interval(factor * found.value, factor * found.half_width) if found else "-"


def difference(group: Group, metric: str, factor: float = 1.0) -> str:
    found = group.difference(metric)
    if found is None:
        return "-"
    return with_interval(factor * found.value, factor * found.half_width, sign=True) + " *" * found.is_not_zero


def ratio(group: Group, metric: str) -> str:
    found: Mean | None = group.log_ratio(metric)
    if found is None:
        return "-"
    value, low, high = np.exp([found.value, found.value - found.half_width, found.value + found.half_width])
    return f"{value:.2f} ({low:.2f} to {high:.2f})" + " *" * found.is_not_zero


def ran_away(group: Group) -> str:
    number = sum(float(row["path_kl"]) > RAN_AWAY for row in group.runs.values())
    return f"{number} of {len(group.runs)}"


def beside(group: Group, baseline: Group) -> Group:
    """Return a group compared with another baseline than its own."""
    return Group(group.runs, baseline.runs)
