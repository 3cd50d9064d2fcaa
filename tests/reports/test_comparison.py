"""What sets analysed runs side by side: each problem for itself, with its own exact score; numbers agree everywhere."""

import contextlib
import csv
import io
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from analysed import WORDS, Page, leave_run, with_few_points, without_drawing, write_run
from conftest import copy_training, use_training_folder

import analyse_experiments
from utils.evaluation.registry import METRICS
from utils.reports.comparison import compare, headline
from utils.reports.formatting import half_width, with_interval
from utils.reports.page import write_page
from utils.runs.loading import configure
from utils.runs.run import Run
from utils.runs.store import Record

THREE = "toy_problem.equilibrium_relative_coordinates=[[0.1],[0.45],[0.8]]"
ONE, FOUR = (
    f"{{weight: {weight}, sigma_d: {width}, equilibrium_relative_coordinates: {positions}}}"
    for weight, width, positions in ((1, 0.01, "[[0.25],[0.75]]"), (4, 0.03, "[[0.4],[0.6]]"))
)
MIXTURE = f"toy_problem={{type: gaussian_mixture, gaussians: [{ONE}, {FOUR}]}}"
OWN = {"three": [THREE], "mixture": [MIXTURE]}
RUNS = ["no_regularizer", "no_regularizer/short", "fokker_planck_regularizer/three", "no_regularizer/mixture"]
GROUPS = {  # of the base, and of those of other problems
    "three": ["analytical (problem of fokker_planck_regularizer,three)", "fokker_planck_regularizer, three"],
    "mixture": ["analytical (problem of no_regularizer,mixture)", "no_regularizer, mixture"],
    "base": ["analytical", "no_regularizer", "no_regularizer, short"],
}


