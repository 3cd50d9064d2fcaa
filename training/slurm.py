"""Dask workers as jobs of SLURM: submitted, and looked after, so that a sweep never waits for jobs that are dead."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from utils.files import UserError, signals_to
from utils.runs.loading import read_yaml

ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


def slurm_cluster(path: Path) -> Any:
    """Return dask_jobqueue's cluster without workers yet; its jobs are as the YAML file says."""
    options: dict[str, Any] = {"scheduler_options": {"dashboard_address": ":0"}, "python": shlex.quote(sys.executable)}
    options |= read_yaml(path)
    try:
        with signals_to():  # importing it takes them, and a Ctrl-C would save nothing
            from dask_jobqueue import SLURMCluster
    except ModuleNotFoundError as error:
        raise UserError(f"--slurm needs a package more: pip install -r requirements-cluster.txt ({error})") from error
    try:
        return SLURMCluster(**options)
    except Exception as error:  # of any kind: the options are checked where each is used
        raise UserError(f"{path}: dask_jobqueue.SLURMCluster fails with these options: {error}") from error


def submit(cluster: Any, workers: int) -> None:
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


def check_jobs(cluster: Any) -> None:
    """Raise UserError, with SLURM's reason and the output file of each job, where none is alive any more."""
    jobs = [describe_job(job.job_id) for job in cluster.workers.values()]
    if jobs and not any(job["JobState"] in ALIVE for job in jobs):
        text = "  job {JobId}: {JobState}, reason {Reason}, exit code {ExitCode}, output {StdOut}"
        lines = ["All jobs of SLURM have ended before the sweep; the same command continues it:"]
        lines += [text.format(**job) for job in jobs]
        raise UserError("\n".join(lines))


def describe_job(job: str) -> dict[str, str]:
    """Return what SLURM knows of a job, by its own names; it forgets a job some minutes after its end."""
    done = subprocess.run(["scontrol", "show", "job", "--oneliner", str(job)], capture_output=True, text=True)
    unknown = dict.fromkeys(("JobState", "Reason", "ExitCode", "StdOut"), "unknown") | {"JobId": job}
    return unknown | dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", done.stdout))  # a path may hold spaces
