"""Trains and evaluates many runs: experiments x overrides x seeds, on the processors of this machine or of a cluster.

A training uses one thread, so several runs are at work at once. Each Dask worker (worker.py) is a process that trains
and evaluates one run after another; all state is in the folders of the runs.
"""

import signal

if __name__ == "__main__":  # a Ctrl-C in the seconds that the imports take ends this at once, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import logging
import shlex
import sys
import threading
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training import slurm
from utils.files import UserError, run_command, signals_to
from utils.runs.curves import epochs_written
from utils.runs.loading import configure
from utils.runs.run import ANALYTICAL, ROOT, Run, in_words
from utils.runs.store import kept
from utils.score.samplers import Sampling
from utils.sweeps.plan import PlannedRun, plan, plan_shipped
from utils.sweeps.results import read_results

CONFIG = "training/sweep_config.yaml"


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    """Return the command line."""
    parser = ArgumentParser(
        prog="python -m training.sweep",
        description="Trains and evaluates every run of a grid of experiments, overrides and seeds, several at once. "
        "The same command again continues interrupted runs and leaves finished ones alone. Ctrl-C ends all cleanly, "
        "with checkpoints. Then: python analyse_experiments.py --sweep NAME",
    )
    add, what, where = parser.add_argument, parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    what.add_argument("--config", type=Path, default=ROOT / CONFIG, help=f"the grid (default: {CONFIG})")
    what.add_argument("--all", action="store_true", help="instead: run1 of the base study, with all pictures")
    add("--experiments", nargs="+", metavar="NAME", help="with --all: these instead of the base study")
    add("--workers", type=int, metavar="N", help="runs at once (default: one a processor; with --slurm one a run)")
    add("--results", type=Path, metavar="FILE", help="leave out the runs whose results this file holds")
    where.add_argument("--scheduler", metavar="ADDRESS", help="use a running Dask cluster, for example tcp://host:8786")
    where.add_argument("--slurm", type=Path, metavar="FILE", help="use SLURM; YAML for dask_jobqueue.SLURMCluster")
    add("--dry-run", action="store_true", help="show the runs, and with --slurm the job script; start nothing")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train what the command line says; return the exit status."""
    options, words = parse_arguments(arguments), sys.argv[1:] if arguments is None else arguments
    start = ["bash", "run_all.sh"] if options.all else ["python", "-m", "training.sweep"]
    command = shlex.join([*start, *(word for word in words if word != "--all")])
    stopped = f"\nStopped; what was trained is saved. To continue: {command}"
    return run_command(lambda: sweep(options), options.debug, stopped)


def sweep(options: Namespace) -> int:
    """Train and evaluate the runs that are not finished; return 1 where one failed."""
    began, sampling = time.monotonic(), Sampling()
    if options.experiments and not options.all:
        raise UserError("--experiments: goes with --all; a grid's experiments stand in its file")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers: should be at least 1, given {options.workers}")
    runs = plan_shipped(options.experiments) if options.all else plan(options.config)
    held = read_results(options.results, sampling) if options.results else {}
    runs = [planned for planned in runs if planned.configuration.key() not in held]
    if options.dry_run:
        for planned in runs:
            print(f"{planned.state:8}  {planned.run.experiment} {shlex.join(planned.overrides)}")
        if options.slurm:
            with slurm.slurm_cluster(options.slurm) as cluster:
                print(cluster.job_script())
        return 0
    output = ROOT / "generated_artifacts" if options.all else None
    how = sampling.model_dump()
    to_do = [one for one in runs if not kept(one.run.metrics_file, key=one.configuration.key(), sampling=how)]
    if output:  # the baseline is the quickest: as the last one it leaves no processor idle for long
        to_do = [PlannedRun(Run(ANALYTICAL), (), configure(ANALYTICAL)), *runs[::-1]]
    failed = train_all(options, to_do, sampling, output) if to_do else []
    elapsed = timedelta(seconds=round(time.monotonic() - began))
    print(f"{len(runs) - len(failed)} of {len(runs)} runs are trained and evaluated; took {elapsed}")
    if output:
        from utils.reports.page import write_reports

        for line in (left_out := write_reports(output)):
            print(line, file=sys.stderr)
        failed += left_out
    return int(bool(failed))


def train_all(options: Namespace, waiting: list[PlannedRun], sampling: Sampling, output: Path | None) -> list[str]:
    """Train and evaluate runs, show how far they are, and return a line on each that failed."""
    from training.worker import Trainings, task

    running: dict[Any, PlannedRun] = {}
    failed, terminal = [], sys.stderr.isatty()
    style: dict[str, Any] = {"dynamic_ncols": True, "smoothing": 0, "mininterval": 0.1 if terminal else 30}
    with open_client(options, len(waiting)) as client, tqdm(total=len(waiting), unit="run", **style) as bar:
        ours = f"trainings-{uuid.uuid4().hex}"  # other sweeps may use the same cluster
        client.register_plugin(Trainings(str(ROOT)), name=ours)
        try:
            while waiting or running:
                while waiting and len(running) < max(len(client.nthreads()), 1):  # a run for each worker, none queued
                    planned = waiting.pop(0)
                    words = planned.run.experiment, planned.run.name, list(planned.overrides)
                    future = client.submit(task(ours), *words, sampling.model_dump(), str(output or ""), pure=False)
                    running[future] = planned
                time.sleep(0.2)
                for future in [future for future in running if future.done()]:
                    run, error = running.pop(future).run, future.exception()  # of Dask, or of the worker's machine
                    if fault := f"{type(error).__name__}: {error}" if error else future.result():
                        failed.append(f"failed: {run.title}: {fault}\n  log: {run.log_file}")
                        bar.write(failed[-1], file=sys.stderr)
                    bar.update()
                bar.set_postfix_str("; ".join(map(_progress, running.values())), refresh=terminal)
                if running and options.slurm and not client.nthreads():
                    slurm.check_jobs(client.cluster)
        finally:
            with contextlib.suppress(TimeoutError):  # a worker that is too busy to answer saves when it is closed
                client.unregister_worker_plugin(ours)  # ends what still runs, and returns when that is saved
            client.cancel(list(running))
    return failed


def _progress(planned: PlannedRun) -> str:
    done, all_epochs = epochs_written(planned.run.curves_file), planned.configuration.max_epochs
    name = in_words(planned.run.experiment)
    return f"{name} is evaluated" if name == ANALYTICAL or done >= all_epochs else f"{name} {done}/{all_epochs}"


@contextlib.contextmanager
def open_client(options: Namespace, runs: int) -> Iterator[Any]:
    """Yield a client of the cluster that the command line asks for; one that was created here is closed on exit."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client

    # A run goes on elsewhere when its worker dies.
    dask.config.set({"distributed.scheduler.allowed-failures": 100, "distributed.worker.profile.enabled": False})
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):  # what matters is said here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        cluster = options.scheduler
        if options.slurm:
            cluster = stack.enter_context(slurm.slurm_cluster(options.slurm))
            slurm.submit(cluster, min(options.workers or runs, runs))
        elif cluster is None:
            cluster = stack.enter_context(local_cluster(min(options.workers or CPU_COUNT, runs)))
        try:
            client = stack.enter_context(Client(cluster))
        except (ValueError, TypeError, OSError) as error:  # TypeError: tls without certificates
            raise UserError(f"--scheduler {options.scheduler}: {error}") from error
        if not client.nthreads():
            print("No worker is there yet; the runs wait for one.", file=sys.stderr)
        yield client


def local_cluster(workers: int) -> Any:
    """Return a Dask cluster of processes on this machine. They see no signal: this process tells them to stop.
    A signal that comes while they start is heard when they are there and can be closed."""
    from distributed import LocalCluster

    both, heard = (signal.SIGINT, signal.SIGTERM), threading.Event()
    quiet = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL, "memory_limit": 0}
    with signals_to(lambda *_: heard.set()):
        resource_tracker.ensure_running()  # or its start, later, would let Ctrl-C through again
        signal.pthread_sigmask(signal.SIG_BLOCK, both)  # processes and threads inherit it
        try:
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **quiet)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    if heard.is_set():
        cluster.close()
        raise KeyboardInterrupt
    return cluster


if __name__ == "__main__":
    sys.exit(main())
