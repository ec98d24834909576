"""This trainer beside nnU-Net's: the same data, folds, patch, batch and network, each side in a process of its own.

    python tests/benchmarks/training_speed.py speed WORKSPACE RAW --peer PYTHON    # about 30 minutes on two cores
    python tests/benchmarks/training_speed.py dice WORKSPACE RAW --peer PYTHON     # about 4 hours on two cores
    python tests/benchmarks/training_speed.py gpu WORKSPACE RAW --peer PYTHON      # never run yet

RAW is nnU-Net's folder of the dataset (Dataset004_Hippocampus), PYTHON an environment with nnunetv2 2.8.1; all else is
made in WORKSPACE. ``speed`` lets blocks of iterations of both sides alternate, the other side's processes being stopped
(SIGSTOP) meanwhile, so that what else the machine does slows both; CPU seconds of all of a side's processes are given
beside the clock's. ``dice`` trains both for equally many iterations with nnU-Net's optimiser and schedule, and scores
both with autoseg's metrics; it goes on where it was stopped. ``gpu`` does what ``speed`` does on a GPU, for the plan of
RAW and for one of patches of 128^3 on phantoms, with several numbers of loaders. All write
docs/benchmarks/training_speed.{json,md}, each its own section.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from training_page import FOLDER, write_page

from autoseg.cli import plan as plan_command
from autoseg.data.dataset import find_dataset
from autoseg.data.phantom import make_phantom_dataset
from autoseg.data.splits import Splits
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document, write_document
from autoseg.evaluate.evaluate import evaluate_folder
from autoseg.launch.fold import FoldRun, open_fold
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.variant import vary
from autoseg.train.device import name_device

SIDES = ("autoseg", "nnunet")
LITS = ("training.patch_size=[128,128,128]", "training.batch_size=2")
TICKS = os.sysconf("SC_CLK_TCK")

Spec = dict[str, Any]


class Side:
    """A side's process, which runs only while it is asked for a block."""

    def __init__(self, name: str, python: str, spec_path: Path) -> None:
        self.log = open(spec_path.parent / f"{name}.log", "a")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("training_sides.py")), name, "serve", str(spec_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True,
            env=clean_environment(),
        )  # fmt: skip
        self.about = self._read()
        self._signal(signal.SIGSTOP)

    def run(self, kind: str, count: int) -> dict[str, float]:
        """Run a block, and return the seconds and CPU seconds of an iteration, and the GPU's peak memory."""
        assert self.process.stdin is not None
        before = self._cpu_seconds()
        self._signal(signal.SIGCONT)
        self.process.stdin.write(f"{kind} {count}\n")
        self.process.stdin.flush()
        found = self._read()
        self._signal(signal.SIGSTOP)
        return {**found, "cpu_seconds": (self._cpu_seconds() - before) / count}

    def close(self) -> None:
        """End all of the side's processes."""
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a side has ended; see {self.log.name}")
        return dict(json.loads(line))

    def _signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def _cpu_seconds(self) -> float:
        """Return what all processes of the group have used; Linux only."""
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid:
                total += int(fields[11]) + int(fields[12])
        return total / TICKS


@contextmanager
def sides(spec: Spec, python: str) -> Any:
    """Start both sides; yield them by name."""
    path = write_spec(spec)
    with ExitStack() as stack:
        opened = {}
        for name, interpreter in zip(SIDES, (sys.executable, python)):
            opened[name] = Side(name, interpreter, path)
            stack.callback(opened[name].close)
        yield opened


def compare_blocks(spec: Spec, python: str, *, bare: bool) -> dict[str, Any]:
    """Alternate the sides' blocks; return the seconds of every block after the first, which warms up."""
    kinds = ("loop", "bare") if bare else ("loop",)
    with sides(spec, python) as opened:
        rows: dict[str, Any] = {name: {**side.about, **{kind: [] for kind in kinds}} for name, side in opened.items()}
        if len({side.about["parameters"] for side in opened.values()}) > 1:
            sys.exit(f"the networks differ: {rows}")
        for number in range(spec["rounds"] + 1):
            for kind in kinds:
                for name, side in opened.items():
                    with Utilisation(spec["device"]) as busy:
                        found = side.run(kind, spec["block"])
                    if number:
                        rows[name][kind].append({**found, "utilisation": busy.mean})
                    print(number, kind, name, found, flush=True)
    return rows