def analyse(output, *names):
    """Return the exit status, and what is said."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = analyse_experiments.main([*WORDS, "--output-dir", str(output), "--experiments", *names])
    return status, out.getvalue(), err.getvalue()


def rows_of(output):
    with (output / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {(row["experiment"], row["run"]): row for row in csv.DictReader(file)}


def records(output):
    return [Record.read(path) for path in sorted(output.rglob("metrics.json"))]


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """The analysis of two runs of one experiment, and of two that have other problems, in a single call."""
    folder = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        use_training_folder(copy_training(folder), patch)
        with_few_points(patch)
        texts = without_drawing(patch)
        for name in ("samples", "radial_distribution", "score_error", "maps"):  # of one run
            patch.setattr(f"utils.plots.experiment_figures.{name}_figure", lambda *_: None)
        for name in RUNS:
            run = name.partition("/")[2]
            leave_run(name.partition("/")[0], run or "run1", *OWN.get(run, [f"seed={len(run)}"]))
        status, out, err = analyse(folder / "out", *RUNS)
        assert (status, err) == (0, "")
        yield SimpleNamespace(output=folder / "out", said=out, texts=texts)


def test_every_problem_has_the_row_of_its_own_exact_score(analysed):
    """Where it were that of base_config.yaml, its path KL would not be 0."""
    rows = rows_of(analysed.output)
    assert set(rows) == {
        *(("analytical", name) for name in ("run1", "fokker_planck_regularizer,three", "no_regularizer,mixture")),
        *(tuple(name.split("/")) if "/" in name else (name, "run1") for name in RUNS),
    }
    for (experiment, _), row in rows.items():
        assert (float(row["path_kl"]) == 0) == (experiment == "analytical")
    for run, words in OWN.items():
        problem = configure("no_regularizer", words).problem
        assert [r.facts["experiment"] for r in records(analysed.output) if r.problem == problem][0] == "analytical"
        assert [r.title for r in records(analysed.output) if r.problem == problem] == GROUPS[run]


def test_problems_have_tables_and_figures_of_their_own_and_it_is_said_that_they_differ(analysed):
    page = Page(write_page(analysed.output)[0])
    assert "These runs are of 3 different problems" in page.text
    tables = [
        [row[0].removesuffix(" control") for row in table[1:]] for table in page.tables if "path KL" in table[0][1]
    ]
    assert sorted(tables) == sorted(GROUPS.values()) and tables[0] == GROUPS["base"]
    assert "Problem: as in base_config.yaml" in page.text
    for text in (page.text, analysed.said):
        assert text.count("Problem: ") == 3 and "[[0.1], [0.45], [0.8]]" in text and '"gaussian_mixture"' in text
    for name in ("score_error_comparison", "drift_comparison", "samples_comparison", "learning_curves"):
        for number, titles in enumerate(tables, 1):
            ending = f"_{number}" if number > 1 else ""
            said = "\n".join(analysed.texts[analysed.output / f"{name}{ending}.png"])
            shown = [title for title in sum(GROUPS.values(), []) if f"\n{title}" in f"\n{said}"]
            expected = titles if name != "learning_curves" else titles[1:]
            assert {title for title in shown if title not in ("analytical", "no_regularizer")} <= set(expected)
            assert set(expected) <= set(shown)


def test_pictures_of_three_atoms_say_that_they_show_a_slice(analysed):
    texts = {path.name: "\n".join(words) for path, words in analysed.texts.items()}
    assert "density of the slice" in texts["marginal_distribution_2.png"]
    assert "Samples, those in the slice in which the other coordinates are 0.8" in texts["samples_comparison_2.png"]
    assert "slice" not in texts["samples_comparison.png"] + texts["marginal_distribution.png"]


def test_numbers_agree_wherever_they_stand(analysed):
    page, rows = Page(write_page(analysed.output)[0]), rows_of(analysed.output)
    cells = {row[0].removesuffix(" control"): row for table in page.tables for row in table if "–" not in row[0]}
    said = {line.split("  ")[0]: line for line in analysed.said.splitlines()}
    for record in records(analysed.output):
        row = rows[record.facts["experiment"], record.facts["run"]]
        for name, estimate in record.estimates.items():
            assert float(row[name]) == estimate.value or np.isnan(estimate.value)
            assert row[f"{name}_standard_error"] == str(estimate.standard_error or row[f"{name}_standard_error"])
        shown = [with_interval(*numbers(record, name)) for name in headline()]
        assert [cell.removeprefix("★ best: ") for cell in table_row(page, record)[1:]] == shown
        line = next(line for title, line in said.items() if title == record.title)
        assert all(with_interval(*numbers(record, name), 1) in line for name in headline())


def numbers(record, name):
    factor, estimate = METRICS[name].factor, record.estimates[name]
    return factor * estimate.value, factor * half_width(estimate)


def table_row(page, record):
    tables = (row for table in page.tables if "path KL" in table[0][1] for row in table)
    return next(row for row in tables if row[0].removesuffix(" control") == record.title)


def test_analysing_a_part_keeps_the_whole(analysed):
    output = analysed.output
    before, page = (output / "summary.csv").read_bytes(), Page(output / "index.html")
    figures = {path.name for path in output.glob("*.png")}
    analysed.texts.clear()
    status, out, _ = analyse(output, "no_regularizer/short")
    assert status == 0 and (output / "summary.csv").read_bytes() == before
    assert out.partition("\n\n")[2] == analysed.said.partition("\n\n")[2]
    assert [table for table in Page(output / "index.html").tables] == page.tables
    assert {path.name for path in analysed.texts if path.parent == output} == figures
    assert {path.parent.name for path in analysed.texts} == {"out", "short"}  # no other run was analysed again


def test_figures_of_runs_that_are_gone_go_as_well(analysed, tmp_path):
    output = shutil.copytree(analysed.output, tmp_path / "out")
    for name in ("analytical/no_regularizer,mixture", "no_regularizer/mixture"):
        shutil.rmtree(output / name)
    compare(output)
    assert (output / "score_error_comparison_2.png").exists() and not list(output.glob("*_3.png"))
    assert len(rows_of(output)) == 5


def test_damaged_samples_and_learning_curves_are_named_and_the_others_are_drawn(training, tmp_path, monkeypatch):
    texts, output = without_drawing(monkeypatch), tmp_path / "out"
    for run in ("cut", "half", "no_array", "whole"):
        np.savez_compressed(
            write_run(output, "no_regularizer", {}, run=run).folder / "samples.npz", samples=np.zeros((9, 2, 1))
        )
        leave_run("no_regularizer", run)
    path = output / "no_regularizer" / "cut" / "samples.npz"
    path.write_bytes(path.read_bytes()[:100])
    np.savez(output / "no_regularizer" / "no_array" / "samples.npz", other=np.zeros(3))
    Run("no_regularizer", "half").curves_file.write_text("epoch,")
    Run("no_regularizer", "whole").curves_file.unlink()
    problems = compare(output)[1]
    assert [line.partition(": ")[0] for line in problems] == [
        str(path),
        str(output / "no_regularizer" / "no_array" / "samples.npz"),
        *(str(Run("no_regularizer", run).curves_file) for run in ("half", "whole")),
    ]
    drawn = {path.name: " ".join(words) for path, words in texts.items()}
    assert "no_regularizer, half" in drawn["samples_comparison.png"]
    assert "no_regularizer, cut" in drawn["learning_curves.png"] and "half" not in drawn["learning_curves.png"]
