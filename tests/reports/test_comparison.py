"""What sets analysed runs side by side: each problem for itself, with its own exact score; numbers agree everywhere."""

import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from analysed import OF_A_RUN, OF_SEVERAL, Page, analyse, cheaply, leave_run, rows_of, without_figures, write_run
from conftest import copy_training, use_training_folder

from utils.evaluation import registry
from utils.evaluation.registry import METRICS
from utils.reports import comparison
from utils.reports.formatting import MISSING, half_width, with_interval
from utils.runs.loading import configure
from utils.runs.run import Run
from utils.runs.store import Record

OWN = {  # problems that are not that of base_config.yaml
    "three": "toy_problem.equilibrium_relative_coordinates=[[0.1],[0.45],[0.8]]",
    "mixture": "toy_problem={type: gaussian_mixture, gaussians: ["
    "{weight: 1, sigma_d: 0.01, equilibrium_relative_coordinates: [[0.25],[0.75]]}, "
    "{weight: 4, sigma_d: 0.03, equilibrium_relative_coordinates: [[0.4],[0.6]]}]}",
}
GROUPS = [
    ["analytical", "no_regularizer", "no_regularizer, short"],
    ["analytical (problem of fokker_planck_regularizer, three)", "fokker_planck_regularizer, three"],
    ["analytical (problem of no_regularizer, mixture)", "no_regularizer, mixture"],
]


def records(output):
    return {record.title: record for record in map(Record.read, output.rglob("metrics.json"))}


def tables_of(output):
    """Return the rows of each table of headline numbers, by the title of the run."""
    tables = [table for table in Page(output / "index.html").tables if table[0][1].startswith("path KL")]
    return [{row[0].removesuffix(" control"): row[1:] for row in table[1:]} for table in tables]


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """The analysis of two runs of one experiment, and of two that have other problems, in a single call."""
    folder = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        use_training_folder(copy_training(folder), patch)
        texts, said = cheaply(patch), []
        without_figures(patch, *OF_A_RUN, OF_SEVERAL[-1])
        patch.setattr(registry, "METRICS", {n: one for n, one in METRICS.items() if not n.startswith("ode_")})
        patch.setattr("utils.reports.page.print", said.append, raising=False)
        leave_run("no_regularizer")
        leave_run("no_regularizer", "short", "seed=5")
        leave_run("no_regularizer", "mixture", OWN["mixture"])
        leave_run("fokker_planck_regularizer", "three", OWN["three"])
        names = ("no_regularizer", *(f"no_regularizer/{name}" for name in ("short", "mixture")))
        assert analyse(folder / "out", "--experiments", *names, "fokker_planck_regularizer/three") == 0
        yield SimpleNamespace(output=folder / "out", said=said, texts=texts)


def test_every_problem_has_the_row_of_its_own_exact_score(analysed):
    """Where it were that of base_config.yaml, its path KL would not be 0."""
    found = records(analysed.output)
    assert sorted(found) == sorted(title for group in GROUPS for title in group)
    for group, words in zip(GROUPS, ([], *([words] for words in OWN.values())), strict=True):
        problem = configure("no_regularizer", words).problem
        assert all(found[title].problem == problem for title in group)
        assert [found[title].estimates["path_kl"].value == 0 for title in group] == [True, *(False for _ in group[1:])]


def test_problems_have_tables_and_figures_of_their_own_and_it_is_said_that_they_differ(analysed):
    page = Page(analysed.output / "index.html").text
    assert "These runs are of 3 different problems" in page and "Problem: as in base_config.yaml" in page
    for text in (page, analysed.said[-1]):
        assert text.count("Problem: ") == 3 and "[[0.1], [0.45], [0.8]]" in text and '"gaussian_mixture"' in text
    assert [list(table) for table in tables_of(analysed.output)] == GROUPS
    titles = {title for group in GROUPS for title in group}
    for name in ("score_error_comparison", "drift_comparison", "samples_comparison", "learning_curves"):
        for group, ending in zip(GROUPS, ("", "_2", "_3"), strict=True):
            words = "\n".join(analysed.texts[analysed.output / f"{name}{ending}.png"]).split("\n")
            shown = titles & {word.removesuffix(" (0 up to rounding)") for word in words}
            assert shown == set(group if name != "learning_curves" else group[1:])
    assert "Samples" in analysed.texts[analysed.output / "samples_comparison.png"]
    title = "Samples, those in the slice in which the other coordinates are 0.8"
    assert title in analysed.texts[analysed.output / "samples_comparison_2.png"]


