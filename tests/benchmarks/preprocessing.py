"""Preprocessing against nnU-Net 2.8.1 with the same number of processes, and how it grows with the cases.

Writes docs/benchmarks/preprocessing.json, .md and .png. Four CTs of the size of LiTS (made as in intake.py) and, where
their folder is given, the Hippocampus cases. Both tools plan first, which is not counted, and preprocess then in a
process of their own, in turn:

    python tests/benchmarks/preprocessing.py --nnunet-python PYTHON --hippocampus raw/Dataset004_Hippocampus
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import intake
import matplotlib
import numpy as np

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
SPACINGS = ((0.7, 0.7, 2.5), (0.8, 0.8, 2.0), (0.75, 0.75, 3.0), (0.85, 0.85, 2.5))
"""Of the CTs in turn, mm (x, y, z); all but few are resampled."""

GOALS = {"seconds": 6.0, "peak_gb_of_one_process": 2.0}
PLAN = """
import sys
from pathlib import Path
from autoseg.cli.plan import main
place = Path(sys.argv[1]).parents[1] / "autoseg"
sys.exit(main(["-d", sys.argv[1], "-w", str(place), "-a", "nnunet", "--no-preprocess", "-j", sys.argv[2]]))
"""
AUTOSEG = """
import json, sys, time
from pathlib import Path
from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.launch.prepare import preprocess
from autoseg.plan.plan import read_plan
place = Workspace(Path(sys.argv[1]).parents[1] / "autoseg")
dataset = find_dataset(sys.argv[1], place)
plan = read_plan(place.plan(dataset.name, "nnunet"))
crews = []
start = time.perf_counter()
assert not preprocess(dataset, [plan], place, num_workers=int(sys.argv[2]), force=True, on_crew=crews.append)
print(json.dumps({"seconds": time.perf_counter() - start, "workers": crews[0].num_workers,
                  "predicted_gb": crews[0].peak_bytes / 1e9}))
"""
NNUNET_PLAN = """
import sys
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
if __name__ == "__main__":
    extract_fingerprints([1], num_processes=int(sys.argv[2]), check_dataset_integrity=False, clean=True, verbose=False,
                         show_progress_bar=False)
    plan_experiments([1])
    print('{"seconds": 0}')
"""
NNUNET = """
import json, sys, time
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess
if __name__ == "__main__":
    start = time.perf_counter()
    preprocess([1], configurations=["3d_fullres"], num_processes=[int(sys.argv[2])], verbose=False)
    print(json.dumps({"seconds": time.perf_counter() - start}))
"""
TEXT = """# Preprocessing

The plan `nnunet` (nnU-Net: `3d_fullres`), {workers} workers each, the same files, in turn; the best time of {rounds}
rounds and the largest memory. Made by `python tests/benchmarks/preprocessing.py --nnunet-python PYTHON --hippocampus
FOLDER`. Planning is not counted. autoseg's workers are threads of one process, nnU-Net's are processes; goals:
{seconds:g} times faster, half the memory.

Machine: {processor}, {cores} cores, load average at the start {load_average}.

| data | tool | seconds | processor time, s | largest process, GB | all processes, GB |
|---|---|---|---|---|---|
{rows}

How time and memory grow, with one worker, with the number of CTs of {size} x {size} x {growth_slices} voxels and with
the slices of one (autoseg):

