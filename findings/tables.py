"""The tables of the study, from its rows.

Every number in README.md and FINDINGS.md is in one of these tables. Means are over seeds; a ratio is that of geometric
means, of strays that of means, since some runs have none, paired by seed. Intervals are 95 % intervals of Student's t;
* marks those of ratios that exclude 1.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from utils.reports.formatting import with_interval
from utils.runs.configuration import flat
from utils.runs.loading import configure
from utils.runs.run import BASELINE
from utils.sweeps.paired import Group, groups

FOLDER = Path(__file__).parent
METHODS = (
    "fokker_planck_regularizer",
    "consistency_regularizer",
    "energy_network",
    "energy_network_with_stable_targets",
)
ORACLES = ("analytical_regression_regularizer", "consistency_with_analytical_guide_regularizer")
TRUTHS = {  # distributions of the data, a file of rows each
    "base": "base problem",
    "two_dimensions": "two dimensions",
    "mixture": "unequal mixture",
    "wide": "width 0.05",
    "few_data": "512 configurations",
    "three_atoms": "three atoms",
}
REFERENCE = {  # of the reference implementation, one seed: path KL in nats, strays in percent
    BASELINE: ("0.074", "0.29"),
    "analytical_regression_regularizer": ("0.055", "0"),
    "fokker_planck_regularizer": ("0.149", "12.5"),
    "consistency_regularizer": ("0.472", "0.96"),
    "consistency_with_analytical_guide_regularizer": ("0.117", "0.06"),
}
OF_ENERGY = ("max_epochs", "optimizer.learning_rate", "score_network.length", "score_network.hidden_size")
SCHEDULES = ("scheduler.type", "optimizer.ema_decay", "optimizer.learning_rate", "data.batch_size", "max_epochs")
LEARNING_RATES = ("0.003", "0.01", "0.03")
STRAYS = "stray_fraction_at_21_steps"
NUMBERS = {  # of every distribution
    "path_kl": "path KL",
    "path_kl_gradient_part": "its gradient part",
    "ode_kl": "ODE KL",
    STRAYS: "strays at 21 steps",
}
Rows = Iterable[Sequence[str]]


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of the study."""
    with (FOLDER / "study" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def study(name: str) -> list[Group]:
    """Return the groups of one sweep of the study."""
    return groups(rows_of(name), rows_of(name))


def setting(group: Group, key: str) -> str:
    """Return the value of a setting, which a row names where it is not that of the experiment; nothing without it."""
    found = re.search(rf'(?:^|, ){re.escape(key)}="?([^",]+)', group.row["training_settings"])
    return found[1] if found else str(flat(configure(group.row["experiment"]).as_dict()).get(key, ""))


def mean(group: Group, metric: str, factor: float = 1.0) -> str:
    found = group.mean(metric)
    return with_interval(factor * found.value, factor * found.half_width) if found else ""


percent = partial(mean, factor=100)


def bounds(group: Group, metric: str) -> np.ndarray | None:
    """Return the ratio to the baseline and the ends of its interval, (3,), or None where there is none."""
    found = group.log_ratio_of_means(metric) if metric == STRAYS else group.log_ratio(metric)
    return np.exp(found.ends) if found and found.half_width > 0 else None


def ratio(group: Group, metric: str) -> str:
    if (found := bounds(group, metric)) is None:
        return ""
    value, low, high = (f"{number:.2f}" if 0.1 <= number < 10 else f"{number:.2g}" for number in found)
    return f"{value} ({low} to {high})" + " *" * bool(found[1] > 1 or found[2] < 1)


def name_of(group: Group) -> str:
    return f"`{group.row['experiment']}`" + f" ({group.mark})" * bool(group.mark)


def shipped() -> tuple[list[Group], dict[str, Group]]:
    """Return the groups of the experiments as they are shipped, and the methods beside a baseline of the same time."""
    groups, (longer,) = [*study("confirm"), *study("truths/base")], study("longer")
    found = {group.row["experiment"]: Group(group.runs, groups[0].runs) for group in groups}
    in_time = {name: Group(found[name].runs, longer.runs) for name in METHODS}
    return [found[name] for name in (BASELINE, *METHODS, *ORACLES)], in_time


def truth(name: str) -> tuple[Group, list[Group]]:
    """Return, for one distribution of the data, the baseline and what trained as long by the clock."""
    if name == "base":
        (baseline,), some = study("longer"), [*study("confirm")[1:], *study("truths/base")]
    else:
        baseline, *some = study(f"truths/{name}")
    some = [Group(group.runs, baseline.runs) for group in some if group.mark != "oracle"]
    return baseline, sorted(some, key=lambda group: (group.mark, group.mean("path_kl")))


def truths_table() -> Rows:
    """Yield a block of lines for each number, with a line for each method and a column for each distribution."""
    found = [truth(name) for name in TRUTHS]
    names = dict.fromkeys(name_of(group) for _, some in found for group in some)
    yield "number", "training", *TRUTHS.values()
    for metric, title in NUMBERS.items():
        unit, show = ("%", percent) if metric == STRAYS else ("nats", mean)
        yield f"{title} ({unit}, then ratios)", name_of(found[0][0]), *(show(one, metric) for one, _ in found)
        for name in names:
            yield "", name, *("".join(ratio(one, metric) for one in some if name_of(one) == name) for _, some in found)


def rates_table() -> Rows:
    """Yield the path KL of the baseline at several learning rates, on every distribution but the base problem."""
    yield "learning rate of the baseline", *LEARNING_RATES
    for name, title in list(TRUTHS.items())[1:]:
        found = {setting(group, "optimizer.learning_rate"): group for group in study(f"truths/{name}_tuning")}
        yield title, *(mean(found[rate], "path_kl") for rate in LEARNING_RATES)


def truth_table(name: str) -> Rows:
    """Yield the numbers of every training on one distribution."""
    yield "training", *TIMED
    baseline, some = truth(name)
    for group in baseline, *some:
        yield name_of(group), *(show(group) for show in TIMED.values())


def shipped_table() -> Rows:
    columns = {"path_kl": "path KL", "ode_kl": "ODE KL", "path_kl_gradient_part": "gradient part"}
    titles = [f"{title}, {word}" for title in columns.values() for word in ("ratio", "same time")]
    yield "experiment", "path KL, nats", *titles, "strays at 21 steps, %"
    found, in_time = shipped()
    for group in found:
        both = group, in_time.get(group.row["experiment"])
        ratios = [ratio(one, column) if one else "" for column in columns for one in both]
        yield name_of(group), mean(group, "path_kl"), *ratios, percent(group, STRAYS)


SHOWN: dict[str, Callable[[Group], str]] = {
    "seeds": lambda group: str(len(group.runs)),
    "path KL, nats": partial(mean, metric="path_kl"),
    "ratio": partial(ratio, metric="path_kl"),
    "ODE KL, nats": partial(mean, metric="ode_kl"),
    "ODE KL, ratio": partial(ratio, metric="ode_kl"),
    "strays, %": partial(percent, metric="stray_fraction"),
    "at 21 steps, %": partial(percent, metric=STRAYS),
    "FP residual, ratio": partial(ratio, metric="residual_score_fpe_noised"),
    "above 0.1 nats": lambda group: str(sum(not float(row["path_kl"]) < 0.1 for row in group.runs.values()) or ""),
}

TIMED: dict[str, Callable[[Group], str]] = {
    **{name: SHOWN[name] for name in ("seeds", "path KL, nats", "ratio")},
    "its gradient part, ratio": partial(ratio, metric="path_kl_gradient_part"),
    **{name: SHOWN[name] for name in ("ODE KL, nats", "ODE KL, ratio")},
    "strays at 21 steps, %": SHOWN["at 21 steps, %"],
    "distance from memory": partial(mean, metric="distance_from_memory"),
}


def sweep_table(name: str, *settings: str) -> Rows:
    """Yield a line for each group of a sweep, with the settings that are given."""
    yield "training", *(key.rpartition(".")[2].replace("_", " ") for key in settings), *SHOWN
    for group in study(name):
        yield group.title, *(setting(group, key) for key in settings), *(show(group) for show in SHOWN.values())


def reference_table() -> Rows:
    yield "experiment", "path KL, nats", "path KL, theirs", "strays, %", "strays, theirs"
    for group in study("reference"):
        path_kl, strays = REFERENCE[group.row["experiment"]]
        yield name_of(group), mean(group, "path_kl"), path_kl, percent(group, "stray_fraction"), strays


def judged_table() -> Rows:
    words = "the lowest validation loss", "the last weights"
    yield "experiment", "seeds", *(f"of {one}" for one in words), "last / better of both", "rise, at most"
    rows = rows_of("judged")
    for name in dict.fromkeys(row["experiment"] for row in rows):
        some = [row for row in rows if row["experiment"] == name]
        best, last = (np.mean([float(row[f"path_kl_of_{word}"]) for row in some]) for word in ("best", "last"))
        rise = max(float(row["rise_of_validation_loss"]) for row in some)
        numbers = f"{best:.4f}", f"{last:.4f}", f"{last / min(best, last):.2f}", f"{rise:.2%}"
        yield f"`{name}`", str(len(some)), *numbers


def run_away_table() -> Rows:
    numbers = "rms of N", "of the exact N", "slope of N* against N", "the slope, noised", "rms of the error, noised"
    yield "penalty at", "epoch", "t", *numbers
    rows = [row for row in rows_of("run_away") if row["epoch"] in ("40", "100", "200")]
    for far, near in zip(rows[::2], rows[1::2], strict=True):
        where = "uniform points" if "uniform" in far["settings"] else "noised points"
        interval = f"{far['t_from']} to {far['t_to']}"
        found = far["rms_of_N"], far["rms_of_exact_N"], far["slope"], near["slope"], near["rms_of_error"]
        yield where, far["epoch"], interval, *found


def written(rows: Rows) -> str:
    """Return a table in Markdown."""
    heading, *lines = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, ["---"] * len(heading), *lines)) + "\n"


TABLES: dict[str, Callable[[], Rows]] = {
    "shipped": shipped_table,
    "confirm": lambda: sweep_table("confirm"),
    "longer": lambda: sweep_table("longer", "max_epochs"),
    "weights": lambda: sweep_table("weights"),
    "tuning": lambda: sweep_table("tuning", "max_epochs", "optimizer.learning_rate"),
    "schedules": lambda: sweep_table("schedules", *SCHEDULES),
    "settings": lambda: sweep_table("settings", "data.fresh_noise", "score_network.permutation_equivariant"),
    "reference": reference_table,
    "judged": judged_table,
    "limits": lambda: [("t", "network", "training set"), *(tuple(row.values())[:3] for row in rows_of("limits")[::2])],
    "run_away": run_away_table,
    "truths": truths_table,
    "truths/learning_rates": rates_table,
    "truths/mixture_settings": lambda: sweep_table("truths/mixture_settings", *OF_ENERGY, "target.references"),
    "truths/three_atoms_settings": lambda: sweep_table("truths/three_atoms_settings", "max_epochs"),
    **{f"truths/{name}": partial(truth_table, name) for name in TRUTHS},
}
