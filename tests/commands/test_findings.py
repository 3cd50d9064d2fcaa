"""FINDINGS.md says what results.csv holds, and nothing else."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import findings.__main__ as findings
from findings import ode_check
from utils.reports.sweep import PAIRED
from utils.runs.loading import ROOT, UserError, configure
from utils.sweeps import results as sweep_results
from utils.sweeps.paired import mean_over_seeds, paired_difference
from utils.sweeps.plan import plan


@pytest.fixture(scope="module")
def found():
    return findings.Findings(findings.RESULTS)


def test_committed_page_is_the_one_that_the_results_give(monkeypatch, tmp_path):
    """Whoever adds rows, or mends the text, runs `python -m findings` as well."""
    committed = (findings.HERE / "FINDINGS.md").read_text(encoding="utf-8")
    for name in ("FINDINGS.md.jinja", "results.csv"):
        (tmp_path / name).write_text((findings.HERE / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(findings, "HERE", tmp_path)
    findings.main()
    assert (tmp_path / "FINDINGS.md").read_text(encoding="utf-8") == committed
    assert {path.name for path in tmp_path.glob("*.png")} == {
        path.name for path in Path(ROOT, "findings").glob("*.png")
    }


def test_no_run_is_there_twice(found):
    keys = [row["key"] for row in found.rows]
    assert len(keys) == len(set(keys)) > 0


def test_tables_hold_the_means_and_differences_of_the_rows(found):
    """Recomputed from the raw rows for the Fokker-Planck experiment as it is shipped."""

    def values(experiment):
        rows = [r for r in found.rows if r["sweep"] == "shipped" and r["experiment"] == experiment]
        return [float(row["path_kl"]) for row in sorted(rows, key=lambda row: int(row["seed"]))]

    penalised, plain = values("fokker_planck_regularizer"), values("no_regularizer")
    (group,) = found.of("shipped", experiment="fokker_planck_regularizer")
    assert len(plain) >= 5
    assert group.means["path_kl"].value == pytest.approx(mean_over_seeds(penalised).value)
    assert group.differences["path_kl"] == pytest.approx(paired_difference(penalised, plain))


def test_rows_are_of_the_trainings_that_the_sweeps_plan(found):
    """So the commands of the page repeat them, whatever has changed in the settings since."""
    sweeps = [Path(ROOT, "training", "sweep_config.yaml"), *Path(ROOT, "findings", "sweeps").glob("*.yaml")]
    planned = [run for path in sweeps for run in plan(path)]
    keys = {(run.run.sweep, sweep_results.fingerprint(run.configuration)) for run in planned}
    assert {(row["sweep"], row["key"]) for row in found.rows} == keys


def test_every_training_is_paired_with_its_baseline_on_all_its_seeds(found):
    for group in found.groups:
        if group.weight is not None:
            assert group.differences["path_kl"].seeds == len(group.runs) >= 5, group.title
            value, low, high = found.percent("path_kl", group)
            assert low <= value <= high


def test_readme_has_the_numbers_of_the_results(found):
    lines = Path(ROOT, "README.md").read_text(encoding="utf-8").splitlines()
    for group in found.of("shipped"):
        cells = [f"`{group.experiment}`" + (" (oracle)" if group.oracle else "")]
        for metric in PAIRED:
            cells += [found.number(metric, group), found.difference(metric, group) if group.differences else ""]
        assert "| " + " | ".join(cells) + " |" in lines


def sign(difference):
    """Return the sign of a difference whose interval leaves out zero, or 0."""
    return (difference.low > 0) - (difference.high < 0)


def signs(group, metrics=PAIRED, differences=None):
    return [sign((differences or group.differences)[metric]) for metric in metrics]


def test_sentences_without_numbers_hold(found):
    """In the order of the page; of path KL, strays and ODE KL where no other number is named."""
    for sweep in ("shipped", "confirm"):
        assert signs(found.one(sweep, experiment="fokker_planck_regularizer", regime="")) == [-1, 0, -1]
    assert signs(found.one("shipped", experiment="consistency_regularizer")) == [0, 0, 0]
    oracles_path_kl = [group.means["path_kl"].value for group in found.of("shipped", oracle=True)]
    assert found.one("long", weight=None, epochs=1000).means["path_kl"].value < min(oracles_path_kl)
    for group in found.of("shipped"):  # none is worse
        assert not group.differences or max(signs(group, ("path_kl", "stray_fraction"))) <= 0
    (longer,) = found.of("confirm", weight=0.1)
    assert signs(longer) == [0, 0, 0]
    for group, other in found.equal_cost_pairs():
        path_kl, strays, ode_kl = signs(group, differences=group.differences_to(other))
        assert group.oracle or min(path_kl, strays, ode_kl) >= 0
        assert group.oracle or path_kl == 1 or group.epochs > 200
        assert strays == -1 or group.weight < 0.1 or not group.oracle
    for weight in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        assert signs(found.one("weights", experiment="fokker_planck_regularizer", weight=weight)) == [0, 0, -1]
    for weight in (1e-5, 1e-4, 1e-3):
        assert signs(found.one("weights", experiment="consistency_regularizer", weight=weight)) == [0, 0, 0]
    for group in found.of("weights", oracle=True, weight=0.1):
        assert sign(group.differences["path_kl"]) == -1 and group.means["stray_fraction"].value == 0
        ruined = found.one("weights", experiment=group.experiment, weight=1.0)
        assert ruined.means["path_kl"].value > group.means["path_kl"].value
    least = {}  # the smallest weight of each experiment
    for group in found.of("weights"):
        if group.weight is not None:
            least.setdefault(group.experiment, group)
    assert all(abs(group.differences["path_kl"].value) < 0.001 for group in least.values())
    frozen = found.regime("fresh_noise=false")
    assert signs(found.one("variants", experiment="consistency_regularizer", regime=frozen)) == [-1, 0, 0]
    assert signs(found.one("variants", experiment="fokker_planck_regularizer", regime=frozen)) == [0, 0, -1]
    assert signs(found.one("variants", setting='points="noised"')) == [0, 0, 0]


def test_what_is_said_of_the_field_holds(found):
    """Score error, advective residual and excess gap: at noised points, at uniform ones."""
    expected = {
        "fokker_planck_regularizer": [-1, 0, -1, 0, -1, 0],
        "consistency_regularizer": [0, -1, 0, 1, 0, 1],
        "analytical_regression_regularizer": [0, -1, 1, 1, 1, 1],
        "consistency_with_analytical_guide_regularizer": [0, -1, 0, 1, 0, 1],
    }
    for experiment, effects in expected.items():
        assert signs(found.one("shipped", experiment=experiment), findings.EFFECTS) == effects
        assert configure(experiment).regularizer.points == ("noised" if "planck" in experiment else "uniform")
    assert configure("fokker_planck_regularizer").regularizer.residual == "advective"
    (longer,) = found.of("confirm", weight=0.1)
    effects = ("residual_advective_noised", "consistency_excess_noised", "score_error_uniform")
    assert signs(longer, effects) == [-1, -1, 1]
    residuals = [
        group.means["residual_advective_noised"].value
        for group in found.of("weights")
        if group.weight is None or group.experiment == "fokker_planck_regularizer"
    ]
    assert residuals == sorted(residuals, reverse=True) and len(residuals) == 7


def test_check_of_the_ode_is_of_the_confirmed_trainings(found, tmp_path):
    """Its means are further from the table's than the seeds' intervals reach, as the page says."""
    rows = list(csv.DictReader((findings.HERE / "ode_check.csv").open()))
    plain = [float(row["ode_kl"]) for row in rows if row["experiment"] == "no_regularizer"]
    assert len(rows) == 40 and found.ode_check()["plain"].startswith(f"{np.mean(plain):.3f} [")
    assert np.mean(plain) > found.one("confirm", experiment="no_regularizer", regime="").means["ode_kl"].high
    (tmp_path / "results.csv").write_bytes(findings.RESULTS.read_bytes())
    kept = (findings.HERE / "ode_check.csv").read_text().splitlines(keepends=True)
    for fewer in (kept[:1], kept[:-1], [*kept, "no_regularizer,77,0.1,0.1\n"]):
        (tmp_path / "ode_check.csv").write_text("".join(fewer))
        with pytest.raises(UserError, match=r"ode_check\.csv: it holds other trainings"):
            findings.Findings(tmp_path / "results.csv").ode_check()


def test_check_of_the_ode_is_not_lost_where_the_trainings_are_not_there(training, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ode_check, "TABLE", tmp_path / "ode_check.csv")
    (tmp_path / "ode_check.csv").write_text("kept")
    assert ode_check.main() == 2
    assert (tmp_path / "ode_check.csv").read_text() == "kept"
    said = capsys.readouterr().err
    assert said.startswith("40 of the 40 trainings of the sweep `confirm`") and said.count("\n") == 1


@pytest.mark.parametrize(("word", "status"), [("--help", 0), ("--bogus", 2)])
def test_command_that_asks_for_something_else_writes_nothing(word, status):
    before = (findings.HERE / "FINDINGS.md").stat().st_mtime_ns
    done = subprocess.run([sys.executable, "-m", "findings", word], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status and "usage: python -m findings" in done.stdout + done.stderr
    assert (findings.HERE / "FINDINGS.md").stat().st_mtime_ns == before
