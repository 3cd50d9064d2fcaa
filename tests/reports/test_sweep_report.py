"""What a sweep shows: means over seeds, paired differences, and the same numbers on the terminal, in files and page."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from analysed import Page, analyse, leave_run, rows_of
from rows import FOKKER_PLANCK, make_record, make_rows
from scipy import stats

from utils.evaluation import registry
from utils.evaluation.estimates import Estimate
from utils.evaluation.registry import METRICS, metric
from utils.reports.formatting import MISSING
from utils.reports.sweep import weights_panes
from utils.runs import store
from utils.sweeps.paired import groups
from utils.sweeps.results import row_of, write_results


def test_means_and_paired_differences_agree_on_terminal_page_and_in_files(texts, tmp_path, capsys):
    """Of weight w, seeds 0 to 2 differ from the baseline by -0.1 w - 0.001 w seed: mean -0.101 w, deviation 0.001 w;
    path KL itself has the deviation 1 over seeds. Half-widths are those of Student's t with 2 degrees of freedom."""
    oracle = row_of(make_record("analytical_regression_regularizer", "seed=0", stray_fraction=0.02))
    oracle["oracle"] = "TRUE"  # as spreadsheets write it
    write_results(tmp_path / "results.csv", [*make_rows(0, 0.5, 1.0), oracle])
    assert analyse(tmp_path, "--sweep", "idea", "--results", str(tmp_path / "results.csv")) == 0
    said, folder = capsys.readouterr().out, tmp_path / "sweeps" / "idea"
    rows = {(row["experiment"], row["weight"]): row for row in rows_of(folder / "summary.csv")}
    assert [row["seeds"] for row in rows.values()] == ["3", "1", "3", "3"]
    half, logs = stats.t(2).ppf(0.975) / math.sqrt(3), np.log([0.9, 1.899 / 2, 2.898 / 3])
    width = logs.std(ddof=1) * half
    ratio = np.exp([logs.mean(), logs.mean() - width, logs.mean() + width])
    parts = ("mean", "half_width", "difference", "difference_half_width", "ratio", "ratio_low", "ratio_high")
    found = [float(rows[FOKKER_PLANCK, "1.0"][f"path_kl_{part}"]) for part in parts]
    assert found == pytest.approx([2 - 0.101, 0.999 * half, -0.101, 0.001 * half, *ratio])
    assert rows[FOKKER_PLANCK, "1.0"]["radial_p_value_ratio"] == ""  # which would say nothing
    (table,) = json.loads((folder / "table.json").read_text(encoding="utf-8"))["tables"].values()
    page = Page(tmp_path / "index.html")
    assert page.tables[0] == table
    numbers = ["1.9 ± 2.5", "{:.3g} ({:.3g} to {:.3g})".format(*ratio)]  # it includes 1, so there is no star
    assert page.row("no regularizer")[1:5] == ["3", "2.0 ± 2.5", "", MISSING]
    assert page.row("fokker planck, weight 1")[2:4] == numbers
    assert page.row("analytical regression, weight 0.001 (oracle)")[2:6] == [MISSING, "", MISSING, "2"]
    line = next(line for line in said.splitlines() if line.startswith("fokker planck, weight 1 "))
    assert all(number in line for number in numbers)
    assert all("half of the 95 % interval over seeds" in text for text in (said, page.text))
    assert page.attributes("src", "img") == ["sweeps/idea/weights.png"]
    curves, stripe = weights_panes(groups(make_rows(0, 0.5, 1.0), make_rows(0)))["path KL, nats"]
    shown = [1, 1.899, 1.899 - 0.999 * half, 1.899 + 0.999 * half]  # weight, mean, and the band
    assert [part[1] for part in curves[FOKKER_PLANCK]] == pytest.approx(shown)
    assert stripe == pytest.approx([2, 2 - half, 2 + half])
    other = row_of(make_record("stable_targets", "seed=0", path_kl=7.0))  # without a regularizer, but not plain
    assert weights_panes(groups([other, *make_rows(0.5, 1.0)], [other]))["path KL, nats"][1] is None
    on_figure = set(texts[folder / "weights.png"])  # of what no run has there is no pane
    assert {"path KL, nats", FOKKER_PLANCK} <= on_figure and "ODE KL, nats" not in on_figure


