"""Sweeps: what a grid consists of, and that every run of it is finished once, whatever stops in between."""

import contextlib
import signal
import subprocess
import sys
import time
from argparse import Namespace

import psutil
import pytest
import torch
import yaml
from conftest import ROOT, active_environment, make_clone

from training.sweep import is_trained, main, open_client, slurm_cluster, submit
from utils.runs.loading import Run, UserError
from utils.sweeps.plan import plan, tag

pytestmark = pytest.mark.xdist_group("sweep")

SHORT = {
    "max_epochs": 60,
    "data.training_set_size": 512,
    "data.validation_set_size": 128,
    "early_stopping_patience": None,
    "score_viewer.every_n_epochs": 1000000,
    "score_viewer.field_every_n_epochs": 1000000,
}


def grid(path, *parts, name="tried", seeds=(0, 1)):
    """Write a sweep's file; a part is an experiment and its overrides."""
    parts = [{"experiments": [experiment], "overrides": overrides} for experiment, overrides in parts]
    path.write_text(yaml.safe_dump({"name": name, "seeds": list(seeds), "parts": parts}, sort_keys=False))
    return path


# --- what a grid consists of


def test_runs_are_all_combinations_and_their_names_tell_them_apart(tmp_path):
    overrides = {"regularizer.weight": [1e-3, 1e-5], "max_epochs": 7, "data.batch_size": [64, 128]}
    planned = plan(grid(tmp_path / "g.yaml", ("fokker_planck_regularizer", overrides), ("no_regularizer", {})))
    assert [one.run.name for one in planned] == [
        *(
            f"tried/data.batch_size={size},regularizer.weight={weight},seed={seed}"
            for weight in ("0.001", "1e-05")
            for size in (64, 128)
            for seed in (0, 1)
        ),
        "tried/seed=0",
        "tried/seed=1",
    ]
    found = [(one.configuration.regularizer.weight, one.configuration.data.batch_size) for one in planned[:8:2]]
    assert found == [(1e-3, 64), (1e-3, 128), (1e-5, 64), (1e-5, 128)]
    assert {one.configuration.max_epochs for one in planned[:8]} == {7}
    assert [one.configuration.seed for one in planned] == [0, 1] * 5


def test_run_that_is_there_twice_is_trained_once(tmp_path):
    again = {"data.batch_size": [512, 64]}  # 512 is what base_config.yaml says
    planned = plan(grid(tmp_path / "g.yaml", ("no_regularizer", {}), ("no_regularizer", again), seeds=(3, 3)))
    assert [one.run.name for one in planned] == ["tried/seed=3", "tried/data.batch_size=64,seed=3"]


def test_tag_is_safe_short_and_unique_whatever_the_value():
    values = [
        [[0.1], [0.5]],
        [[0.1, 0.5]],
        "a/b",
        "a_b",
        "a b",
        "../x",
        {"type": "cosine"},
        "\N{GREEK SMALL LETTER PI}",
    ]
    values += ["x" * 500, "x" * 501, None, True, 1e-30, -3, "mean"]
    tags = [tag({"seed": 1, "key": value}) for value in values]
    assert len(set(tags)) == len(values)
    assert max(map(len, tags)) <= 120
    assert all(Run("no_regularizer", f"sweep/{one}").sweep == "sweep" for one in tags)
    assert tags[-5:] == [f"key={value},seed=1" for value in ("null", "true", "1e-30", "-3", "mean")]


@pytest.mark.parametrize(
    "name", ["a/b/c", "a/..", "../a", "a/.b", "/a", "a/", "a//b", "a=1", "a=1/b", "a/b c", "a/b\n"]
)
def test_only_a_run_of_a_sweep_has_a_name_of_two_parts(name):
    with pytest.raises(UserError, match="run name"):
        Run("no_regularizer", name)
    assert Run("no_regularizer", "plain").sweep is None


