"""A sweep: every run of it is trained and evaluated once, to the same weights, whatever stops in between.

What needs no process of its own runs in this one, on a worker that is a thread.
"""

import contextlib
import os
import re
import signal
import threading
from unittest.mock import Mock

import dask
import distributed  # first, or dask.config.set within a test would take its settings away again
import psutil
import pytest
import torch
from analysed import SAMPLING, leave_run, with_few_metrics, with_few_points
from conftest import use_training_folder
from grids import FP, NO, SHORT, grid, make_quick_clone, start, until
from tqdm import tqdm
from trained import equal

from training.lightning_module import ScoreMatching
from training.sweep import main
from training.train import RunIsBusy
from utils.runs import store
from utils.runs.checkpoints import load_run, read_checkpoint
from utils.runs.curves import epochs_written
from utils.runs.run import ANALYTICAL, Run
from utils.runs.store import Record, evaluate_run
from utils.sweeps.plan import plan
from utils.sweeps.results import read_results, row_of, write_results

pytestmark = pytest.mark.xdist_group("sweep")
EPOCHS = 200  # long enough to meet a run in the middle, also on a busy machine
LONG = SHORT | {"max_epochs": EPOCHS}
START = "python", "-m", "training.sweep"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository to sweep in, from here as well."""
    folder = make_quick_clone(tmp_path_factory.mktemp("sweep") / "my cloné dir")
    with pytest.MonkeyPatch.context() as patch:
        use_training_folder(folder / "training", patch)
        patch.setattr("training.sweep.Sampling", lambda: SAMPLING)
        with_few_points(patch)
        yield folder


@pytest.fixture(scope="module")
def scheduler(copy):
    """The address of a cluster whose one worker is a thread of this process; its dashboard has the usual port."""
    one = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    with distributed.LocalCluster(**one, dashboard_address=":8787") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def whole(scheduler, tmp_path_factory):
    """Two runs that nothing has stopped, the threads that they used, and what makes the sweep."""
    threads, words = [], ["--config", grid(tmp_path_factory.mktemp("grid") / "g.yaml", (NO, LONG), name="whole")]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((ScoreMatching, "on_train_epoch_end"), (store, "evaluate")):
            patch.setattr(owner, name, counting_threads(getattr(owner, name), threads))
        assert sweep_here(*words, "--scheduler", scheduler) == 0
    return words, threads


def counting_threads(function, numbers):
    return lambda *arguments: numbers.append(torch.get_num_threads()) or function(*arguments)


def sweep_here(*words):
    return main([str(word) for word in words])


def run_of(name, seed=0, experiment=NO):
    return Run(experiment, f"{name}/seed={seed}")


def epochs(run):
    return [int(line.split(",")[0]) for line in run.curves_file.read_text().splitlines()[1:]]


def is_as_whole(run):
    """Whether a run shows every epoch once, was finished once, and has the weights of the run that nothing stopped."""
    ours, whole = (read_checkpoint(one.last_checkpoint)["state_dict"] for one in (run, run_of("whole", run.name[-1])))
    once = run.log_file.read_text().count(f": finished its {EPOCHS} epochs.") == 1
    return once and epochs(run) == [*range(EPOCHS)] and equal(ours, whole)


def test_every_run_is_trained_and_evaluated_and_a_second_call_starts_nothing(copy, whole, monkeypatch, capsys):
    words, threads = whole
    assert threads == [1] * (2 * EPOCHS + 2)  # a processor for each run, in training and evaluation
    for seed in (0, 1):
        run = run_of("whole", seed)
        assert is_as_whole(run)
        record = Record.read(run.metrics_file)
        assert (record.facts["training_seed"], record.facts["sampling"]) == (seed, SAMPLING.model_dump())
        assert record.estimates["path_kl"].standard_error > 0
    assert not list(copy.glob("training/*/config.yaml"))  # each run has its own
    monkeypatch.delattr("training.sweep.open_client")
    assert sweep_here(*words) == 0
    assert re.fullmatch("2 of 2 runs are trained and evaluated; took 0:00:0.\n", capsys.readouterr().out)


def test_dry_run_says_what_is_finished_begun_or_to_do_and_results_of_a_file_are_left_out(whole, tmp_path, capsys):
    states, seeds = ["finished", "finished", "begun", "to do"], (0, 1, 7, 8)
    path = grid(tmp_path / "g.yaml", (NO, LONG), name="whole", seeds=seeds)
    leave_run(NO, "whole/seed=7", epochs=2)
    assert sweep_here("--config", path, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(f"  {NO} max_epochs={EPOCHS} ")[0].strip() for line in lines] == states
    assert [line[-6:] for line in lines] == [f"seed={seed}" for seed in seeds]
    write_results(tmp_path / "r.csv", [row_of(Record.read(run_of("whole", seed).metrics_file)) for seed in (0, 1)])
    assert len(read_results(tmp_path / "r.csv", SAMPLING)) == 2
    assert sweep_here("--config", path, "--dry-run", "--results", tmp_path / "r.csv") == 0
    assert [line[-6:] for line in capsys.readouterr().out.splitlines()] == ["seed=7", "seed=8"]


def test_shipped_sweep_is_valid_and_a_dry_run_leaves_nothing(training, capsys):
    assert sweep_here("--dry-run", "--config", training / "sweep_config.yaml") == 0
    assert len(capsys.readouterr().out.splitlines()) == 25
    assert not list(training.glob("*/output"))


@pytest.mark.parametrize("address", ["", "somewhere", "tcp://127.0.0.1:99999", "tls://127.0.0.1:8786"])
@pytest.mark.usefixtures("training")
def test_scheduler_that_cannot_be_is_refused(tmp_path, capsys, address):
    with dask.config.set({"distributed.comm.timeouts.connect": "200ms"}):
        assert sweep_here("--config", grid(tmp_path / "g.yaml", (NO, {})), "--scheduler", address) == 2
    assert capsys.readouterr().err.startswith(f"--scheduler {address}: ")


def test_runs_that_fail_are_named_with_their_logs_and_the_others_finish(scheduler, tmp_path, monkeypatch, capsys):
    """A learning rate that only the training finds to be too large, a damaged checkpoint, and a mistake in the code."""
    with_few_metrics(monkeypatch)
    parts = (NO, SHORT | {"optimizer.learning_rate": [1e-3, 1e30]}), (FP, SHORT)
    words = "--config", grid(tmp_path / "g.yaml", *parts, name="fails"), "--scheduler", scheduler
    diverges, wrong = (Run(NO, f"fails/optimizer.learning_rate=1e+30,seed={seed}") for seed in (0, 1))
    damaged, original = run_of("fails", 1, FP), ScoreMatching.configure_optimizers

    def configure_optimizers(module):
        if module.configuration.seed == 1 and module.configuration.optimizer.learning_rate == 1e30:
            raise ZeroDivisionError("a mistake")
        return original(module)

    next(one.configuration for one in plan(words[1]) if one.run == damaged).write(damaged.configuration_file)
    damaged.last_checkpoint.parent.mkdir()
    damaged.last_checkpoint.write_bytes(b"half of it")
    monkeypatch.setattr(ScoreMatching, "configure_optimizers", configure_optimizers)
    assert sweep_here(*words) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("3 of 6 runs are trained and evaluated;")
    reasons = {diverges: "infinite or not a number", wrong: "a mistake", damaged: "not a readable checkpoint"}
    for run, reason in reasons.items():
        assert re.search(rf"failed: {re.escape(run.title)}: .*{reason}", printed.err)
        assert f"\n  log: {run.log_file}" in printed.err and reason in run.log_file.read_text()
    assert [run for run in reasons if "Traceback" in run.log_file.read_text()] == [wrong]
    assert printed.err.count("failed: ") == 3


def processes_of(sweep):
    """Return the processes of its session that are alive, but for itself."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            ours = os.getsid(process.pid) == sweep.pid != process.pid
            found += [process] if ours and process.status() != psutil.STATUS_ZOMBIE else []
    return found