def test_numbers_agree_wherever_they_stand(analysed):
    rows = {(row["experiment"], row["run"]): row for row in rows_of(analysed.output / "summary.csv")}
    tables, said = tables_of(analysed.output), analysed.said[-1].splitlines()
    for title, record in records(analysed.output).items():
        row = rows[record.facts["experiment"], record.facts["run"]]
        for name, (value, error, *_) in record.estimates.items():
            written = float(row[name]), float(row[f"{name}_standard_error"] or "nan")
            assert written == pytest.approx((value, math.nan if error is None else error), rel=1e-2, nan_ok=True)
        names = [name for name, one in METRICS.items() if one.headline and name in record.estimates]
        cells = next(table[title] for table in tables if title in table)
        assert [cell.removeprefix("★ best: ") for cell in cells] == [text(record, name) for name in names]
        short = title.replace("fokker_planck_regularizer", "fokker_planck")
        line = next(line for line in said if line.startswith(f"{short}  "))
        assert all(text(record, name, 1) in line for name in names) and line.count(MISSING) == 1  # that of the ODE


def text(record, name, digits=2):
    factor, estimate = METRICS[name].factor, record.estimates[name]
    return with_interval(factor * estimate.value, factor * half_width(estimate), digits)


def test_analysing_a_part_keeps_the_whole_and_what_is_removed_is_gone(analysed, tmp_path, monkeypatch):
    without_figures(monkeypatch, *OF_SEVERAL)
    output = shutil.copytree(analysed.output, tmp_path / "out")
    before, said = [(output / "summary.csv").read_bytes(), Page(output / "index.html").tables], analysed.said[-1]
    assert analyse(output, "--experiments", "no_regularizer/short") == 0
    assert [(output / "summary.csv").read_bytes(), Page(output / "index.html").tables] == before
    assert analysed.said[-1].partition("Pictures,")[0] == said.partition("Pictures,")[0]
    written = {path.relative_to(output) for path in analysed.texts if path.is_relative_to(output)}
    assert {path.name for path in written if len(path.parts) == 1} == {path.name for path in output.glob("*.png")}
    assert {str(path.parent) for path in written} == {".", "no_regularizer/short"}  # no other run was analysed again
    for name in ("analytical/no_regularizer,mixture", "no_regularizer/mixture"):
        shutil.rmtree(output / name)
    comparison.compare(output)
    assert len(rows_of(output / "summary.csv")) == 5 and not list(output.glob("*_3.png"))


def test_damaged_samples_and_learning_curves_are_named_and_the_others_are_drawn(training, tmp_path, monkeypatch):
    texts, files = cheaply(monkeypatch), {}
    without_figures(monkeypatch, OF_SEVERAL[-1])
    monkeypatch.setattr(comparison, "FIGURES", {})
    for run in ("cut", "half", "no_array", "whole"):
        leave_run("no_regularizer", run)
        files[run] = write_run(tmp_path, "no_regularizer", {}, run=run).folder / "samples.npz"
        np.savez(files[run], **{"other" if run == "no_array" else "samples": np.zeros((9, 2, 1))})
    files["cut"].write_bytes(files["cut"].read_bytes()[:100])
    curves = [Run("no_regularizer", run).curves_file for run in ("half", "whole")]
    curves[0].write_text("epoch,")
    curves[1].unlink()
    problems = comparison.compare(tmp_path)[1]
    expected = [files["cut"], files["no_array"], curves[0]]  # "whole" was removed from training/ since
    assert [line.partition(": ")[0] for line in problems] == list(map(str, expected))
    drawn = {path.name: " ".join(words) for path, words in texts.items()}
    assert "no_regularizer, half" in drawn["samples_comparison.png"]
    assert "no_regularizer, cut" in drawn["learning_curves.png"] and "half" not in drawn["learning_curves.png"]
