"""Slurm on this machine, of one node, without privileges beyond its user's and beside any other that runs here."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from tests.support.commands import address, until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin"
CONFIG = """\
ClusterName=local
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=localhost NodeHostname={host} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
"""A job that is queued again may start when its old credential has expired (cred_expire), by default after 120 s."""


def missing():
    """Slurm's programs that are not installed (Debian: munge, slurmctld, slurmd, slurm-client)."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


MUNGE = {
    "key-file": "munge.key",
    "socket": "munge.socket",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "munged.seed",
}


@contextlib.contextmanager
def running(folder: Path):
    """Starts munge, a controller and a node in a folder; the environment in which their commands reach them."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for above in (folder, *folder.parents[:2]):
        above.chmod(above.stat().st_mode | 0o055)  # munge wants its socket reachable by all
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    user = Path(folder).owner()
    ports = {name: address().rpartition(":")[2] for name in ("controller", "node")}
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, user=user, host=socket.gethostname(), **ports))
    env = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    files = {name: f"{folder}/{file}" for name, file in MUNGE.items()}
    munge = ["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())]
    servers = []
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"]):
            servers.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            if command is munge:
                until((folder / "munge.socket").exists, *servers, seconds=60)
        until(lambda: _nodes(env) == "idle", seconds=60)
        yield env
    finally:
        subprocess.run(["scancel", "--me"], env=env, capture_output=True, check=False)
        for server in reversed(servers):
            server.terminate()
            server.wait(60)


def ask(env, *words):
    """What a command of Slurm's prints."""
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout


def _nodes(env):
    done = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip()