def workers_of(sweep):
    return [process for process in processes_of(sweep) if any("spawn_main" in word for word in process.cmdline())]


def stopped(process, send, *command):
    """End a sweep with a signal; it must say the command that continues it, and leave no process."""
    send()
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130 and not re.search("Traceback|Port|Warning", said), said
    assert f"Stopped; what was trained is saved. To continue: {' '.join(map(str, command))}" in said.splitlines()
    until(lambda: not processes_of(process))


def test_sweep_that_loses_a_worker_is_stopped_and_killed_ends_as_others(copy, whole, scheduler, tmp_path, monkeypatch):
    with_few_metrics(monkeypatch)
    words = "--config", grid(tmp_path / "g.yaml", (NO, LONG), name="stopped"), "--workers"
    runs = [run_of("stopped", seed) for seed in (0, 1)]
    process = start(copy, *START, *words, 2)
    until(lambda: all(epochs_written(run.curves_file) > 12 for run in runs), process)
    workers_of(process)[0].kill()  # its run goes on after the last checkpoint, in the other or in a new worker
    until(lambda: any(re.search(r"continues after \d+0 epochs", run.log_file.read_text()) for run in runs), process)
    stopped(process, lambda: os.killpg(process.pid, signal.SIGINT), *START, *words, 2)  # a terminal sends it to all
    run = next(run for run in runs if read_checkpoint(run.last_checkpoint)["epochs_done"] < EPOCHS)
    assert f"stopped after {len(epochs(run))} epochs. To continue: bash " in run.log_file.read_text()
    assert read_checkpoint(run.last_checkpoint)["epochs_done"] == len(epochs(run)) > 10

    begun, process = len(epochs(run)), start(copy, *START, *words, 1)
    until(lambda: epochs_written(run.curves_file) > begun, process)
    (worker,), met = workers_of(process), threading.Event()
    worker.suspend()

    def kill_sweep():
        met.wait(300)
        process.kill()
        worker.resume()

    monkeypatch.setattr(RunIsBusy, "__init__", lambda *_: met.set())
    killer = threading.Thread(target=kill_sweep)
    killer.start()
    assert sweep_here(*words, 1, "--scheduler", scheduler) == 0  # waits for the run that another sweep trains
    killer.join()
    assert met.is_set()
    until(lambda: not processes_of(process))
    assert all(is_as_whole(run) and run.metrics_file.exists() for run in runs)