![Growth](preprocessing.png)
"""


def main() -> None:
    """Measure both tools on each dataset, then the growth, and write all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nnunet-python", required=True, help="Python of a virtual environment with nnunetv2 2.8.1.")
    parser.add_argument("--hippocampus", type=Path, help="Raw folder of the real cases; left out without it.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=intake.SIZE, help="Voxels along x and y of the CTs.")
    parser.add_argument("--slices", nargs="+", type=int, default=intake.SLICES)
    parser.add_argument("--growth", nargs="+", type=int, default=(50, 100, 200, 400), help="Slices of single CTs.")
    parser.add_argument("--numbers", nargs="+", type=int, default=(2, 3, 4, 6), help="Numbers of cases.")
    options = parser.parse_args()
    machine, found = intake.describe_machine(), {}
    with tempfile.TemporaryDirectory() as root:
        make = {
            f"{len(options.slices)} CTs": lambda target: intake.make_dataset(
                target, options.slices, options.size, SPACINGS
            )
        }
        if options.hippocampus:
            make["Hippocampus"] = lambda target: shutil.copytree(options.hippocampus, target, symlinks=True)
        for number, (name, write_files) in enumerate(make.items()):
            dataset = Path(root) / str(number) / "raw" / "Dataset001_Data"
            write_files(dataset)
            found[name] = compare(dataset, options)
        growth = measure_growth(Path(root), options)
    write(machine, found, growth, options)


def compare(dataset: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the figures of both tools and their ratios."""
    plan_with_autoseg(dataset, options.workers)
    intake.measure(options.nnunet_python, NNUNET_PLAN, dataset, options.workers)
    tools = {"autoseg": (sys.executable, AUTOSEG), "nnU-Net 2.8.1": (options.nnunet_python, NNUNET)}
    runs: dict[str, list[intake.Measurement]] = {name: [] for name in tools}
    for _ in range(options.rounds):
        for name, (python, code) in tools.items():
            runs[name].append(intake.measure(python, code, dataset, options.workers))
    rows = {name: summarize(measured) for name, measured in runs.items()}
    ours, theirs = rows.values()
    keys = [key for key in ours if key != "seconds_of_each_round"]
    return {**rows, "nnU-Net / autoseg": {key: round(theirs[key] / ours[key], 2) for key in keys}}


def plan_with_autoseg(dataset: Path, workers: int) -> None:
    """Make the plan ``nnunet`` in the dataset's own workspace."""
    (dataset.parents[1] / "autoseg").mkdir()
    command = [sys.executable, "-c", PLAN, str(dataset), str(workers)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def summarize(runs: list[intake.Measurement]) -> dict[str, Any]:
    """Return the best time and the largest memory."""
    return {
        "seconds": round(min(run.seconds for run in runs), 2),
        "cpu_seconds": round(min(run.cpu_seconds for run in runs), 2),
        "peak_gb_of_one_process": round(max(run.peak_gb for run in runs), 2),
        "gb_in_all": round(max(run.total_gb for run in runs), 2),
        "seconds_of_each_round": [round(run.seconds, 2) for run in runs],
    }


def measure_growth(root: Path, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Return time and memory for more cases of one size, and for larger single cases."""
    found: dict[str, list[dict[str, float]]] = {"cases": [], "slices": []}
    middle = options.growth[0]
    jobs = [("cases", n, [middle] * n) for n in options.numbers] + [("slices", n, [n]) for n in options.growth]
    for kind, value, slices in jobs:
        dataset = root / f"{kind}{value}" / "raw" / "Dataset001_Data"
        intake.make_dataset(dataset, slices if kind == "cases" else [value] * 2, options.size, SPACINGS)
        plan_with_autoseg(dataset, 1)
        run = intake.measure(sys.executable, AUTOSEG, dataset, 1)
        cases = value if kind == "cases" else 2  # a single case cannot be split into folds
        found[kind].append({kind: value, "seconds": run.seconds / cases, "of_all": run.seconds, "gb": run.peak_gb})
        shutil.rmtree(dataset.parents[1])
    return found


def draw(growth: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw time and memory against number and size of cases."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(8, 5), layout="constrained")
    for column, (kind, rows) in enumerate(growth.items()):
        x = [row[kind] for row in rows]
        times = [row["of_all" if kind == "cases" else "seconds"] for row in rows]
        for row, (values, unit) in enumerate(((times, "seconds"), ([r["gb"] for r in rows], "peak, GB"))):
            axes[row, column].plot(x, values, "o-")
            axes[row, column].set(xlabel="cases" if kind == "cases" else "slices of a case", ylabel=unit)
            axes[row, column].set_ylim(0, 1.1 * float(np.max(values)))
            axes[row, column].grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def write(machine: dict[str, object], found: dict[str, Any], growth: dict[str, Any], options: Any) -> None:
    """Write the three files."""
    keys = ("seconds", "cpu_seconds", "peak_gb_of_one_process", "gb_in_all")
    rows = "\n".join(
        f"| {data} | {tool} | " + " | ".join(str(figures[key]) for key in keys) + " |"
        for data, tools in found.items()
        for tool, figures in tools.items()
    )
    text = TEXT.format(
        workers=options.workers, rounds=options.rounds, rows=rows, growth_slices=options.growth[0], size=options.size,
        **GOALS, **machine,
    )  # fmt: skip
    content = {"machine": machine, "workers": options.workers, "goals": GOALS, "data": found, "growth": growth}
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "preprocessing.json").write_text(json.dumps(content, indent=2) + "\n")
    (OUTPUT / "preprocessing.md").write_text(text)
    draw(growth, OUTPUT / "preprocessing.png")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
