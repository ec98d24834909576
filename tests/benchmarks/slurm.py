"""A Slurm of one machine, a dataset prepared by arrays on it, and three short trainings that wait for that: one is
killed, one requeued, one reaches its time limit.

``python tests/benchmarks/slurm.py [PAGE]`` starts munged, slurmctld and slurmd in a temporary folder (Debian:
``apt-get install slurm-wlm munge``), submits all that by ``autoseg_run --launcher slurm --parts 2``, and writes what
happened to PAGE, by default docs/benchmarks/slurm.md. tests/launch/test_slurm.py does the same.
"""

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
AuthInfo=socket={munge},cred_expire=5
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
"""No accounting, no cgroups: what a daemon may do anywhere. A requeued job waits as long as credentials live."""


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
        munge = _start_munge(folder, stack)
        host = socket.gethostname().split(".")[0]
        user = pwd.getpwuid(os.getuid()).pw_name
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        text = CONFIGURATION.format(host=host, user=user, folder=folder, munge=munge, cpus=cpus, **ports)
        (folder / "slurm.conf").write_text(text)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCHED}
        for daemon in ("slurmctld", "slurmd"):
            _start([daemon, "-D"], stack, environment, folder / f"{daemon}.out")
        _wait_until(lambda: _node_is_idle(environment), 60, "the node is not idle", folder / "slurmctld.log")
        yield environment


