"""The results of many runs: a CSV file that only grows, one row a run.

A row is keyed by a hash of the run's configuration, pictures and device left out, so a result is found again whatever
the run is called. Rows with the same `group` differ in the seed alone; `baseline` is the group of the same training
without a regularizer, with which a group is compared seed by seed. All are sampled and judged with the same number
of samples, steps and random numbers, which each row states.
"""

import csv
import hashlib
import json
import math
import os
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch
from tqdm import tqdm

from utils.evaluation.evaluate import evaluate
from utils.files import locked
from utils.reports.experiment import Sampling, check_finite, code_version
from utils.runs.loading import (
    Configuration,
    Run,
    UserError,
    configure,
    difference,
    load_run,
    read_checkpoint,
    read_configuration,
)

METRICS = (  # the columns of numbers; what each is, catalogue.py says
    "path_kl",
    "stray_fraction",
    "ode_kl",
    "ode_stray_fraction",
    "wasserstein_2",
    "width_ratio",
    "radial_ks",
    "law_drift",
    "excess_loss",
    *(f"score_error_{law}" for law in ("noised", "uniform")),
    *(f"score_error_median_{law}" for law in ("noised", "uniform")),
    *(f"residual_{form}_{law}" for form in ("score_fpe", "advective") for law in ("noised", "uniform")),
    *(f"residual_score_fpe_median_{law}" for law in ("noised", "uniform")),
    *(f"consistency_excess_{law}" for law in ("noised", "uniform")),
    *(f"curl_{law}" for law in ("noised", "uniform")),
    "memorisation",
    "nearest_neighbour_ratio",
)
DESCRIPTION = (
    "key",
    "group",
    "baseline",
    "sweep",
    "experiment",
    "regime",
    "setting",
    "weight",
    "oracle",
    "seed",
    "epochs",
)
SAMPLING = ("number_of_samples", "time_steps", "corrector_steps", "start", "sampling_seed")
COLUMNS = (*DESCRIPTION, *SAMPLING, "code_version", *METRICS)
INCIDENTAL = ("score_viewer", "accelerator")  # no part of what is trained


def fingerprint(configuration: Configuration, *left_out: str) -> str:
    """Return a hash of a configuration without these blocks, 16 hexadecimal digits."""
    content = {key: value for key, value in configuration.as_dict().items() if key not in (*INCIDENTAL, *left_out)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def describe(run: Run, configuration: Configuration) -> dict[str, object]:
    """Return the columns that say what a run is."""
    shipped, changed = configure(run.experiment), {}
    for key, (_, value) in difference(shipped, configuration).items():
        if key not in ("seed", "regularizer.weight") and not key.startswith(INCIDENTAL):
            changed[key] = value
    return {
        "key": fingerprint(configuration),
        "group": fingerprint(configuration, "seed"),
        "baseline": fingerprint(configuration.model_copy(update={"regularizer": None}), "seed"),
        "sweep": run.sweep or "",
        "experiment": run.experiment,
        "regime": _words({k: v for k, v in changed.items() if not k.startswith("regularizer")}),
        "setting": _words(
            {k.removeprefix("regularizer."): v for k, v in changed.items() if k.startswith("regularizer")}
        ),
        "weight": "" if configuration.regularizer is None else configuration.regularizer.weight,
        "oracle": configuration.is_oracle,
        "seed": configuration.seed,
    }


def _words(settings):
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(settings.items()))


def row_of(run: Run, sampling: Sampling) -> dict[str, object]:
    """Return the row of a finished run: it is sampled and judged, on one thread."""
    torch.set_num_threads(1)
    configuration, network, _ = load_run(run)
    states = sampling.draw(network, configuration)
    check_finite(states, run)
    report = evaluate(network, configuration, states, sampling.seed)
    numbers = {name: f"{report.estimates[name].value:.6g}" for name in METRICS if name in report.estimates}
    epochs = read_checkpoint(run.last_checkpoint)["epochs_done"]
    return (
        describe(run, configuration)
        | {"epochs": epochs}
        | _columns(sampling)
        | {"code_version": code_version()}
        | numbers
    )


def _columns(sampling):
    values = (sampling.number_of_samples, sampling.time_steps, sampling.corrector_steps, sampling.start, sampling.seed)
    return dict(zip(SAMPLING, map(str, values), strict=True))


def read_results(path: Path) -> list[dict[str, str]]:
    """Return the rows of a results file, none where there is no file, without the half of a last line.

    Raises UserError for another kind of file, or naming the line and what is wrong with it.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")[:-1]  # no cell holds a line break
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: it is no table of results: not UTF-8 text") from error
    if lines and lines[0] != ",".join(COLUMNS):
        raise UserError(f"{path}: its columns are not those of this version; move it away, or use that version")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            rows.append(_read_row(line))
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path}, line {number}: {error}; remove the line, and its run is judged again") from error
    return rows


def _read_row(line):
    (cells,) = csv.reader([line], strict=True)
    if len(cells) != len(COLUMNS):
        raise ValueError(f"it has {len(cells)} cells instead of {len(COLUMNS)}")
    row = dict(zip(COLUMNS, cells, strict=True))
    for name, (what, fits) in CELLS.items():
        if not fits(row[name]):
            raise ValueError(f"{name}: should be {what}, given {row[name][:40]!r}")
    return row


def _is_number(text):
    try:
        return abs(float(text or 0)) < 1e300 or math.isnan(float(text))
    except ValueError:
        return False


CELLS = {name: ("a number", _is_number) for name in ("weight", *METRICS)}
CELLS |= {name: ("a whole number", re.compile("[0-9]{1,19}").fullmatch) for name in ("seed", "epochs")}
CELLS |= {
    name: ("16 hexadecimal digits", re.compile("[0-9a-f]{16}").fullmatch) for name in ("key", "group", "baseline")
}
CELLS["oracle"] = ("True or False", ("True", "False").__contains__)


def processes(number: int) -> Executor:
    """Return a pool of processes that end with this one, however it ends; a Ctrl-C ends them at once."""
    return ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent():
    def wait():
        parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=wait, daemon=True).start()


def collect(runs: Iterable[Run], path: Path, sampling: Sampling, pool: Executor) -> Iterator[tuple[Run, str | None]]:
    """Judge the runs that the file does not hold, in a pool of processes, and append their rows as they come.

    Yields each run with None, or with what was wrong. Raises UserError where the file was made with other sampling, or
    another process is at it.
    """
    try:
        with locked(path.with_name(f".{path.name}.lock")):
            yield from _collect(runs, path, sampling, pool)
    except BlockingIOError as error:
        raise UserError(f"{path}: {error} writes it; wait for that, or give another --results") from error


def _collect(runs, path, sampling, pool):
    held = read_results(path)
    wanted = _columns(sampling)
    for row in held:
        for name, value in wanted.items():
            if row[name] != value:
                raise UserError(f"{path}: {name} is {row[name]} there and {value} now; give the same, or another file")
    known = {row["key"] for row in held}
    missing = [run for run in runs if fingerprint(read_configuration(run.configuration_file)) not in known]
    with path.open("a+", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        whole = path.read_bytes().rpartition(b"\n")
        file.truncate(len(whole[0] + whole[1]))  # without the half of a line, after a kill
        if not whole[0]:
            writer.writeheader()
        futures = {pool.submit(row_of, run, sampling): run for run in missing}
        finished = as_completed(futures)
        for future in tqdm(finished, "judged", len(futures), unit="run", disable=None if futures else True):
            try:
                writer.writerow(future.result())
            except UserError as error:
                yield futures[future], str(error)
            else:
                file.flush()
                yield futures[future], None
