"""Results of sweeps: keyed by what was trained, never lost or repeated, paired with the right baseline."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SHORT, active_environment
from utils.evaluation.evaluate import evaluate

import analyse_experiments
from utils.reports import sweep as sweep_report
from utils.reports.experiment import Sampling
from utils.reports.page import write_report
from utils.runs.loading import Run, UserError, configure, find_runs, load_run
from utils.sweeps import groups as sweep_groups
from utils.sweeps import results as sweep_results

SAMPLING = Sampling(number_of_samples=40, time_steps=5, corrector_steps=0, start="uniform", seed=1)


def key(*overrides, experiment="fokker_planck_regularizer"):
    return sweep_results.fingerprint(configure(experiment, overrides))


def test_key_is_of_what_is_trained():
    assert key() == key("score_viewer.every_n_epochs=7", "accelerator=auto")
    different = [
        key(),
        key("seed=1"),
        key("regularizer.weight=0.5"),
        key("max_epochs=7"),
        key(experiment="no_regularizer"),
    ]
    assert len(set(different)) == 5


@pytest.fixture
def pool(monkeypatch):
    """Threads in place of processes: these would not see the folder of a test."""
    monkeypatch.setattr(sweep_results, "evaluate", fake_evaluate)
    with ThreadPoolExecutor(1) as pool:
        yield pool


def fake_evaluate(network, configuration, states, seed):
    """The path KL is 1 + seed, with a regularizer a tenth of its weight less; nothing else is known."""
    from utils.evaluation.evaluate import Report

    from utils.evaluation.estimates import Estimate

    weight = 0 if configuration.regularizer is None else configuration.regularizer.weight
    value = 1 + configuration.seed - weight / 10 - 0.001 * weight * configuration.seed
    return Report(estimates={"path_kl": Estimate(value, 0.1, 10), "nearest_neighbour_ratio": Estimate(1.0, 0.1, 10)})


def train(experiment, sweep, *overrides):
    """Leave the files of a finished run, untrained."""
    configuration = configure(experiment, [*SHORT, *overrides])
    run = Run(experiment, f"{sweep}/{','.join(overrides)}")
    configuration.write(run.configuration_file)
    run.best_checkpoint.parent.mkdir(parents=True)
    state = {f"network.{name}": value for name, value in configuration.build_network().state_dict().items()}
    for path in (run.best_checkpoint, run.last_checkpoint):
        torch.save({"state_dict": state, "epochs_done": 4, "callbacks": {}}, path)
    return run


def collected(runs, path, pool, sampling=SAMPLING):
    return list(sweep_results.collect(runs, path, sampling, pool))


def test_rows_are_added_once_and_earlier_ones_kept(training, tmp_path, pool):
    path = tmp_path / "results.csv"
    first, second = (train("no_regularizer", "idea", f"seed={seed}") for seed in (0, 1))
    assert collected([first], path, pool) == [(first, None)]
    before = path.read_text()
    assert collected([first, second], path, pool) == [(second, None)]
    assert path.read_text().startswith(before)
    rows = sweep_results.read_results(path)
    assert [row["seed"] for row in rows] == ["0", "1"] and rows[0]["group"] == rows[1]["group"]
    assert rows[0]["sweep"] == "idea" and rows[0]["epochs"] == "4" and rows[0]["number_of_samples"] == "40"
    with path.open("a") as file:
        file.write("half a li")  # a kill in the middle of a row
    assert len(sweep_results.read_results(path)) == 2
    third = train("no_regularizer", "idea", "seed=2")
    assert collected([first, second, third], path, pool) == [(third, None)]
    assert [row["seed"] for row in sweep_results.read_results(path)] == ["0", "1", "2"]


def test_a_run_that_is_judged_beside_others_shows_no_bar_of_its_own(training, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = train("no_regularizer", "idea", "seed=0")
    sweep_results.row_of(run, SAMPLING)
    assert capsys.readouterr().err == ""
    configuration, network, _ = load_run(run)
    states = SAMPLING.draw(network, configuration, progress=True)
    evaluate(network, configuration, states, 1, progress=True)
    bars = capsys.readouterr().err
    assert "samples: " in bars and "numbers: " in bars


def test_results_of_other_sampling_or_another_version_are_not_mixed(training, tmp_path, pool):
    path = tmp_path / "results.csv"
    run = train("no_regularizer", "idea", "seed=0")
    collected([run], path, pool)
    other = Sampling(number_of_samples=50, time_steps=5, corrector_steps=0, start="uniform", seed=1)
    with pytest.raises(UserError, match="number_of_samples is 40 there and 50 now"):
        collected([run], path, pool, other)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="columns"):
        collected([run], path, pool)


@pytest.mark.parametrize("lost", [1, 5, 30, 60])
def test_half_of_a_row_is_no_row_and_is_written_again(rows, tmp_path, pool, lost):
    path = tmp_path / "results.csv"
    before = path.read_bytes()
    path.write_bytes(before[:-lost])
    found = sweep_results.read_results(path)
    assert found == rows[:-1]
    collected(find_runs("idea"), path, pool)
    assert path.read_bytes() == before


def spoilt(column, value):
    return lambda cells: cells | {column: value}


WIDTH = len(sweep_results.COLUMNS)
DAMAGES = [
    (spoilt("path_kl", "hello"), "path_kl: should be a number, given 'hello'"),
    (spoilt("path_kl", "1e308"), "path_kl: should be a number, given '1e308'"),
    (spoilt("path_kl", "1\0"), "path_kl: should be a number, given "),
    (spoilt("path_kl", '"abc'), "unexpected end of data"),
    (spoilt("seed", ""), "seed: should be a whole number, given ''"),
    (spoilt("epochs", "x"), "epochs: should be a whole number, given 'x'"),
    (spoilt("key", ""), "key: should be 16 hexadecimal digits, given ''"),
    (spoilt("oracle", "x"), "oracle: should be True or False, given 'x'"),
    (spoilt("width_ratio", "1,2"), f"it has {WIDTH + 1} cells instead of {WIDTH}"),
    (spoilt("width_ratio", "x" * 200_000), "field larger than field limit"),
    (lambda cells: {"key": "half"}, f"it has 1 cells instead of {WIDTH}"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[said for _, said in DAMAGES])
def test_damaged_row_is_named(rows, tmp_path, damage, said):
    path = tmp_path / "results.csv"
    lines = path.read_text().splitlines()
    cells = dict(zip(sweep_results.COLUMNS, next(csv.reader([lines[4]])), strict=True))
    plain = {name: f'"{value}"' if "," in value else value for name, value in cells.items()}
    lines[4] = ",".join(damage(plain).values())
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"results.csv, line 5: {re.escape(said)}.*; remove the line"):
        sweep_results.read_results(path)


@pytest.mark.parametrize("content", [b"\xff\n", "a,b\n1,2\n".encode("utf-16"), b"\0\n"])
def test_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(UserError, match=re.escape("results.csv: it")):
        sweep_results.read_results(tmp_path / "results.csv")


def test_two_at_once_do_not_mix_their_rows(training, tmp_path, pool):
    path = tmp_path / "results.csv"
    first, second = (train("no_regularizer", "idea", f"seed={seed}") for seed in (0, 1))
    judged = sweep_results.collect([first, second], path, SAMPLING, pool)
    next(judged)
    with pytest.raises(UserError, match=f"results.csv: process {os.getpid()} on .* writes it; wait"):
        collected([first, second], path, pool)
    assert list(judged) and len(sweep_results.read_results(path)) == 2


WORKER = """
import os, time
from utils.sweeps.results import processes

