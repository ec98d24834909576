"""Checks and fingerprint of four CTs of the size of LiTS, against nnU-Net's fingerprint with its integrity check.

Writes docs/benchmarks/intake.json and intake.md. Both tools run on the same files, one after the other, with the same
number of
workers, each in a process of its own that imports first and measures then; nnU-Net in its own virtual environment:

    python -m venv nnunet_env && nnunet_env/bin/pip install nnunetv2==2.8.1
    python tests/benchmarks/intake.py --nnunet-python nnunet_env/bin/python
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.data.phantom import draw_phantom

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
SIZE, SLICES = 512, (158, 115, 101, 88)
SPACING = (0.75, 0.75, 2.5)
POLL_SECONDS = 0.02
AUTOSEG = """
import json, sys, time
from pathlib import Path
from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.fingerprint.extract import examine
start = time.perf_counter()
found = examine(find_dataset(sys.argv[1], Workspace(Path("."))), num_workers=int(sys.argv[2]))
assert found.fingerprint is not None, found.problems
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
NNUNET = """
import json, sys, time
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints
if __name__ == "__main__":
    start = time.perf_counter()
    extract_fingerprints([1], num_processes=int(sys.argv[2]), check_dataset_integrity=True, clean=True, verbose=False,
                         show_progress_bar=False)
    print(json.dumps({"seconds": time.perf_counter() - start}))
"""

TEXT = """# Checks and fingerprint

Four phantom CTs of 512 x 512 x {slices} voxels in `.nii.gz`: all checks and the fingerprint, against
nnU-Net's fingerprint with `--verify_dataset_integrity`, on the same files, in turn; medians of {rounds} rounds. Made by
`python tests/benchmarks/intake.py --nnunet-python PYTHON`. autoseg reads each file once, which
`tests/fingerprint/test_checks.py` holds it to; nnU-Net's integrity check reads all files, its fingerprint reads them
again.

Machine: {processor}, {cores} cores, {workers} workers each. Load average at the start {load_average}: what else ran
then slows both, so processor time is the steadier figure.

| | work, s | whole process, s | processor time, s | largest process, GB | all processes, GB |
|---|---|---|---|---|---|
{rows}
"""


@dataclass(frozen=True)
class Measurement:
    """One run: seconds of the work, of the whole process with its imports, and of processor time; memory in GB."""

    seconds: float
    process_seconds: float
    cpu_seconds: float
    peak_gb: float
    total_gb: float


def make_dataset(
    folder: Path,
    slices_of_each: Sequence[int] = SLICES,
    size_in_plane: int = SIZE,
    spacings: Sequence[tuple[float, float, float]] = (SPACING,),
) -> None:
    """Write phantom CTs in nnU-Net's layout: slices and, in turn, spacing (x, y, z) in mm of each."""
    for index, slices in enumerate(slices_of_each):
        rng = np.random.default_rng(index)
        image, label, _ = draw_phantom(128, rng)
        factors = slices / len(image), size_in_plane / image.shape[1], size_in_plane / image.shape[2]
        rows = [
            np.minimum((np.arange(n) / f).astype(int), size - 1)
            for n, f, size in zip((slices, size_in_plane, size_in_plane), factors, image.shape)
        ]
        image, label = image[np.ix_(*rows)], label[np.ix_(*rows)]
        image = (image + rng.normal(0, 10, image.shape)).astype(np.int16)  # noise, so that it packs as badly as a CT
        for part, name, array in (("imagesTr", f"ct_{index}_0000", image), ("labelsTr", f"ct_{index}", label)):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing(spacings[index % len(spacings)])
            (folder / part).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(volume, str(folder / part / f"{name}.nii.gz"), True)
    description = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2},
        "numTraining": len(slices_of_each), "file_ending": ".nii.gz",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))