class Utilisation:
    """The mean of what nvidia-smi calls the GPU's utilisation; None on a CPU."""

    def __init__(self, device: str) -> None:
        self.command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
        self.watched = device != "cpu"
        self.mean: float | None = None

    def __enter__(self) -> "Utilisation":
        if self.watched:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.watched:
            self.process.terminate()
            values = [float(line) for line in self.process.communicate()[0].splitlines() if line.strip().isdigit()]
            self.mean = sum(values) / len(values) if values else None


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Compare an iteration on the CPU."""
    spec = prepare(options, name_of(options.raw), "nnunet", device="cpu", workers=options.workers)
    spec |= {"block": options.block, "rounds": options.rounds}
    return {**describe(spec, options), "sides": compare_blocks(spec, options.peer, bare=True)}


def gpu(options: argparse.Namespace) -> dict[str, Any]:
    """Compare patches a second on a GPU."""
    phantom = options.workspace / "phantoms" / "Dataset901_LitsPhantom"
    if not (phantom / "dataset.json").is_file():
        make_phantom_dataset(phantom, num_cases=10, size=256)
    rows = []
    for raw, plan, settings in ((options.raw, "nnunet", ()), (phantom, "nnunet_128", LITS)):
        options.raw = raw
        for workers in options.loaders:
            spec = prepare(options, name_of(raw), plan, device="cuda", workers=workers, settings=settings)
            spec |= {"block": options.block, "rounds": options.rounds}
            rows.append({**describe(spec, options), "sides": compare_blocks(spec, options.peer, bare=False)})
    return {"rows": rows, "device": rows[0]["device"]}


def dice(options: argparse.Namespace) -> dict[str, Any]:
    """Train both sides equally long, and score both."""
    dataset, count, workspace = name_of(options.raw), options.iterations // options.epoch, Workspace(options.workspace)
    base = prepare(options, dataset, "nnunet", device=options.device, workers=options.workers)
    plan = read_plan(workspace.plan(dataset, "nnunet"))
    kept = json.loads(plan.model_dump_json(by_alias=True))["training"]
    settings = {
        "training.epochs": count, "training.iterations_per_epoch": options.epoch, "training.validation_iterations": 5,
        **{f"training.{key}": kept[key] for key in ("optimizer", "schedule", "augmentation")},
    }  # fmt: skip
    assignments = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    spec = base | {"epochs": count, "iterations_per_epoch": options.epoch, "validation_iterations": 5}
    results = {}
    for seed in range(options.seeds):
        name = f"nnunet_{options.iterations}{f'_s{seed}' if seed else ''}"
        seeded = [*assignments, *([f"training.seed={seed}"] if seed else [])]
        write_document(workspace.plan(dataset, name), vary(plan, name, seeded))
        spec["plan"] = name
        run_side("autoseg", sys.executable, "train", write_spec(spec, name))
        run = open_fold(workspace, find_dataset(dataset, workspace), name, spec["fold"])
        results[f"autoseg{f'_seed{seed}' if seed else ''}"] = score(run, run.folder, "logs/metrics.jsonl", above=0.0)
    run_side("nnunet", options.peer, "train", write_spec(spec, "nnunet"))
    peer = next((Path(spec["peer_folder"]) / "results").glob(f"*/*__3d_fullres/fold_{spec['fold']}"))
    results["nnunet"] = score(run, peer, "losses.jsonl", above=1.0)
    spec["plan"] = "nnunet"
    return {**describe(spec, options), "iterations": count * options.epoch, "epoch": options.epoch, "sides": results}


def score(run: FoldRun, folder: Path, log: str, *, above: float) -> dict[str, Any]:
    """Return Dice, losses and seconds of a side's run of a fold; ``above`` is added to its losses."""
    labels, tolerance = run.plan.dataset.label_scheme, run.plan.prediction.surface_tolerance_mm
    metrics = evaluate_folder(run.validation_cases, folder / "validation", labels, tolerance_mm=tolerance)
    history = [json.loads(line) for line in (folder / log).read_text().splitlines()]
    return {
        "dice": {region: metrics.mean[region]["dice"] for region in run.plan.dataset.regions},
        "losses": [row["train_loss"] + above for row in history],
        "seconds": [row["seconds"] for row in history],
    }