def _start_munge(folder: Path, stack: ExitStack) -> Path:
    """Start munged with a key of its own, as its own user where this is root; return its socket."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # the folder's own parents may be closed to it
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
    return place / "socket"


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
    found = subprocess.run(
        ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    return found.stdout.strip() == "idle"


def _wait_until(holds: Callable[[], bool], seconds: float, complaint: str, log: Path) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > limit:
            told = log.read_text(errors="replace")[-2000:] if log.is_file() else "no log"
            raise RuntimeError(f"{complaint} after {seconds:.0f} s; {log.name} ends: {told}")
        time.sleep(0.2)


EPOCHS = 40
FOLDS = (0, 1, 2)
PARTS = 2
TINY = (
    "training.patch_size=[16,16,16]",
    'network.config={"strides":[[1,1,1],[2,2,2]],"kernel_sizes":[[3,3,3],[3,3,3]],"features_per_stage":[4,8],'
    '"blocks_per_stage_encoder":[1,1],"blocks_per_stage_decoder":[1]}',
    "training.batch_size=2",
    f"training.epochs={EPOCHS}",
    "training.iterations_per_epoch=15",
    "training.validation_iterations=1",
    "prediction.mirror_axes=[]",
)


@dataclass
class Trial:
    """Three trainings on a Slurm, and what was seen of them.

    Attributes:
        root: workspace.
        environment: in which Slurm's commands find it.
        lines: what happened, in order.
        same: whether the arrays have left the same files as one process.
    """

    root: Path
    environment: dict[str, str]
    lines: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    same: bool = False

    def note(self, text: str) -> None:
        """Write down what happens, without the paths of this machine."""
        text = text.replace(sys.executable, "python").replace(str(self.root), "WORKSPACE")
        text = text.replace(socket.gethostname(), "node")
        line = f"[{time.monotonic() - self.started:5.1f} s] {text}"
        self.lines.append(line)
        sys.stderr.write(line + "\n")

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Type the ``autoseg_run`` of the three trainings."""
        words = ["-d", "Phantom", "-w", str(self.root), "-a", "unet", "--name", "tiny"]
        words += [word for text in TINY for word in ("--set", text)] + [word for f in FOLDS for word in ("-f", str(f))]
        words += ["--launcher", "slurm", "--partition", "short", "--gpus", "0", "--cpus", "1", "--time", "30"]
        words += ["--parts", str(PARTS), *more]
        options = " ".join(words[words.index("--launcher") :])
        self.note(f"$ autoseg_run -d Phantom -a unet --set ... --name tiny -f 0 -f 1 -f 2 {options}")
        return self.type("run", words)

    def plan(self, dataset: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Type an ``autoseg_plan`` that submits."""
        options = ["--launcher", "slurm", "--partition", "short", "--cpus", "1", "--time", "30", "--parts", str(PARTS)]
        words = ["-d", dataset, *options, *more]
        self.note(f"$ autoseg_plan {' '.join(words)}")
        return self.type("plan", [*words, "-w", str(self.root)])

    def type(self, command: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command of autoseg, and write down what it says."""
        call = [sys.executable, "-m", f"autoseg.cli.{command}", *words]
        found = subprocess.run(call, env=self.environment, capture_output=True, encoding="utf-8", check=False)
        for line in [*found.stdout.splitlines(), *found.stderr.splitlines()]:
            self.note(f"  {line}")
        return found

    def slurm(self, *command: str) -> None:
        """Type a command of Slurm's."""
        self.note(f"$ {' '.join(command)}")
        subprocess.run(command, env=self.environment, check=True)

    def folder(self, fold: int) -> Path:
        """Return a run's folder."""
        return self.root / "results" / "Phantom" / "unet_tiny" / f"fold_{fold}"

    def epochs(self, fold: int) -> list[int]:
        """Return the epochs that a run has logged."""
        path = self.folder(fold) / "logs" / "metrics.jsonl"
        return (
            [json.loads(line)["epoch"] for line in path.read_text(encoding="utf-8").splitlines()]
            if path.is_file()
            else []
        )

    def is_idle(self) -> bool:
        """Whether the queue is empty."""
        call = ["squeue", "--noheader"]
        found = subprocess.run(call, env=self.environment, capture_output=True, encoding="utf-8", check=False)
        return not found.stdout.strip()

    def finished(self, fold: int) -> bool:
        """Whether a run is scored."""
        return (self.folder(fold) / "validation" / "metrics.json").is_file()

    def job(self, fold: int) -> str:
        """Return the job of a run."""
        job: str = json.loads((self.folder(fold) / "logs" / "slurm.json").read_text(encoding="utf-8"))["job"]
        return job

    def wait(self, what: str, holds: Callable[[], bool], seconds: float = 900) -> None:
        """Wait until something holds, and write it down."""
        _wait_until(holds, seconds, f"not seen: {what}", self.root.parent / "slurm" / "slurmctld.log")
        self.note(what)

    def train_process(self, fold: int) -> int:
        """Return the process that trains a fold of this workspace."""
        for entry in Path("/proc").iterdir():
            words = _command_line(entry) if entry.name.isdigit() else []
            if "autoseg.cli.train" in words and str(self.root) in words and words[words.index("-f") + 1] == str(fold):
                return int(entry.name)
        raise RuntimeError(f"fold {fold} is not being trained")


def _command_line(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text(encoding="utf-8").split("\0")
    except OSError:  # it has ended in this moment
        return []


def prepare_broken(trial: Trial) -> None:
    """Submit the preparation of a dataset with an unreadable image, of which nothing may come but its error."""
    folder = trial.root / "raw" / "Dataset901_Broken"
    shutil.copytree(trial.root / "raw" / "Dataset900_Phantom", folder)
    (folder / "imagesTr" / "phantom_003_0000.nii.gz").write_bytes(b"nonsense")
    trial.plan("Broken", "-a", "unet")
    trial.wait("the queue is empty: the planning has failed, and what waited for it is cancelled", trial.is_idle)
    for path in sorted((trial.root / "plans" / "Broken").glob("*.json")):
        trial.note(f"  {path}")
    logs = sorted((trial.root / "results" / "Broken" / "slurm").glob("*_log.err"))
    for text in dict.fromkeys(
        line for log in logs for line in log.read_text().splitlines() if line.startswith("error")
    ):
        trial.note(f"  {text}")


def files_of(root: Path) -> dict[str, bytes]:
    """Return the content of all that a preparation leaves but the kept measurements, which name times of files."""
    found = [path for name in ("plans", "preprocessed") for path in (root / name / "Phantom").rglob("*.*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.parent.name != "measured"}


def prepare_whole(trial: Trial, root: Path) -> dict[str, bytes]:
    """Prepare the same dataset in one process in a workspace of its own, and return its files."""
    root.mkdir()
    (root / "raw").symlink_to(trial.root / "raw")
    words = ["-d", "Phantom", "-a", "unet", "--name", "unet_tiny", *(w for text in TINY for w in ("--set", text))]
    trial.note("$ autoseg_plan -d Phantom -a unet --set ... --name unet_tiny -w OTHER, in one process")
    call = [sys.executable, "-m", "autoseg.cli.plan", *words, "-w", str(root)]
    subprocess.run(call, capture_output=True, check=True)
    return files_of(root)


def exercise(folder: Path) -> Trial:
    """Prepare the dataset and run the trainings below ``folder``, disturb each, and return the trial at the end."""
    from autoseg.data.phantom import make_phantom_dataset

    root, cluster = folder / "workspace", folder / "slurm"
    cluster.mkdir()
    make_phantom_dataset(root / "raw" / "Dataset900_Phantom", num_cases=6, size=32, seed=1)
    with run_slurm(cluster) as environment:
        trial = Trial(root, environment)
        prepare_broken(trial)
        alone = prepare_whole(trial, folder / "other")
        trial.run()
        trial.run("--status")
        trial.wait("fold 0 has trained 5 epochs", lambda: len(trial.epochs(0)) >= 5)
        number = trial.train_process(0)
        os.kill(number, signal.SIGKILL)
        trial.note(f"$ kill -KILL, the training of fold 0, after {len(trial.epochs(0))} epochs")
        trial.wait("fold 1 has trained 5 epochs", lambda: len(trial.epochs(1)) >= 5)
        trial.slurm("scontrol", "requeue", trial.job(1))
        trial.run("--status")
        trial.wait("fold 2 has trained 5 epochs", lambda: len(trial.epochs(2)) >= 5)
        trial.slurm("scancel", "--signal=USR2", trial.job(2))
        trial.note("  (the signal by which Slurm warns of a time limit)")
        trial.run()
        trial.wait("all three are finished", lambda: all(map(trial.finished, FOLDS)))
        report = root / "reports" / "Phantom" / "report.html"
        trial.wait("the dependent job has written the report", report.is_file)
        trial.wait("the queue is empty", trial.is_idle)
        trial.run()
        trial.same = files_of(root) == alone
        trial.note(f"the {len(alone)} files of plans and cases are {'' if trial.same else 'NOT '}those of one process")
        for fold in FOLDS:
            trial.note(f"fold {fold}, what its logs/run.log says of its attempts:")
            for line in attempts(trial, fold):
                trial.note(f"  {line}")
    return trial


def attempts(trial: Trial, fold: int) -> list[str]:
    """Return how the attempts of a run began and ended."""
    text = (trial.folder(fold) / "logs" / "run.log").read_text(encoding="utf-8")
    return [found for found in re.findall(r"^[-0-9]+ [:0-9]+  (started on \w+|ended: .*)", text, re.MULTILINE)]


PAGE = """\
# A dataset prepared by arrays, and three trainings, on a Slurm

`python tests/benchmarks/slurm.py` starts {version} on one machine (slurmctld, slurmd and munged as local daemons, no
accounting). First a dataset with an unreadable image is to be prepared: the planning tells the error, and the jobs that
wait for it are cancelled. Then one `autoseg_run --parts {parts}` submits everything at once: an array that measures, a
planning job, an array that preprocesses, three short trainings of a phantom, and the comparison, each waiting for what
is before it. The files of plans and cases are {same}those that one process makes. Each training is disturbed: the
process of fold 0 is killed (the job tries again from the checkpoint), the job of fold 1 is requeued by hand, and fold 2
gets the signal by which Slurm warns of a time limit (its training saves, and the job puts itself back into the queue).
Afterwards {whole} of {runs} runs have the epochs 1 to {epochs} once each in their `metrics.jsonl`.
Folder and host names are replaced; the scores of so short a training say nothing.

```
{lines}
```

Not shown by this: several nodes, GPUs, preemption by a scheduler's own decision, a shared file system.
"""


def write_page(trial: Trial, path: Path) -> None:
    """Write what happened as a page."""
    version = subprocess.run(
        ["slurmctld", "-V"], env=trial.environment, capture_output=True, encoding="utf-8", check=True
    )
    whole = sum(trial.epochs(fold) == list(range(1, EPOCHS + 1)) for fold in FOLDS)
    path.write_text(
        PAGE.format(
            version=version.stdout.strip(), whole=whole, runs=len(FOLDS), epochs=EPOCHS,
            parts=PARTS, same="byte by byte " if trial.same else "NOT ",
            lines="\n".join(line.rstrip() for line in trial.lines),
        )
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        page = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "benchmarks" / "slurm.md"
        write_page(exercise(Path(name)), page)
