"""Trains and evaluates many runs: experiments x overrides x seeds, on the processors of this machine or of a cluster.

A training uses one thread, so several runs are at work at once. Each Dask worker (worker.py) is a process that trains
and evaluates one run after another; all state is in the folders of the runs.
"""

import argparse
import contextlib
import logging
import shlex
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # a Ctrl-C in the seconds that the imports take ends this at once, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tqdm import tqdm

from training import slurm
from utils.files import UserError, error_message
from utils.runs.checkpoints import is_finished
from utils.runs.curves import epochs_written
from utils.runs.loading import configure
from utils.runs.run import ANALYTICAL, BASELINE, ROOT, Run
from utils.runs.store import Record
from utils.score.samplers import Sampling
from utils.sweeps.plan import PlannedRun, plan, plan_shipped
from utils.sweeps.results import read_results

CONFIG = "training/sweep_config.yaml"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description="Trains and evaluates every run of a grid of experiments, overrides and seeds, several at once. "
        "The same command again continues interrupted runs and leaves finished ones alone. Ctrl-C ends all cleanly, "
        "with checkpoints. Then: python analyse_experiments.py --sweep NAME",
    )
    add, what, where = parser.add_argument, parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    what.add_argument("--config", type=Path, default=ROOT / CONFIG, help=f"the grid (default: {CONFIG})")
    what.add_argument("--all", action="store_true", help="instead: run1 of every experiment, with all pictures")
    add("--experiments", nargs="+", metavar="NAME", help="with --all: only these")
    add("--workers", type=_count, metavar="N", help="runs at once (default: one a processor; with --slurm one a run)")
    add("--results", type=Path, metavar="FILE", help="leave out the runs whose results this file holds")
    where.add_argument("--scheduler", metavar="ADDRESS", help="use a running Dask cluster, for example tcp://host:8786")
    where.add_argument("--slurm", type=Path, metavar="FILE", help="use SLURM; YAML for dask_jobqueue.SLURMCluster")
    add("--dry-run", action="store_true", help="show the runs, and with --slurm the job script; start nothing")
    add("--debug", action="store_true", help="show the traceback of an error")
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
        start = ["bash", "run_all.sh"] if options.all else ["python", "-m", "training.sweep"]
        command = shlex.join([*start, *(word for word in words if word != "--all")])
        print(f"\nStopped; what was trained is saved. To continue: {command}", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        if options.debug:
            raise
        print(error_message(error), file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def sweep(options: argparse.Namespace) -> int:
    """Train and evaluate the runs that are not finished; return 1 where one failed."""
    began, sampling = time.monotonic(), Sampling()
    if options.experiments and not options.all:
        raise UserError("--experiments: goes with --all; a grid's experiments stand in its file")
    runs = plan_shipped(options.experiments) if options.all else plan(options.config)
    held = read_results(options.results, sampling) if options.results else {}
    runs = [planned for planned in runs if planned.configuration.key() not in held]
    if options.dry_run:
        return dry_run(options, runs)
    output = ROOT / "generated_artifacts" if options.all else None
    to_do = [planned for planned in runs if not is_done(planned, sampling)]
    if output:  # the baseline is the quickest: as the last one it leaves no processor idle for long
        to_do = [PlannedRun(Run(ANALYTICAL), (), configure(ANALYTICAL)), *runs[::-1]]
    failed = []
    if to_do:
        with open_client(options, len(to_do)) as (client, check):
            failed = train_all(client, check, to_do, sampling, output)
    elapsed = timedelta(seconds=round(time.monotonic() - began))
    print(f"{len(runs) - len(failed)} of {len(runs)} runs are trained and evaluated; took {elapsed}")
    if output:
        from utils.reports.page import write_reports

        failed += write_reports(output)
    return int(bool(failed))


def is_done(planned: PlannedRun, sampling: Sampling) -> bool:
    """Return whether a run was trained as planned and evaluated."""
    try:
        facts = Record.read(planned.run.metrics_file).facts
    except UserError:
        return False
    return facts["key"] == planned.configuration.key() and facts["sampling"] == sampling.model_dump()


def dry_run(options: argparse.Namespace, runs: list[PlannedRun]) -> int:
    """Print the runs and how far they are, and the job script of SLURM."""
    for planned in runs:
        state = "begun" if planned.run.last_checkpoint.exists() else "to do"
        state = "finished" if state == "begun" and is_finished(planned.run) else state
        print(f"{state:8}  {planned.run.experiment} {shlex.join(planned.overrides)}")
    if options.slurm:
        with slurm.slurm_cluster(options.slurm) as cluster:
            print(cluster.job_script())
    return 0


def train_all(
    client: Any, check: Callable[[], None], to_do: list[PlannedRun], sampling: Sampling, output: Path | None
) -> list[str]:
    """Train and evaluate runs on a cluster, show how far they are, and return a line on each that failed.

    `check` is called while no worker is there; it may raise.
    """
    from distributed import wait

    from training.worker import Trainings, task

    ours = f"trainings-{uuid.uuid4().hex}"  # other sweeps may use the same cluster
    client.register_plugin(Trainings(str(ROOT)), name=ours)
    work, waiting, failed, terminal = task(ours), list(to_do), [], sys.stderr.isatty()
    futures: dict[Any, PlannedRun] = {}
    bar = tqdm(total=len(to_do), unit="run", dynamic_ncols=True, smoothing=0, mininterval=0.1 if terminal else 30)
    try:
        while waiting or futures:
            while waiting and len(futures) < max(len(client.nthreads()), 1):  # a run for each worker, none queued
                planned = waiting.pop(0)
                words = (planned.run.experiment, planned.run.name, list(planned.overrides))
                future = client.submit(work, *words, sampling.model_dump(), str(output or ""), pure=False)
                futures[future] = planned
            with contextlib.suppress(TimeoutError):
                wait(list(futures), timeout=1.0, return_when="FIRST_COMPLETED")
            for future in [future for future in futures if future.done()]:
                if fault := _fault(future, futures.pop(future).run):
                    failed.append(fault)
                    bar.write(fault, file=sys.stderr)
                bar.update()
            bar.set_postfix_str("; ".join(map(_progress, futures.values())), refresh=terminal)
            if futures and not client.nthreads():
                check()
    finally:
        bar.close()
        client.unregister_worker_plugin(ours)  # ends what still runs, and returns when that is saved
        client.cancel(list(futures))
    return failed


def _fault(future: Any, run: Run) -> str:
    try:
        fault = future.result()
    except Exception as error:  # of Dask, or of the worker's machine
        fault = f"{type(error).__name__}: {error}"
    return f"failed: {run.title}: {fault}\n  log: {run.log_file}" if fault else ""


def _progress(planned: PlannedRun) -> str:
    done, all_epochs = epochs_written(planned.run.curves_file), planned.configuration.max_epochs
    name = planned.run.experiment
    name = name if name == BASELINE else name.removesuffix("_regularizer")
    return f"{name} is evaluated" if name == ANALYTICAL or done >= all_epochs else f"{name} {done}/{all_epochs}"


@contextlib.contextmanager
def open_client(options: argparse.Namespace, runs: int) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Yield a client of the cluster that the command line asks for, and what raises where no worker can come any more.

    A cluster that was created here is closed on exit.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client

    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 100,  # a run goes on elsewhere when its worker dies
            "distributed.worker.profile.enabled": False,
        }
    )
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):  # what matters is said here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        address, check = options.scheduler, lambda: None
        if options.slurm:
            address = stack.enter_context(slurm.slurm_cluster(options.slurm))
            slurm.submit(address, min(options.workers or runs, runs))
            check = partial(slurm.check_jobs, address)
        elif address is None:
            address = stack.enter_context(local_cluster(min(options.workers or CPU_COUNT, runs)))
        try:
            client = stack.enter_context(Client(address))
        except (ValueError, TypeError, OSError) as error:  # TypeError: tls without certificates
            raise UserError(f"--scheduler {options.scheduler}: {error}") from error
        if not client.nthreads():
            print("No worker is there yet; the runs wait for one.", file=sys.stderr)
        yield client, check


def local_cluster(workers: int) -> Any:
    """Return a Dask cluster of processes on this machine. They see no Ctrl-C: this process tells them to stop.

    A Ctrl-C while they start is heard when they are there and can be closed.
    """
    from distributed import LocalCluster

    both, heard = (signal.SIGINT, signal.SIGTERM), threading.Event()
    handlers = [signal.signal(number, lambda *_: heard.set()) for number in both]
    resource_tracker.ensure_running()  # or its start, later, would let Ctrl-C through again
    signal.pthread_sigmask(signal.SIG_BLOCK, both)  # processes and threads inherit it
    try:
        quiet = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL, "memory_limit": 0}
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **quiet)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        for number, handler in zip(both, handlers, strict=True):
            signal.signal(number, handler)
    if heard.is_set():
        cluster.close()
        raise KeyboardInterrupt
    return cluster


if __name__ == "__main__":
    sys.exit(main())
