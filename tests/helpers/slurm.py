"""A SLURM of this machine alone: controller and node on loopback, with ports, keys and files of its own."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time

import pytest

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={0}
SlurmdPort={1}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
KillWait=5
OverTimeLimit=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running_slurm(folder):
    """Run it during the block, with SLURM_CONF set; skip the test where that cannot be."""
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    if os.geteuid():
        pytest.skip("SLURM's daemons are started by root alone")
    text = CONFIGURATION.format(*free_ports(2), host=socket.gethostname().partition(".")[0], folder=folder)
    (folder / "slurm.conf").write_text(text)
    (folder / "munge.key").write_bytes(secrets.token_bytes(64))
    (folder / "munge.key").chmod(0o400)
    munge = ["munged", "-F", "--force", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        for words in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = stack.enter_context((folder / f"{words[0]}.log").open("w"))
            process = stack.enter_context(subprocess.Popen(words, stdout=log, stderr=log))
            stack.callback(process.terminate)
            time.sleep(0.5)
        limit = time.monotonic() + 60
        while (found := subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)).stdout != "idle\n":
            assert time.monotonic() < limit, f"{found.stdout}{found.stderr}; see {folder}"
            time.sleep(0.2)
        stack.callback(subprocess.run, ["scancel", "--user=root", "--signal=KILL", "--full"])  # what a failed test left
        yield