def work():
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    with processes(1) as pool:
        pool.submit(work).result()
"""


def test_processes_that_judge_end_with_the_one_that_started_them(tmp_path):
    (tmp_path / "parent.py").write_text(WORKER)
    variables = active_environment(PYTHONPATH=str(ROOT))
    command = [sys.executable, str(tmp_path / "parent.py")]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
        until = time.monotonic() + 10
        while is_running(worker):
            assert time.monotonic() < until
            time.sleep(0.05)


def is_running(process):
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_damaged_run_is_named_and_the_others_are_judged(training, tmp_path, pool):
    good, bad = (train("no_regularizer", "idea", f"seed={seed}") for seed in (0, 1))
    state = torch.load(bad.best_checkpoint)["state_dict"]
    torch.save({"state_dict": dict(list(state.items())[1:])}, bad.best_checkpoint)
    (tmp_path / "results.csv").touch()
    faults = dict(collected([good, bad], tmp_path / "results.csv", pool))
    assert faults[good] is None and "best.ckpt" in faults[bad]


@pytest.fixture
def rows(training, tmp_path, pool):
    for seed in (0, 1, 2):
        train("no_regularizer", "idea", f"seed={seed}")
        train("no_regularizer", "idea", "data.fresh_noise=false", f"seed={seed}")
        for weight in ("0.5", "1.0"):
            train("fokker_planck_regularizer", "idea", f"regularizer.weight={weight}", f"seed={seed}")
    path = tmp_path / "results.csv"
    collected(find_runs("idea"), path, pool)
    return sweep_results.read_results(path)


def test_groups_are_paired_with_the_same_training_without_regularizer(rows):
    plain, frozen, half, one = sorted(sweep_groups.groups(rows), key=lambda g: (g.weight or 0, g.regime))
    if "fresh_noise" in plain.regime:
        plain, frozen = frozen, plain
    assert "fresh_noise=false" in frozen.regime and "fresh_noise" not in plain.regime
    assert plain.differences == {} == frozen.differences
    assert plain.means["path_kl"].value == pytest.approx(2) and plain.means["path_kl"].seeds == 3
    for group, weight in ((half, 0.5), (one, 1.0)):
        difference = group.differences["path_kl"]
        assert difference.value == pytest.approx(-weight / 10 - 0.001 * weight) and difference.is_significant
        assert group.title == f"fokker planck, weight {weight:g}"


def test_epochs_of_a_group_are_the_most_that_a_run_took(rows):
    chosen = [row | {"epochs": epochs} for row, epochs in zip(rows, ("7", "90", "8"), strict=False)]
    assert {row["group"] for row in chosen} == {rows[0]["group"]}
    (group,) = sweep_groups.groups(chosen)
    assert group.epochs == 90


def test_other_seeds_in_another_sweep_make_a_group_of_their_own_with_the_same_baselines(rows, tmp_path, pool):
    for seed in (3, 4):
        train("no_regularizer", "again", f"seed={seed}")
        train("fokker_planck_regularizer", "more", "regularizer.weight=0.5", f"seed={seed}")
    path = tmp_path / "results.csv"
    collected([*find_runs("again"), *find_runs("more")], path, pool)
    groups = [g for g in sweep_groups.groups(sweep_results.read_results(path)) if g.weight == 0.5]
    assert {group.sweep: group.differences["path_kl"].seeds for group in groups} == {"idea": 3, "more": 2}
    assert {group.sweep: [*group.runs] for group in groups} == {"idea": ["0", "1", "2"], "more": ["3", "4"]}


def test_baseline_of_another_sweep_is_shown_where_it_has_all_the_seeds(rows, tmp_path):
    moved = [row | {"sweep": "other"} if not row["weight"] else row for row in rows]
    every = sweep_groups.groups(moved)
    chosen = [group for group in every if group.sweep == "idea"]
    shown = sweep_groups.with_baselines(chosen, every)
    assert [g.weight for g in chosen] == [g.weight for g in shown[1:]] and shown[0].weight is None
    assert sweep_groups.with_baselines(every, every) == every
    without_seed_0 = sweep_groups.groups([row for row in moved if row["sweep"] == "idea" or row["seed"] != "0"])
    assert sweep_groups.with_baselines(chosen, without_seed_0) == chosen


def test_report_of_a_sweep_has_every_group_and_the_page_shows_it(rows, tmp_path):
    groups = sweep_groups.groups(rows)
    folder = tmp_path / "artifacts" / "sweeps" / "idea"
    sweep_report.write_sweep(groups, folder, "<script>idea</script>")
    with (folder / "summary.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(groups) == 4
    assert {row["path_kl_mean"] for row in found} >= {"2.0"}
    assert (folder / "weights.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((folder / "table.json").read_text())
    assert sum(map(len, table["regimes"].values())) == 4
    assert "-0.1010 ± 0.0025 *" in sweep_report.plain(groups)
    page = write_report(tmp_path / "artifacts")[0].read_text()
    assert "&lt;script&gt;idea" in page and "fokker planck, weight 0.5" in page and "sweeps/idea/weights.png" in page


@pytest.mark.parametrize("name", ["../idea", "a/b", "", "a b"])
def test_sweep_must_be_a_name(training, name):
    with pytest.raises(UserError, match="sweep"):
        find_runs(name)


def test_sweep_without_a_finished_run_says_what_trains_or_continues_it(training, tmp_path, capsys):
    command = "`python -m training.sweep --config FILE`"
    for begun, said in (
        ([], f"there is no run of a sweep 'idea'; {command} trains one"),
        (["seed=0"], f"no run of the sweep 'idea' has finished (1 begun); {command} continues them"),
        (["seed=1"], f"no run of the sweep 'idea' has finished (2 begun); {command} continues them"),
    ):
        for seed in begun:
            configure("no_regularizer", [seed]).write(Run("no_regularizer", f"idea/{seed}").configuration_file)
        assert analyse_experiments.main(["--sweep", "idea", "--output-dir", str(tmp_path / "output")]) == 2
        assert capsys.readouterr().err == f"{said}, FILE being the YAML file with `name: idea`\n"
