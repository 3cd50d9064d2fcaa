"""Dask workers as jobs of SLURM: submitted, and looked after, so that a sweep never waits for jobs that are dead."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from utils.files import UserError
from utils.runs.loading import read_yaml

ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


def slurm_cluster(path: Path):
    """Return a Dask cluster without workers yet; its jobs are as the YAML file says.

    It has two more methods: `submit(workers)`, and `check_jobs(client)`, which raises UserError where no job is left.
    """
    options = {"scheduler_options": {"dashboard_address": None}, "python": shlex.quote(sys.executable)} | read_yaml(
        path
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        from dask_jobqueue import SLURMCluster
    except ModuleNotFoundError as error:
        raise UserError(f"--slurm needs a package more: pip install -r requirements-cluster.txt ({error})") from error
    for number, handler in handlers.items():
        signal.signal(number, handler)  # importing it replaces them, and a Ctrl-C would save nothing

    class WatchedCluster(SLURMCluster):
        def submit(self, workers: int) -> None:
            """Submit jobs for so many workers; raises UserError with what sbatch said where it failed."""

            async def grow():
                self.scale(workers)  # this alone returns at once, and only logs what goes wrong later
                await self._correct_state()

            try:
                self.sync(grow)
            except (RuntimeError, OSError) as error:
                submitted = {name: job for name, job in self.workers.items() if job.status.name == "running"}
                self.workers, self._created = submitted, set(submitted.values())  # the others cannot be closed
                raise UserError(f"the jobs could not be submitted: {error}") from error

        def check_jobs(self, client) -> None:
            """Raise UserError, with SLURM's reason and output file of each job, where no worker and no job is left."""
            if client.nthreads():
                return
            jobs = [describe_job(job.job_id) for job in self.workers.values()]
            if jobs and not any(job.get("JobState") in ALIVE for job in jobs):
                lines = [
                    f"  job {job['JobId']}: {job.get('JobState', 'gone')}, reason {job.get('Reason', 'unknown')}, "
                    f"exit code {job.get('ExitCode', 'unknown')}, output in {job.get('StdOut', 'unknown')}"
                    for job in jobs
                ]
                text = "All jobs of SLURM have ended before the sweep; the same command continues it:"
                raise UserError("\n".join([text, *lines]))

    try:
        return WatchedCluster(**options)
    except Exception as error:  # of any kind: the options are checked where each is used
        raise UserError(f"{path}: dask_jobqueue.SLURMCluster fails with these options: {error}") from error


def describe_job(job: str) -> dict[str, str]:
    """Return what SLURM knows of a job, by its own names; it forgets a job some minutes after its end."""
    done = subprocess.run(["scontrol", "show", "job", "--oneliner", str(job)], capture_output=True, text=True)
    return {"JobId": str(job)} | dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", done.stdout))  # a path may hold spaces
