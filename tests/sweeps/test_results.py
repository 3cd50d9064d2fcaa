"""results.csv: an export of what was evaluated, with standard errors; columns may be missing, wrong cells are named."""

import math

import pytest
from analysed import SAMPLING
from rows import FOKKER_PLANCK, make_record

from utils.evaluation.estimates import Estimate
from utils.files import UserError
from utils.sweeps.paired import groups
from utils.sweeps.results import read_results, row_of, write_results


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.csv"


def row(*overrides, **values):
    return row_of(make_record(FOKKER_PLANCK, *overrides, **values))


def test_what_is_written_is_read_back_with_standard_errors_but_not_for_another_sampling(path):
    one = row("regularizer.weight=0.5", path_kl=Estimate(0.25, 0.125, 9), radial_ks=Estimate(1.0, None, 3))
    other = row("seed=3", "data={batch_size: 64}", radial_ks=Estimate(math.inf, math.nan, 9))  # it diverged
    write_results(path, [one, other])
    found = read_results(path, SAMPLING)
    assert list(found) == [one["key"], other["key"]] and found[one["key"]] == one
    assert float(found[other["key"]]["radial_ks"]) == math.inf
    assert (one["path_kl"], one["path_kl_standard_error"], one["radial_ks_standard_error"]) == ("0.25", "0.125", "")
    assert (one["weight"], one["oracle"], one["sampling_time_steps"]) == ("0.5", "False", "10")
    assert (found[other["key"]]["path_kl"], other["training_seed"]) == ("", "3")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # as a spreadsheet saves it
    assert read_results(path, SAMPLING) == found
    with pytest.raises(UserError, match=r"results\.csv: time_steps is 10 there and 100 now; give the same, or another"):
        read_results(path, SAMPLING.model_copy(update={"time_steps": 100}))


def test_old_rows_have_no_value_of_a_newer_metric_and_keep_those_of_one_that_is_gone(path):
    write_results(path, [row(path_kl=1.0, removed=5.0)])
    write_results(path, [*read_results(path, SAMPLING).values(), row("seed=7", path_kl=2.0, added=3.0)])
    rows = read_results(path, SAMPLING).values()
    assert [one["added"] for one in rows] == ["", "3"] and [one["removed"] for one in rows] == ["5", ""]
    (group,) = groups(rows, [])
    assert group.mean("path_kl").value == 1.5
    assert group.mean("added").seeds == 2 and math.isnan(group.mean("added").half_width)  # and not of the other alone


def test_cell_that_is_no_number_is_named_with_its_line(path):
    wrong = ("path_kl", "x"), ("path_kl", "1,5"), ("epochs", "many"), ("weight", "1e"), ("training_seed", "-")
    for column, value in wrong:
        write_results(path, [row("seed=1", path_kl=1.0), row(path_kl=1.0) | {column: value}])
        with pytest.raises(UserError, match=f"results.csv, line 3: {column}: should be a number, given '{value}'"):
            read_results(path, SAMPLING)


def test_file_that_is_no_table_of_results_and_row_of_another_length_are_named(path):
    assert read_results(path, SAMPLING) == {}  # no file is no row
    write_results(path, [row(path_kl=1.0)])
    whole = path.read_bytes()
    longer, cut = whole[:-1] + b",more\n", whole[: whole.rindex(b",", 0, -30)]  # as a full disk or a hand may leave it
    damages = dict.fromkeys((b"", b"name,size\na,1\n", b"\xff\xfe\x00", b'key,"\n'), ": it is no table of results")
    damages |= {longer: ", line 2: it has more cells than the heading", cut: ""}
    for content, said in damages.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"results\.csv{said}"):
            read_results(path, SAMPLING)
