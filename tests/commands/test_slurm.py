"""Jobs of SLURM: what is submitted; a sweep goes on without a job that ends, and does not wait where all have ended.

The tests of the marker `slurm` run a SLURM on this machine; the others put programs of its names first on PATH.
"""

import re
import signal
import subprocess
import sys
from argparse import Namespace
from importlib.util import find_spec

import psutil
import pytest
import yaml
from conftest import executable
from grids import NO, SHORT, grid, make_quick_clone, start, until
from slurm import running_slurm

from training.slurm import slurm_cluster
from training.sweep import main, open_client

MISSING = find_spec("dask_jobqueue") is None  # importing it here would take the signals from pytest
pytestmark = pytest.mark.skipif(MISSING, reason="requirements-cluster.txt is not installed")
JOB = {"cores": 1, "processes": 1, "memory": "1GB", "interface": "lo"}


@pytest.fixture
def sweep_with(training, tmp_path, capsys):
    """Return a function that starts a sweep of three runs with some options of jobs: its status and what it printed."""

    def start_with(*words, **options):
        path = options_file(tmp_path, **options)
        file = grid(tmp_path / "g.yaml", (NO, {}), seeds=(0, 1, 2))
        return main(["--config", str(file), "--slurm", str(path), *words]), *capsys.readouterr()

    return start_with


def options_file(folder, **options):
    (folder / "slurm.yaml").write_text(yaml.safe_dump(JOB | options))
    return folder / "slurm.yaml"


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Return a function that puts a script of this name first on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return lambda name, script: executable(tmp_path / name, f"#!/bin/sh\n{script}\n")