def test_runs_are_known_by_what_was_trained_and_what_is_left_out_is_named(texts, tmp_path, capsys, monkeypatch):
    words = ("--results", str(tmp_path / "results.csv"))
    leave_run("no_regularizer", "idea/seed=1", "seed=1", epochs=2)
    assert analyse(tmp_path, "--sweep", "idea", *words) == 2
    none = "no run of the sweep 'idea' has finished (1 begun); train it with `python -m training.sweep --config FILE`"
    left_out = "no_regularizer, idea/seed=1: not finished, left out"
    assert capsys.readouterr().err.splitlines() == [f"{none}, FILE having `name: idea`", left_out]
    run, damaged = (leave_run("no_regularizer", f"idea/seed={seed}", f"seed={seed}") for seed in (0, 2))
    torch.save({"state_dict": {}}, damaged.best_checkpoint)
    assert analyse(tmp_path, "--sweep", "idea", *words) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == left_out and len(said) == 2 and str(damaged.best_checkpoint) in said[1]
    monkeypatch.setattr(store, "evaluate_run", lambda *_: pytest.fail("it is known"))
    run.folder.parent.rename(run.folder.parent.with_name("again"))
    assert analyse(tmp_path, "--sweep", "again", *words) == 1
    assert rows_of(tmp_path / "sweeps/again/summary.csv") == rows_of(tmp_path / "sweeps/idea/summary.csv")
    (file,) = run.folder.parent.with_name("again").glob("*/metrics.json")
    content = json.loads(file.read_text())
    content["metrics"]["path_kl"]["value"] = 5.0  # as of a run that was trained again by other code
    file.write_text(json.dumps(content))
    assert analyse(tmp_path, "--sweep", "again", *words) == 1
    assert [row["path_kl_mean"] for row in rows_of(tmp_path / "sweeps/again/summary.csv")] == ["5.0"]


def test_metric_is_one_function_and_appears_everywhere_beside_old_rows(texts, tmp_path, capsys, monkeypatch):
    """A run that was evaluated before gets it as well; the row of one that is gone stays as it is."""
    gone, _ = (leave_run("no_regularizer", f"idea/seed={seed}", f"seed={seed}") for seed in (0, 2))
    assert analyse(tmp_path, "--sweep", "idea") == 0
    shutil.rmtree(gone.folder)

    @metric("answer", unit="nats", better="lower", headline=True, paired="ratio")
    def brand_new(subject):
        """The answer to everything.

        It is 42.
        """
        return Estimate(42.0, 0.5, 7)

    monkeypatch.setitem(METRICS, "brand_new", registry.METRICS["brand_new"])  # the tables are those of all metrics
    leave_run("no_regularizer", "idea/seed=1", "seed=1", "data.batch_size=64")
    capsys.readouterr()
    assert analyse(tmp_path, "--sweep", "idea") == analyse(tmp_path, "--experiments", "analytical") == 0
    said, sweep = capsys.readouterr().out, tmp_path / "sweeps" / "idea"
    ends = [line.split()[-1] for line in said.splitlines() if line.startswith("no regularizer")]
    assert ends == ["42", "42"] and said.count("answer, nats") == 3
    assert "42 ± 1\n" in said
    rows = {row["run"][-1]: row["brand_new"] for row in rows_of(sweep / "results.csv")}
    assert rows == {"0": "", "1": "42", "2": "42"}
    assert [row["brand_new_mean"] for row in rows_of(sweep / "summary.csv")] == ["42.0", "42.0"]
    entry = json.loads((tmp_path / "analytical/run1/metrics.json").read_text())["metrics"]["brand_new"]
    assert entry["definition"] == "The answer to everything" and entry["value"] == 42
    page = Page(tmp_path / "index.html")
    assert "42.00 ± 0.98" in page.row("analytical") and "answer nats, ↓ lower is better" in page.tables[0][0]
    assert "The answer to everything. Unit: nats. Source: this project." in page.text
