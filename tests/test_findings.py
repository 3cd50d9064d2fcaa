"""FINDINGS.md says what results.csv holds, and nothing else."""

from pathlib import Path

import pytest

import findings.__main__ as findings
from utils import sweep_results
from utils.experiments import ROOT
from utils.statistics import mean_over_seeds, paired_difference


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


def test_every_sweep_has_its_own_name_and_configuration(found):
    assert {group.sweep for group in found.groups} <= {"shipped", "weights", "variants", "long"}
    for row in found.rows:
        assert tuple(row) == sweep_results.COLUMNS