NO, FP = "no_regularizer", "fokker_planck_regularizer"
BAD_GRIDS = [
    ([(NO, {"sed": 1})], ["parts.0, no_regularizer: sed: unknown key (did you mean seed?), given 1"]),
    (
        [(NO, {"max_epochs": [0]})],
        ["parts.0, no_regularizer: max_epochs: should be greater than or equal to 1, given 0"],
    ),
    (
        [(FP, {}), (FP, {"regularizer.weight": [1e-3, "a"], "max_epochs": 0.5})],
        [
            f"parts.1, {FP}: max_epochs: should be a valid integer, given 0.5",
            f'parts.1, {FP}: regularizer.weight: should be a valid number, given "a"',
        ],
    ),
    ([("idea", {})], ["parts.0.experiments: no experiment is called 'idea'; there are: no_regularizer, "]),
    ([("analytical", {})], ["parts.0.experiments: no experiment is called 'analytical'"]),
    ([(NO, {"seed": [1]})], ["parts.0.overrides: seed: the seeds are those of `seeds`"]),
    ([(NO, {"max_epochs": []})], ["parts.0.overrides: max_epochs: an empty list of values leaves no run"]),
    ([(NO, {"data[0]": 3})], ["parts.0, no_regularizer: data[0]=3: should be key=value"]),
    ([], ["parts: List should have at least 1 item"]),
    (
        [(NO, {"max_epochs": 4}), (NO, {"max_epochs": 5})],
        [f"parts.1, {NO}: two configurations would both be tried/seed={seed}; name what" for seed in (0, 1)],
    ),
]


def test_common_overrides_are_checked_like_those_of_a_part(tmp_path, capsys):
    for override, said in (("seed: 77", "seed: the seeds are"), ("max_epochs: []", "max_epochs: an empty list")):
        path = tmp_path / "bad.yaml"
        path.write_text(f"name: tried\nseeds: [0]\noverrides:\n  {override}\nparts:\n  - experiments: [{NO}]\n")
        assert main(["--config", str(path), "--dry-run"]) == 2
        assert capsys.readouterr().err.startswith(f"{path}: overrides: {said}")


@pytest.mark.parametrize("address", ["", "somewhere", "tcp://127.0.0.1:99999", "tls://127.0.0.1:8786"])
@pytest.mark.usefixtures("training")
def test_scheduler_that_cannot_be_is_refused_at_once(tmp_path, capsys, address):
    path = grid(tmp_path / "g.yaml", (NO, {}))
    assert main(["--config", str(path), "--scheduler", address]) == 2
    assert capsys.readouterr().err.startswith(f"--scheduler {address}: ")


def test_grid_that_is_too_large_is_refused_at_once(tmp_path, capsys):
    path = grid(tmp_path / "large.yaml", (NO, {f"optimizer.{i}": list(range(8)) for i in range(6)}))
    assert main(["--config", str(path), "--dry-run"]) == 2
    assert "parts: these are 524,288 runs; a sweep has at most 10,000" in capsys.readouterr().err


@pytest.mark.parametrize(("parts", "lines"), BAD_GRIDS, ids=[lines[0] for _, lines in BAD_GRIDS])
@pytest.mark.usefixtures("training")
def test_bad_grid_is_refused_with_the_key_of_each_fault(tmp_path, capsys, parts, lines):
    path = grid(tmp_path / "bad.yaml", *parts)
    assert main(["--config", str(path)]) == 2
    said = sorted(line.removeprefix(f"{path}: ") for line in capsys.readouterr().err.splitlines())
    assert len(said) == len(lines)
    assert all(one.startswith(line) for one, line in zip(said, lines, strict=True))
    assert not list(tmp_path.glob("training/*/output"))


