"""Trains many runs: experiments x overrides x seeds, on the processors of this machine or of a cluster.

A training uses one thread, so runs are what there is to do at once. Each is a process of its own, started by a Dask
worker (sweep_worker.py); all that a run writes is in its folder, so a sweep has no state besides its runs.
"""

import argparse
import contextlib
import logging
import shlex
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

if __name__ == "__main__":  # a Ctrl-C in the seconds that the imports take ends this at once, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tqdm import tqdm

from training.side_by_side import usable_processors
from training.train import is_finished
from utils.files import sentence
from utils.runs.loading import ROOT, UserError, read_configuration, read_yaml
from utils.sweeps.plan import PlannedRun, plan

CONFIG = "training/sweep_config.yaml"
SLURM_OPTIONS = {  # those whose wrong types dask_jobqueue takes without a word, or stumbles over without naming them
    **dict.fromkeys(("cores", "processes", "n_workers"), (int, "a whole number")),
    "memory": (str, "a size like 8GB"),
    "scheduler_options": (dict, "`key: value` pairs"),
    **dict.fromkeys(
        ("job_extra_directives", "job_directives_skip", "job_script_prologue", "worker_extra_args"), (list, "a list")
    ),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description="Trains every run of a grid of experiments, overrides and seeds, several at once. The same command "
        "again continues interrupted runs and leaves finished ones alone. Ctrl-C ends all cleanly, with checkpoints.",
    )
    parser.add_argument("--config", type=Path, default=ROOT / CONFIG, help=f"the grid (default: {CONFIG})")
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="runs at once (default: one a processor; with --slurm one a run)"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="leave out the runs whose results this file holds")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="use a running Dask cluster, for example tcp://host:8786")
    where.add_argument(
        "--slurm",
        type=Path,
        metavar="FILE",
        help="submit workers to SLURM; the YAML file holds the options of dask_jobqueue.SLURMCluster",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the runs, and with --slurm the job script; start nothing"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number of at least 1, given {text}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Train what the command line says; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse_arguments(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a batch system sends is a Ctrl-C too
    try:
        return sweep(options)
    except KeyboardInterrupt:
        command = shlex.join(["python", "-m", "training.sweep", *words])
        print(f"Stopped; what was trained is saved. To continue: {command}", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        if options.debug:
            raise
        print(sentence(error), file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def sweep(options: argparse.Namespace) -> int:
    """Train the runs that are not finished; return 1 where one failed."""
    began = time.monotonic()
    runs = plan(options.config)
    to_do = [planned for planned in without_results(runs, options.results) if not is_trained(planned)]
    if options.dry_run:
        for planned in runs:
            begun = "begun" if planned.run.last_checkpoint.exists() else "to do"
            state = begun if planned in to_do else "finished"
            print(f"{state:8}  {planned.run.experiment} {shlex.join(planned.overrides)}")
        if options.slurm:
            with slurm_cluster(options.slurm) as cluster:
                print(cluster.job_script())
        return 0
    outcomes = Counter({"finished": 0, "finished before": len(runs) - len(to_do), "failed": 0})
    if to_do:
        with open_client(options, len(to_do)) as client:
            outcomes.update(train_all(client, to_do))
    counts = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    print(f"runs: {counts}; took {timedelta(seconds=round(time.monotonic() - began))}")
    return int(outcomes["failed"] > 0)


def without_results(runs: list[PlannedRun], path: Path | None) -> list[PlannedRun]:
    """Return the runs whose results a file does not hold; all of them where there is no file."""
    if path is None:
        return runs
    from utils.sweeps.results import fingerprint, read_results  # these import all of the analysis

    held = {row["key"] for row in read_results(path)}
    return [planned for planned in runs if fingerprint(planned.configuration) not in held]


def is_trained(planned: PlannedRun) -> bool:
    """Whether no process need be started; whatever is unusual about a run is for train.py to say."""
    return is_finished(planned.run) and read_configuration(planned.run.configuration_file) == planned.configuration


def train_all(client, to_do: list[PlannedRun]) -> Counter:
    """Train runs on a cluster, show how far they are, and return how many ended how."""
    from distributed import as_completed

    from training.sweep_worker import Trainings, task

    ours = f"trainings-{uuid.uuid4().hex}"  # other sweeps may use the same cluster
    client.register_plugin(Trainings(), name=ours)
    train, futures, outcomes = task(ours), {}, Counter()
    try:
        for planned in to_do:
            run = planned.run
            words = [run.experiment, *planned.overrides, "--run-name", run.name]
            key = f"{run.experiment}/{run.name}-{ours}"
            futures[client.submit(train, words, str(ROOT), str(log_of(planned)), key=key)] = planned
        with tqdm(total=len(to_do), unit="run", desc="sweep", dynamic_ncols=True, smoothing=0) as bar:
            for future in as_completed(futures, loop=client.loop):
                fault = failure(future, log_of(futures[future]))
                if fault:
                    run = futures[future].run
                    bar.write(f"failed: {run.experiment}, {run.name}: {fault}", file=sys.stderr)
                outcomes["failed" if fault else "finished"] += 1
                bar.set_postfix(failed=outcomes["failed"], refresh=False)
                bar.update()
    finally:
        client.unregister_worker_plugin(ours)  # ends what still runs, and returns when that is saved
        client.cancel(list(futures))
    return outcomes


def log_of(planned: PlannedRun) -> Path:
    """Return the file of what the training says."""
    return planned.run.folder / "log.txt"


def failure(future, log: Path) -> str | None:
    """Return what went wrong with a run, or None."""
    try:
        status, said = future.result()
    except Exception as error:  # of Dask, or of the worker's machine: this run has failed, the others need not
        return f"{type(error).__name__}: {error}"
    if not status:
        return None
    return f"exit status {status}; {log} ends with\n" + "\n".join(f"    {line}" for line in said.splitlines())


@contextlib.contextmanager
def open_client(options: argparse.Namespace, runs: int) -> Iterator:
    """Yield a client of the cluster that the command line asks for; one that was made here is closed after."""
    import dask

    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 100,  # a run goes on elsewhere when its worker dies
            "distributed.scheduler.worker-saturation": 1.0,  # runs are long: none should queue at a busy worker
        }
    )
    from distributed import Client, LocalCluster, Security
    from distributed.comm import get_address_host_port

    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):  # what matters is said here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if (cluster := options.scheduler) is not None:
            try:
                _, port = get_address_host_port(cluster)
                if port > 65535:
                    raise ValueError(f"there is no port {port}")
                if cluster.startswith("tls:") and not Security().get_connection_args("client")["ssl_context"]:
                    raise ValueError("tls needs certificates, which Dask's configuration names (distributed.comm.tls)")
            except ValueError as error:
                raise UserError(f"--scheduler {cluster}: {error}") from error
        elif options.slurm:
            cluster = stack.enter_context(slurm_cluster(options.slurm))
            submit(cluster, min(options.workers or runs, runs))
        else:  # workers only wait for processes, so threads of this one will do
            workers = min(options.workers or usable_processors(), runs)
            quiet = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL, "memory_limit": 0}
            cluster = stack.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, **quiet)
            )
        client = stack.enter_context(Client(cluster, set_as_default=False))
        if not client.scheduler_info()["workers"]:
            print("No worker is there yet; the runs wait for one.", file=sys.stderr)
        yield client