def prepare(
    options: argparse.Namespace, dataset: str, plan: str, *, device: str, workers: int, settings: tuple[str, ...] = ()
) -> Spec:
    """Plan and preprocess with both, nnU-Net's plans getting autoseg's patch, batch and network; what is done stays."""
    root, folder = Path(options.workspace).resolve(), Path(options.raw).resolve().name
    for link in (root / "raw" / folder, root / "nnunet" / "raw" / folder):
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(Path(options.raw).resolve())
    workspace = Workspace(root)
    made = [word for text in settings for word in ("--set", text)] + (["--name", plan] if settings else [])
    if not workspace.plan(dataset, plan).is_file() and plan_command.main(
        ["-d", dataset, "-a", "nnunet", "-w", str(root), *made]
    ):
        sys.exit("autoseg_plan failed")
    content = read_plan(workspace.plan(dataset, plan))
    splits = read_document(workspace.splits(dataset), Splits)
    spec = {
        "workspace": str(root), "peer_folder": str(root / "nnunet"), "dataset": dataset, "plan": plan,
        "folder": folder, "number": int(folder[7:10]), "fold": 0, "device": device, "workers": workers,
        "splits": [{"train": list(fold.train), "val": list(fold.validation)} for fold in splits.folds],
        **nnunet_terms(content),
    }  # fmt: skip
    if not (root / "nnunet" / "preprocessed" / folder / "splits_final.json").is_file():
        run_side("nnunet", options.peer, "prepare", write_spec(spec))
    return spec


def nnunet_terms(plan: Plan) -> Spec:
    """Return the plan's patch, batch and network in the words of nnU-Net's plans."""
    training, config = plan.training, plan.network.config
    return {
        "configuration": {"patch_size": list(training.patch_size), "batch_size": training.batch_size},
        "architecture": {
            "n_stages": len(config["strides"]), "strides": config["strides"], "kernel_sizes": config["kernel_sizes"],
            "features_per_stage": config["features_per_stage"], "n_conv_per_stage": config["blocks_per_stage_encoder"],
            "n_conv_per_stage_decoder": config["blocks_per_stage_decoder"],
        },
    }  # fmt: skip


def run_side(side: str, python: str, action: str, spec_path: Path) -> None:
    """Run one action of a side to its end."""
    script = str(Path(__file__).with_name("training_sides.py"))
    with open(spec_path.parent / f"{side}.log", "a") as log:
        finished = subprocess.run(
            [python, script, side, action, str(spec_path)], stdout=log, stderr=log, check=False, env=clean_environment()
        )
    if finished.returncode:
        sys.exit(f"{side} failed; see {log.name}")


def clean_environment() -> dict[str, str]:
    """Return the environment without limits of threads: both sides use all cores."""
    return {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def write_spec(spec: Spec, name: str = "spec") -> Path:
    """Write what a side's process reads."""
    path = Path(spec["workspace"]) / "speed" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(spec))
    return path


def describe(spec: Spec, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the figures are of."""
    import torch

    keys = ("dataset", "plan", "workers", "configuration")
    device = name_device(torch.device(spec["device"]))
    return {**{key: spec[key] for key in keys}, "device": device, "cores": os.cpu_count(), "note": options.note}


def name_of(raw: Path) -> str:
    """Return the dataset's name without nnU-Net's number."""
    return raw.resolve().name.partition("_")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = {"speed": speed, "dice": dice, "gpu": gpu}
    parser.add_argument("action", choices=actions)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--peer", default=sys.executable, help="Python with nnunetv2")
    parser.add_argument("--workers", type=int, default=1, help="loaders of each side (speed, dice)")
    parser.add_argument("--loaders", type=int, nargs="+", default=[4, 16], help="loaders of each side (gpu)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--block", type=int, help="iterations of a block; 3 on a CPU, 50 on a GPU")
    parser.add_argument("--iterations", type=int, default=500, help="of dice")
    parser.add_argument("--epoch", type=int, default=25, help="iterations of an epoch of dice")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of autoseg's side, of dice")
    parser.add_argument("--device", default="cpu", help="of dice")
    parser.add_argument("--note", default="", help="said beside the figures, such as what else the machine did")
    options = parser.parse_args()
    options.block = options.block or (50 if options.action == "gpu" else 3)
    options.workspace.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "training_speed.json"
    found = actions[options.action](options)
    document = json.loads(path.read_text()) if path.is_file() else {}
    document[options.action] = found
    path.write_text(json.dumps(document, indent=1) + "\n")
    write_page(document)


if __name__ == "__main__":
    main()