def measure(python: str, code: str, dataset: Path, workers: int) -> Measurement:
    """Run ``code`` in a process of its own and watch the memory of it and its children."""
    script = dataset.parents[1] / f"run_{abs(hash(code))}.py"
    script.write_text(code)
    folders = {f"nnUNet_{part}": str(dataset.parents[1] / part) for part in ("raw", "preprocessed", "results")}
    start, before = time.perf_counter(), _children_cpu()
    process = subprocess.Popen(
        [python, str(script), str(dataset), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **folders},
    )
    peaks: dict[int, float] = {}
    totals: list[float] = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peaks, totals))
    watcher.start()
    output, _ = process.communicate()
    whole = time.perf_counter() - start
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{python} failed: {output}")
    seconds = json.loads(output.splitlines()[-1])["seconds"]
    return Measurement(seconds, whole, _children_cpu() - before, max(peaks.values()), max(totals))


def _children_cpu() -> float:
    """Return the processor time of all finished children and theirs: it hardly depends on what else the machine
    does.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(process: subprocess.Popen, peaks: dict[int, float], totals: list[float]) -> None:
    """Record the peak of each process and the largest sum of what all hold at a time, in GB."""
    while process.poll() is None:
        now = 0.0
        for pid in _family(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            except OSError:
                continue
            found = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("VmHWM", "VmRSS")))
            if "VmHWM" in found:
                peaks[pid] = int(found["VmHWM"].split()[0]) / 1e6
                now += int(found["VmRSS"].split()[0]) / 1e6
        totals.append(now)
        time.sleep(POLL_SECONDS)


def _family(root: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def describe_machine() -> dict[str, object]:
    """Return processor, cores and how busy the machine was."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return {"processor": model, "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 2)}


def main() -> None:
    """Measure both in turn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nnunet-python", required=True, help="Python of a virtual environment with nnunetv2 2.8.1.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "raw" / "Dataset001_LiTS"
        make_dataset(dataset)
        machine = describe_machine()
        runs: dict[str, list[Measurement]] = {"autoseg": [], "nnU-Net 2.8.1": []}
        for _ in range(options.rounds):
            runs["autoseg"].append(measure(sys.executable, AUTOSEG, dataset, options.workers))
            runs["nnU-Net 2.8.1"].append(measure(options.nnunet_python, NNUNET, dataset, options.workers))
    _write(machine, runs, options.workers)


def _write(machine: dict[str, object], runs: dict[str, list[Measurement]], workers: int) -> None:
    rows = {
        name: {
            "seconds": _median(run.seconds for run in found),
            "process_seconds": _median(run.process_seconds for run in found),
            "cpu_seconds": _median(run.cpu_seconds for run in found),
            "peak_gb_of_one_process": round(max(run.peak_gb for run in found), 2),
            "gb_in_all": round(max(run.total_gb for run in found), 2),
            "seconds_of_each_round": [round(run.seconds, 2) for run in found],
        }
        for name, found in runs.items()
    }
    ours, theirs = rows.values()
    keys = ("seconds", "process_seconds", "cpu_seconds", "peak_gb_of_one_process", "gb_in_all")
    ratios = {key: round(theirs[key] / ours[key], 2) for key in keys}
    content = {"machine": machine, "workers": workers, "slices": SLICES, "tools": rows, "nnunet_over_autoseg": ratios}
    text = TEXT.format(
        slices=", ".join(map(str, SLICES)), rounds=len(runs["autoseg"]), workers=workers, **machine,
        rows="\n".join(
            f"| {name} | " + " | ".join(str(row[key]) for key in keys) + " |"
            for name, row in {**rows, "nnU-Net / autoseg": ratios}.items()
        ),
    )  # fmt: skip
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "intake.json").write_text(json.dumps(content, indent=2) + "\n")
    (OUTPUT / "intake.md").write_text(text)
    sys.stdout.write(text)


def _median(numbers: Iterable[float]) -> float:
    return round(float(np.median(list(numbers))), 2)


if __name__ == "__main__":
    main()