def slurm_cluster(path: Path):
    """Return a Dask cluster without workers yet; its jobs are as the YAML file says."""
    options = {"scheduler_options": {"dashboard_address": ":0"}} | read_yaml(path)  # the usual port may be taken
    for key, (kind, what) in SLURM_OPTIONS.items():
        if (value := options.get(key)) is not None and not isinstance(value, kind):
            raise UserError(f"{path}: {key}: should be {what}, given {value}")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        from dask_jobqueue import SLURMCluster
    except ModuleNotFoundError as error:
        raise UserError(f"--slurm needs a package more: pip install -r requirements-cluster.txt ({error})") from error
    for number, handler in handlers.items():
        signal.signal(number, handler)  # importing it replaces them, and a Ctrl-C would save nothing
    try:
        return SLURMCluster(**options)
    except Exception as error:  # of any kind: the options are checked where each is used
        raise UserError(f"{path}: dask_jobqueue.SLURMCluster fails with these options: {error}") from error


def submit(cluster, workers: int) -> None:
    """Submit jobs for so many workers; raises UserError with what sbatch said where it failed."""

    async def grow():
        cluster.scale(workers)  # this alone returns at once, and only logs what goes wrong later
        await cluster._correct_state()

    try:
        cluster.sync(grow)
    except (RuntimeError, OSError) as error:
        submitted = {name: job for name, job in cluster.workers.items() if job.status.name == "running"}
        cluster.workers, cluster._created = submitted, set(submitted.values())  # what is not running cannot be closed
        raise UserError(f"the jobs could not be submitted: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
