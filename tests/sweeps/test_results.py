"""results.csv: an export of what was evaluated, with standard errors; columns may be missing, wrong cells are named."""

import csv
import math

import pytest

from utils.evaluation.estimates import Estimate
from utils.files import UserError
from utils.runs.loading import configure
from utils.runs.run import Run
from utils.runs.store import Record, what_was_trained
from utils.score.samplers import Sampling
from utils.sweeps.paired import groups
from utils.sweeps.results import read_results, row_of, write_results

SAMPLING = Sampling(number_of_samples=40, time_steps=5)


def record(tmp_path, *overrides, **estimates):
    run = Run("fokker_planck_regularizer", "tried/seed=1")
    facts = {"experiment": run.experiment, "run": run.name, "epochs": 4, "code_version": "abc"}
    facts |= what_was_trained(run, configure(run.experiment, overrides)) | {"sampling": SAMPLING.model_dump()}
    return Record(facts, estimates, {}, {}, tmp_path)


def test_what_is_written_is_read_back_with_standard_errors(tmp_path):
    one = record(tmp_path, "regularizer.weight=0.5", path_kl=Estimate(0.25, 0.125, 9), radial_ks=Estimate(1.0, None, 3))
    path = tmp_path / "results.csv"
    write_results(path, [row_of(one)])
    ((key, row),) = read_results(path, SAMPLING).items()
    assert key == one.facts["key"] and row == row_of(one)
    assert (row["path_kl"], row["path_kl_standard_error"], row["radial_ks_standard_error"]) == ("0.25", "0.125", "")
    assert (row["weight"], row["oracle"], row["sampling_time_steps"]) == ("0.5", "False", "5")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_diverged_run_makes_no_file_unreadable(tmp_path, value):
    path = tmp_path / "results.csv"
    write_results(path, [row_of(record(tmp_path, path_kl=Estimate(value, math.nan, 9)))])
    (row,) = read_results(path, SAMPLING).values()
    assert float(row["path_kl"]) == pytest.approx(value, nan_ok=True)
    (group,) = groups([row], [row])
    assert group.mean("path_kl") is None or not math.isfinite(group.mean("path_kl").value)


def test_rows_without_a_column_read_as_missing_beside_newer_ones(tmp_path):
    old, new = (
        record(tmp_path, path_kl=Estimate(1.0, 0.1, 9)),
        record(tmp_path, "seed=7", path_kl=Estimate(2.0, 0.1, 9)),
    )
    path = tmp_path / "results.csv"
    write_results(path, [row_of(old)])
    rows = read_results(path, SAMPLING)
    newer = row_of(new) | {"brand_new_metric": "3"}
    write_results(path, [*rows.values(), newer])
    rows = read_results(path, SAMPLING)
    assert [row["brand_new_metric"] for row in rows.values()] == ["", "3"]
    (group,) = groups(rows.values(), [])
    assert group.mean("path_kl").value == 1.5


def test_other_sampling_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    write_results(path, [row_of(record(tmp_path))])
    with pytest.raises(UserError, match="time_steps is 5 there and 100 now"):
        read_results(path, Sampling(number_of_samples=40))


@pytest.mark.parametrize(
    ("column", "value"), [("path_kl", "x"), ("epochs", "many"), ("weight", "1e"), ("training_seed", "-")]
)
def test_cell_that_is_no_number_is_named_with_its_line(tmp_path, column, value):
    path = tmp_path / "results.csv"
    write_results(path, [row_of(record(tmp_path, path_kl=Estimate(1.0, 0.1, 9))) | {column: value}])
    with pytest.raises(UserError, match=f"results.csv, line 2: {column}: should be a number, given '{value}'"):
        read_results(path, SAMPLING)


@pytest.mark.parametrize("content", [b"", b"name,size\na,1\n", b"\xff\xfe\x00", b'key,"\n'])
def test_file_that_is_no_table_of_results_is_named(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"results\.csv: it is no table of results"):
        read_results(path, SAMPLING)


def test_row_with_too_many_cells_is_named_and_no_file_is_no_row(tmp_path):
    path = tmp_path / "results.csv"
    assert read_results(path, SAMPLING) == {}
    write_results(path, [row_of(record(tmp_path))])
    lines = list(csv.reader(path.open()))
    with path.open("a") as file:
        csv.writer(file).writerow([*lines[1], "more"])
    with pytest.raises(UserError, match="line 3: it has more cells than the heading"):
        read_results(path, SAMPLING)