def test_worker_that_is_too_busy_to_answer_does_not_hide_that_it_was_stopped(scheduler, tmp_path, monkeypatch):
    with_few_metrics(monkeypatch)
    stopped_here = type("Bar", (tqdm,), {"set_postfix_str": Mock(side_effect=KeyboardInterrupt)})
    monkeypatch.setattr("training.sweep.tqdm", stopped_here)
    monkeypatch.setattr(distributed.Client, "unregister_worker_plugin", Mock(side_effect=TimeoutError))
    words = "--config", grid(tmp_path / "g.yaml", (NO, SHORT), name="busy", seeds=[0])
    assert sweep_here(*words, "--scheduler", scheduler) == 130  # and not 2, as after an error
    until(lambda: run_of("busy").metrics_file.exists())  # the worker went on


def test_sigterm_to_run_all_ends_all_of_it_with_the_command_that_continues(copy, monkeypatch):
    with_few_metrics(monkeypatch)
    record, _, seconds = evaluate_run(load_run(Run(ANALYTICAL)), SAMPLING, copy / "generated_artifacts/analytical/run1")
    record.write(seconds)  # or the analysis of the exact score would come first
    words = "bash", "run_all.sh", "--experiments", NO, "--workers", "1"
    process = start(copy, *words)
    until(lambda: epochs_written(Run(NO).curves_file), process)
    stopped(process, process.terminate, *words)
    assert read_checkpoint(Run(NO).last_checkpoint)["epochs_done"] == len(epochs(Run(NO)))