def test_shipped_sweep_is_valid_and_a_dry_run_starts_nothing(training, capsys):
    assert main(["--dry-run", "--config", str(training / "sweep_config.yaml")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 25
    assert not list(training.glob("*/output"))


def test_name_of_a_sweep_is_not_that_of_a_run(training, tmp_path, capsys):
    folder = training / "no_regularizer" / "output" / "run1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    assert main(["--config", str(grid(tmp_path / "g.yaml", (NO, {}), name="run1"))]) == 2
    assert capsys.readouterr().err.strip().endswith(f"name: {folder} is a run already; choose another")


# --- trainings


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository to sweep in."""
    return make_clone(tmp_path_factory.mktemp("sweep") / "my cloné dir")


def sweep(copy, *words):
    """Start a sweep there."""
    command = [sys.executable, "-m", "training.sweep", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=copy, env=active_environment(), text=True, **pipes)


def until(condition, process, seconds=180):
    """Wait for it, as long as the sweep runs."""
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)


def trainings(copy):
    """Return the processes that train there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "training.train" in process.cmdline() and process.cwd() == str(copy):
                found.append(process)
    return found


def begun(copy, name):
    """Return the folders of runs that have an epoch behind them."""
    return {path.parent.parent for path in (copy / "training").glob(f"*/output/{name}/*/checkpoints/best.ckpt")}


def finished_once(folder, epochs=60):
    """Whether a run ended, having shown each epoch once; and no process trained it a second time."""
    epochs_done = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epochs_done"]
    rows = [int(line.split(",")[0]) for line in (folder / "curves.csv").read_text().splitlines()[1:]]
    said = (folder / "log.txt").read_text()
    return epochs_done == epochs and rows == [*range(epochs)] and said.count(f": finished its {epochs} epochs.") == 1


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_ctrl_c_saves_runs_and_the_same_command_finishes_them_once(copy, tmp_path, number, workers):
    name, long = f"stopped_at_{workers}", SHORT | {"max_epochs": 120}
    words = "--config", grid(tmp_path / "g.yaml", (NO, long), name=name), "--workers", workers
    process = sweep(copy, *words)
    until(lambda: len(begun(copy, name)) == workers, process)
    assert len(trainings(copy)) == workers
    process.send_signal(number)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 10  # an epoch takes milliseconds; but this machine may be busy
    assert trainings(copy) == []
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(
        "Stopped; what was trained is saved. To continue: python -m training.sweep "
    )
    stopped = begun(copy, name)
    assert len(stopped) == workers
    assert all("stopped after" in (folder / "log.txt").read_text() for folder in stopped)

    for counts in ("2 finished, 0 finished before, 0 failed", "0 finished, 2 finished before, 0 failed"):
        process = sweep(copy, *words)
        out, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
        assert out.startswith(f"runs: {counts};")
        assert all("continues after" in (folder / "log.txt").read_text() for folder in stopped)
        assert [finished_once(folder, 120) for folder in begun(copy, name)] == [True, True]
    assert not list(copy.glob("training/*/config.yaml"))  # each run has its own


def test_failing_run_is_reported_and_the_others_finish(copy, tmp_path):
    few = SHORT | {"max_epochs": 2}
    parts = (NO, few | {"accelerator": ["mps" if sys.platform != "darwin" else "cuda"]}), (NO, few)
    process = sweep(copy, "--config", grid(tmp_path / "g.yaml", *parts, name="fails", seeds=[0]))
    out, said = process.communicate(timeout=180)
    assert process.returncode == 1
    assert out.startswith("runs: 1 finished, 0 finished before, 1 failed; took 0:00:")
    bad = copy / "training" / "no_regularizer" / "output" / "fails"
    (log,) = bad.glob("accelerator=*,seed=0/log.txt")
    assert f"failed: no_regularizer, fails/{log.parent.name}: exit status 2; {log} ends with" in said
    assert "device here; accelerator=cpu is as fast on this problem" in said
    assert finished_once(bad / "seed=0", epochs=2)


@pytest.fixture
def started():
    """Start modules of Python in the background; they are killed in the end."""
    processes = []

    def start(*words, **options):
        processes.append(subprocess.Popen([sys.executable, "-m", *words], stderr=subprocess.DEVNULL, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_run_of_a_killed_worker_goes_on_at_another(copy, tmp_path, started):
    """Two workers in processes of their own; one is killed in the middle of a run, without a chance to say so."""
    address = tmp_path / "scheduler.json"
    elsewhere = {"cwd": tmp_path, "env": active_environment()}  # workers need not be started in the repository
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    started("distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(address), *local, **elsewhere)
    worker = ["distributed.cli.dask_worker", "--scheduler-file", str(address), "--nthreads", "1", "--no-nanny", *local]
    workers = [started(*worker, "--local-directory", str(tmp_path), **elsewhere) for _ in range(2)]
    until(lambda: address.exists() and address.read_text().rstrip().endswith("}"), workers[0])
    where = yaml.safe_load(address.read_text())["address"]
    process = sweep(copy, "--scheduler", where, "--config", grid(tmp_path / "g.yaml", (NO, SHORT), name="killed"))
    until(lambda: begun(copy, "killed"), process)
    folder = begun(copy, "killed").pop()
    (pid,) = (one.ppid() for one in trainings(copy) if one.cmdline()[-1] == f"killed/{folder.name}")
    next(one for one in workers if one.pid == pid).kill()
    out, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert out.startswith("runs: 2 finished, 0 finished before, 0 failed;")
    assert len(begun(copy, "killed")) == 2
    assert all(map(finished_once, begun(copy, "killed")))
    log = (folder / "log.txt").read_text()
    assert log.index("stopped after") < log.index("continues after")  # one process at a time, the killed worker's first
    assert trainings(copy) == []


# --- a cluster


def test_job_script_of_slurm_says_what_the_file_says(tmp_path):
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt is not installed")
    path = tmp_path / "slurm.yaml"
    path.write_text("queue: short\naccount: physics\ncores: 4\nprocesses: 4\nmemory: 8GB\nwalltime: '01:30:00'\n")
    with slurm_cluster(path) as cluster:
        script = cluster.job_script()
    for line in ("-p short", "-A physics", "--cpus-per-task=4", "--mem=8G", "-t 01:30:00"):
        assert f"#SBATCH {line}\n" in script
    assert "--nthreads 1 " in script and "--nworkers 4 " in script


def test_wrong_option_of_slurm_is_named(tmp_path):
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt is not installed")
    (tmp_path / "slurm.yaml").write_text("cores: 1\nmemory: 1GB\nquue: short\n")
    with pytest.raises(UserError, match=r"slurm.yaml: .*'quue'"):
        slurm_cluster(tmp_path / "slurm.yaml")


def test_what_sbatch_says_is_passed_on_and_ctrl_c_is_left_as_it_was(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt is not installed")
    (tmp_path / "slurm.yaml").write_text("cores: 1\nmemory: 1GB\n")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho no such partition >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    handler = signal.getsignal(signal.SIGINT)
    with slurm_cluster(tmp_path / "slurm.yaml") as cluster, pytest.raises(UserError, match="no such partition"):
        submit(cluster, 2)
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.mark.parametrize(("workers", "jobs"), [(None, 3), (2, 2), (5, 3)])
def test_as_many_jobs_are_submitted_as_there_are_runs_or_workers(tmp_path, monkeypatch, workers, jobs):
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt is not installed")
    (tmp_path / "slurm.yaml").write_text("cores: 1\nmemory: 1GB\n")
    for command, said in (("sbatch", "Submitted batch job $$"), ("scancel", "")):
        (tmp_path / command).write_text(f"#!/bin/sh\necho . >> {tmp_path}/{command}.log\necho {said}\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with open_client(Namespace(slurm=tmp_path / "slurm.yaml", scheduler=None, workers=workers), runs=3):
        assert len((tmp_path / "sbatch.log").read_text().split()) == jobs


def test_importing_dask_jobqueue_leaves_the_handlers_of_signals_as_they_were(tmp_path):
    """In a process of its own, for it replaces them when it is imported first."""
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt is not installed")
    (tmp_path / "slurm.yaml").write_text("cores: 1\nmemory: 1GB\n")
    code = """if True:
        import signal, sys
        from pathlib import Path
        from training.sweep import slurm_cluster
        both = signal.SIGINT, signal.SIGTERM
        for number in both:
            signal.signal(number, signal.default_int_handler)
        before = [signal.getsignal(number) for number in both]
        slurm_cluster(Path(sys.argv[1])).close()
        assert [signal.getsignal(number) for number in both] == before
    """
    command = [sys.executable, "-c", code, str(tmp_path / "slurm.yaml")]
    done = subprocess.run(command, cwd=ROOT, env=active_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_package_for_slurm_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    (tmp_path / "slurm.yaml").write_text("cores: 1\n")
    with pytest.raises(UserError, match="pip install -r requirements-cluster"):
        slurm_cluster(tmp_path / "slurm.yaml")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cores: abc", "cores: should be a whole number, given abc"),
        ("processes: 2.5", "processes: should be a whole number, given 2.5"),
        ("memory: 8", "memory: should be a size like 8GB, given 8"),
        ("scheduler_options: 5", "scheduler_options: should be `key: value` pairs, given 5"),
        ("job_extra_directives: -q short", "job_extra_directives: should be a list, given -q short"),
        ("memory: much", "dask_jobqueue.SLURMCluster fails with these options: Could not interpret 'much' as a byte"),
        ("processes: 0", "dask_jobqueue.SLURMCluster fails with these options: "),
        ("death_timeout: 60", None),
    ],
)
def test_value_that_slurm_does_not_take_is_named_with_its_file(training, tmp_path, capsys, line, said):
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt is not installed")
    path, options = tmp_path / "slurm.yaml", {"cores": 1, "memory": "1GB"} | yaml.safe_load(line)
    path.write_text(yaml.safe_dump(options))
    status = main(["--config", str(grid(tmp_path / "g.yaml", (NO, {}))), "--dry-run", "--slurm", str(path)])
    out, printed = capsys.readouterr()
    assert status == (2 if said else 0)
    assert printed.startswith(f"{path}: {said}") if said else printed == ""
    assert ("#SBATCH -n 1\n" in out) == (not said)


def test_dry_run_says_which_runs_are_finished_begun_or_to_do(training, tmp_path, capsys, monkeypatch):
    path = grid(tmp_path / "g.yaml", (NO, {}), seeds=(0, 1, 2))
    finished, begun, _ = plan(path)
    for planned in (finished, begun):
        planned.run.last_checkpoint.parent.mkdir(parents=True)
        planned.run.last_checkpoint.touch()
    monkeypatch.setattr("training.sweep.is_trained", lambda planned: planned == finished)
    assert main(["--config", str(path), "--dry-run"]) == 0
    states = [line.split(f"  {NO} ") for line in capsys.readouterr().out.splitlines()]
    assert states == [["finished", "seed=0"], ["begun   ", "seed=1"], ["to do   ", "seed=2"]]


def test_run_of_another_configuration_is_not_taken_for_this_one(training, tmp_path, monkeypatch):
    (planned,) = plan(grid(tmp_path / "g.yaml", (NO, {"max_epochs": 7}), seeds=[0]))
    (other,) = plan(grid(tmp_path / "g.yaml", (NO, {"max_epochs": 8}), seeds=[0]))
    assert planned.run == other.run
    planned.run.folder.mkdir(parents=True)
    planned.configuration.write(planned.run.configuration_file)
    assert not is_trained(planned)
    monkeypatch.setattr("training.sweep.is_finished", lambda run: True)
    assert is_trained(planned) and not is_trained(other)
