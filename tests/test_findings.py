"""FINDINGS.md says what results.csv holds, and nothing else."""

from pathlib import Path

import pytest

import findings.__main__ as findings
from utils import sweep_results
from utils.experiments import ROOT
from utils.statistics import mean_over_seeds, paired_difference
from utils.sweep_report import PAIRED
from utils.sweeps import plan


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


def test_sentences_without_numbers_hold(found):
    """In the order of the page."""
    for sweep in ("shipped", "confirm"):
        group = found.one(sweep, experiment="fokker_planck_regularizer", regime="")
        assert [sign(group.differences[metric]) for metric in PAIRED] == [-1, 0, -1]
    consistency = found.one("shipped", experiment="consistency_regularizer")
    assert not any(sign(consistency.differences[metric]) for metric in PAIRED)
    for group in found.of("shipped"):  # none is worse
        for metric in ("path_kl", "stray_fraction"):
            assert not group.differences or sign(group.differences[metric]) <= 0
    (longer,) = found.of("confirm", weight=0.1)
    assert not any(sign(longer.differences[metric]) for metric in PAIRED)
    assert sign(longer.differences["residual_score_fpe_noised"]) == -1
    for group, other in found.equal_cost_pairs():
        signs = {metric: sign(difference) for metric, difference in group.differences_to(other).items()}
        assert all(signs[metric] >= 0 for metric in PAIRED)
        assert signs["path_kl"] == 1 or group.epochs > 200
    for weight in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        group = found.one("weights", experiment="fokker_planck_regularizer", weight=weight)
        assert [sign(group.differences[metric]) for metric in PAIRED] == [0, 0, -1]
    for group in found.of("weights", oracle=True, weight=0.1):
        assert sign(group.differences["path_kl"]) == -1 and group.means["stray_fraction"].value == 0