def test_job_script_says_what_the_file_says_and_quotes_the_interpreter(sweep_with, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/my cloné dir/.venv/bin/python")
    options = {"queue": "short", "account": "physics", "cores": 4, "processes": 4, "memory": "8GB"}
    status, out, said = sweep_with("--dry-run", **options, walltime="01:30:00")
    assert (status, said) == (0, "") and out.count("to do") == 3
    for line in ("-p short", "-A physics", "--cpus-per-task=4", "--mem=8G", "-t 01:30:00"):
        assert f"#SBATCH {line}\n" in out
    command = next(line for line in out.splitlines() if "dask_worker" in line)
    assert command.startswith("'/my cloné dir/.venv/bin/python' -m distributed.cli.dask_worker tcp://127.0.0.1:")
    assert "--nthreads 1 " in command and "--nworkers 4 " in command


WRONG = [{"quue": "short"}, {"memory": "much"}, {"processes": 0}, {"cores": "abc"}, {"interface": "none7"}]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_option_that_is_not_taken_is_said_with_its_file(sweep_with, tmp_path, options):
    status, _, said = sweep_with("--dry-run", **options)
    assert status == 2 and said.startswith(f"{tmp_path / 'slurm.yaml'}: dask_jobqueue.SLURMCluster fails with these")


def test_missing_package_is_a_sentence(sweep_with, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    status, _, said = sweep_with("--dry-run")
    assert status == 2 and "pip install -r requirements-cluster.txt" in said


def test_signals_are_heard_by_whom_they_were_before(tmp_path, monkeypatch):
    """dask_jobqueue takes Ctrl-C when it is imported first."""
    for name in [name for name in sys.modules if name.startswith("dask_jobqueue")]:
        monkeypatch.delitem(sys.modules, name)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        slurm_cluster(options_file(tmp_path)).close()
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("workers", "jobs"), [(None, 3), (2, 2), (5, 3)])
def test_as_many_jobs_are_submitted_as_there_are_runs_or_workers(tmp_path, on_path, workers, jobs):
    on_path("sbatch", f"echo . >> {tmp_path}/log; echo Submitted batch job $$")
    on_path("scancel", "")
    with open_client(Namespace(slurm=options_file(tmp_path), scheduler=None, workers=workers), runs=3):
        assert len((tmp_path / "log").read_text().split()) == jobs


FACTS = "JobState=FAILED Reason=NonZeroExitCode Dependency=(null) ExitCode=127:0 StdOut=/my dir/slurm-7.out Power="


@pytest.mark.parametrize(
    ("scontrol", "line"),
    [
        (f'echo "JobId=$4 {FACTS}"', "FAILED, reason NonZeroExitCode, exit code 127:0, output /my dir/slurm-7.out"),
        ("echo Invalid job id >&2; exit 1", "unknown, reason unknown, exit code unknown, output unknown"),
    ],
)
def test_job_that_is_dead_before_its_worker_reports_ends_the_sweep(sweep_with, on_path, scontrol, line):
    """As where a node lacks the interpreter; some minutes later SLURM has forgotten the job."""
    on_path("sbatch", "echo Submitted batch job 7")
    on_path("scancel", "")
    on_path("scontrol", scontrol)
    status, _, said = sweep_with("--workers", "1")
    assert status == 2
    heading = "All jobs of SLURM have ended before the sweep; the same command continues it:"
    assert said.splitlines()[-2:] == [heading, f"  job 7: {line}"]


# --- with a SLURM


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository whose path has spaces, with its own environment, on a machine that runs SLURM."""
    with running_slurm(tmp_path_factory.mktemp("slurm")):
        folder = make_quick_clone(tmp_path_factory.mktemp("sweep") / "my cloné dir")
        (folder / ".venv").symlink_to(sys.prefix)
        yield folder


def sweep(clone, name, workers, seeds, max_epochs, walltime):
    folder = clone / name
    folder.mkdir()
    file = grid(folder / "g.yaml", (NO, SHORT | {"max_epochs": max_epochs}), name=name, seeds=seeds)
    options = options_file(folder, walltime=walltime, queue="main", job_name=name)
    python = clone / ".venv" / "bin" / "python"
    words = "--config", file, "--workers", workers, "--slurm", options
    return start(clone, python, "-m", "training.sweep", *words), clone / "training" / NO / "output" / name


@pytest.fixture(scope="module")
def limited(clone):
    """A sweep, begun before the others, whose job reaches its time limit: SLURM's shortest is a minute."""
    return sweep(clone, "limited", 1, [0], 10**6, "00:01:00")


@pytest.mark.slurm
def test_run_of_a_job_that_is_cancelled_goes_on_in_another(clone, limited):
    process, output = sweep(clone, "cancelled", 2, range(4), 150, "00:10:00")
    until(lambda: list(output.glob("*/curves.csv")), process)
    folder = next(output.glob("*/curves.csv")).parent
    pid = re.match(r"process (\d+) on", folder.with_name(f".{folder.name}.lock").read_text())[1]
    subprocess.run(["scancel", psutil.Process(int(pid)).environ()["SLURM_JOB_ID"]], check=True)
    out, said = process.communicate(timeout=170)
    assert process.returncode == 0 and out.startswith("4 of 4 runs are trained and evaluated;"), said
    logs = {path.parent: path.read_text() for path in output.glob("*/log.txt")}
    assert all("finished its 150 epochs" in log and "srun" not in log for log in logs.values()) and len(logs) == 4
    assert [folder for folder, log in logs.items() if "stopped after" in log and "continues after" in log] == [folder]


@pytest.mark.slurm
def test_jobs_that_reach_their_time_limit_end_the_sweep_with_their_names(clone, limited):
    process, output = limited
    _, said = process.communicate(timeout=170)
    assert process.returncode == 2
    said = said.splitlines()
    assert said[-2] == "All jobs of SLURM have ended before the sweep; the same command continues it:"
    job, path = re.fullmatch(r"  job (\d+): TIMEOUT, reason \w+, exit code [\d:]+, output (.*)", said[-1]).groups()
    assert path == str(clone / f"slurm-{job}.out")
    assert "stopped after" in (output / "seed=0" / "log.txt").read_text()


@pytest.mark.slurm
def test_partition_that_does_not_exist_is_refused_with_the_words_of_sbatch(clone, sweep_with):
    status, _, said = sweep_with(queue="nowhere")
    assert status == 2 and "the jobs could not be submitted: " in said
    assert "invalid partition specified: nowhere" in said
    assert subprocess.check_output(["squeue", "-h", "-n", "dask-worker"], text=True) == ""
