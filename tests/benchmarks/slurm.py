"""A Slurm of one machine, and three short trainings on it of which one is killed and another requeued.

``python tests/benchmarks/slurm.py [PAGE]`` starts munged, slurmctld and slurmd in a temporary folder (Debian:
``apt-get install slurm-wlm munge``), submits the trainings by ``autoseg_run --launcher slurm``, and writes what
happened to PAGE, by default docs/benchmarks/slurm.md. tests/launch/test_slurm.py starts its Slurm from here too.
"""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol")
SEARCHED = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

CONFIGURATION = """\
ClusterName=autoseg
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,defer_batch
ReturnToService=2
KillWait=20
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
"""No accounting, no cgroups: what a daemon may do anywhere. ``requeue`` lets a job begin again after a while."""


def missing_programs() -> list[str]:
    """Return which of Slurm's programs are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]


@contextmanager
def run_slurm(folder: Path, *, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Run a Slurm of this machine below ``folder``; yields the environment in which its commands find it.

    Raises:
        RuntimeError: a daemon does not come up; the message ends with its log.
    """
    with ExitStack() as stack:
        folder.chmod(0o755)
        _start_munge(folder, stack)
        host = socket.gethostname().split(".")[0]
        user = pwd.getpwuid(os.getuid()).pw_name
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        text = CONFIGURATION.format(host=host, user=user, folder=folder, cpus=cpus, **ports)
        (folder / "slurm.conf").write_text(text)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCHED}
        for daemon in ("slurmctld", "slurmd"):
            _start([daemon, "-D"], stack, environment, folder / f"{daemon}.out")
        _wait_until(lambda: _node_is_idle(environment), 60, "the node is not idle", folder / "slurmctld.log")
        yield environment


def _start_munge(folder: Path, stack: ExitStack) -> None:
    """Start munged with a key of its own, as its own user where this is root: it wants no one else's folders."""
    place = folder / "munge"
    place.mkdir()
    key = place / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    own = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups"] if os.getuid() == 0 else []
    if own:
        for path in (place, key):
            shutil.chown(path, "munge", "munge")
    place.chmod(0o711)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={place / name}" for option, name in files.items()]
    _start(
        [*own, "munged", "--foreground", "--force", *options],
        stack,
        os.environ | {"PATH": SEARCHED},
        folder / "munged.out",
    )
    _wait_until(lambda: (place / "socket").exists(), 20, "munged has no socket", folder / "munged.out")


def _start(command: list[str], stack: ExitStack, environment: dict[str, str], log: Path) -> None:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    stack.callback(_end, process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _node_is_idle(environment: dict[str, str]) -> bool:
    found = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
    return found.stdout.strip() == "idle"


def _wait_until(holds: Callable[[], bool], seconds: float, complaint: str, log: Path) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > limit:
            told = log.read_text(errors="replace")[-2000:] if log.is_file() else "no log"
            raise RuntimeError(f"{complaint} after {seconds:.0f} s; {log.name} ends: {told}")
        time.sleep(0.2)
