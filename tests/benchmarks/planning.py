"""How long planning takes, and whether nnU-Net's plans are matched: ``python tests/benchmarks/planning.py``.

Times the plans of all architectures for a LiTS-like dataset in a fresh process, memory tracing included, and, where
``--nnunet PYTHON`` names an interpreter that has nnU-Net, nnU-Net's ExperimentPlanner for its one on the same
fingerprint. With ``--golden FILE`` counts how many of nnU-Net's own plans there are reproduced. Writes
docs/benchmarks/planning.json.

Seconds are processor time of one thread: a loaded machine does not change them much.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "planning.json"

RECIPES = {
    "ExperimentPlanner": "nnunet", "ResEncUNetPlanner": "nnunet_resenc", "nnUNetPlannerResEncM": "nnunet_resenc_m",
    "nnUNetPlannerResEncL": "nnunet_resenc_l", "nnUNetPlannerResEncXL": "nnunet_resenc_xl",
}  # fmt: skip
SUFFIXES = {"2d": "_2d", "3d_fullres": "", "3d_lowres": "_lowres"}

NNUNET = """
import contextlib, io, json, os, sys, time
started = time.process_time()
root = sys.argv[1]
os.environ.update({f"nnUNet_{kind}": f"{root}/{kind}" for kind in ("raw", "preprocessed", "results")})
import torch
torch.set_num_threads(1)
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
imported = time.process_time()
class Reader: pass
ExperimentPlanner.determine_reader_writer = lambda self: Reader
with contextlib.redirect_stdout(io.StringIO()):
    ExperimentPlanner(900).plan_experiment()
print(json.dumps({"import": imported - started, "planning": time.process_time() - imported}))
"""


def lits_like() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return nnU-Net's dataset.json and dataset_fingerprint.json of 131 equal CTs."""
    description = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumor": 2}, "numTraining": 131,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    numbers = {"mean": 99.4, "median": 99.0, "std": 39.4, "min": -200.0, "max": 400.0}
    intensities = {**numbers, "percentile_00_5": -17.0, "percentile_99_5": 201.0}
    fingerprint = {
        "spacings": [[1.0, 0.7676, 0.7676]] * 131, "shapes_after_crop": [[432, 512, 512]] * 131,
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "median_relative_size_after_cropping": 1.0,
    }  # fmt: skip
    return description, fingerprint


def write_files(folder: Path, description: dict[str, Any], fingerprint: dict[str, Any]) -> Path:
    """Write both documents where nnU-Net and autoseg look for them."""
    for kind in ("raw", "preprocessed", "results"):
        (folder / kind / "Dataset900_Lits").mkdir(parents=True)
    (folder / "raw" / "Dataset900_Lits" / "imagesTr").mkdir()
    prepared = folder / "preprocessed" / "Dataset900_Lits"
    for place in (folder / "raw" / "Dataset900_Lits", prepared):
        (place / "dataset.json").write_text(json.dumps(description))
    (prepared / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return prepared


def time_autoseg(folder: Path) -> dict[str, Any]:
    """Plan every recipe once in this process; return seconds."""
    started = time.process_time()
    import torch

    from autoseg.errors import PlanError
    from autoseg.fingerprint.nnunet import read_nnunet_fingerprint
    from autoseg.plan.planner import make_plan
    from autoseg.plan.recipe import recipe_names

    torch.set_num_threads(1)
    imported = time.process_time()
    fingerprint, seconds = read_nnunet_fingerprint(folder), {}
    for name in recipe_names():
        before = time.process_time()
        try:
            make_plan(name, fingerprint)
        except PlanError as error:
            print(f"{name}: {error}")
        seconds[name] = time.process_time() - before
    planning = time.process_time() - imported
    return {"import": imported - started, "planning": planning, "plans": seconds}


def time_nnunet(python: str, folder: Path) -> dict[str, float]:
    """Run nnU-Net's planner in its own interpreter; return seconds."""
    done = subprocess.run([python, "-c", NNUNET, str(folder)], capture_output=True, text=True, check=True)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def count_matches(golden: Path) -> dict[str, list[int]]:
    """Return, for each of nnU-Net's planners and configurations, how many plans are equal in every slot, of all."""
    tests = Path(__file__).resolve().parents[1] / "plan"
    sys.path.insert(0, str(tests))
    from test_nnunet_golden import SCHEMES, _slots

    from autoseg.errors import PlanError
    from autoseg.fingerprint.nnunet import read_nnunet_fingerprint

    counts: dict[str, list[int]] = {}
    for entry in json.loads(golden.read_text(encoding="utf-8")):
        with tempfile.TemporaryDirectory() as place:
            dataset, channels = entry["dataset"], entry["dataset"]["channel_names"]
            description = {
                "channel_names": {str(i): channel for i, channel in enumerate(channels)}, "labels": dataset["labels"],
                "numTraining": dataset["num_training"], "file_ending": ".nii.gz",
            }  # fmt: skip
            intensities = lits_like()[1]["foreground_intensity_properties_per_channel"]["0"]
            measured = {str(i): intensities for i in range(len(channels))}
            fingerprint = {**entry["fingerprint"], "foreground_intensity_properties_per_channel": measured}
            read = read_nnunet_fingerprint(write_files(Path(place), description, fingerprint))
        for planner, plans in entry["plans"].items():
            for configuration, suffix in SUFFIXES.items():
                cell = counts.setdefault(f"{planner}, {configuration}", [0, 0])
                cell[1] += 1
                try:
                    found = _slots(RECIPES[planner] + suffix, read)
                except PlanError:
                    cell[0] += configuration not in plans  # nnU-Net has no such plan either
                    continue
                if configuration not in plans:
                    continue
                expected = {"transpose_forward": plans["transpose_forward"], **plans[configuration]}
                expected["normalization_schemes"] = [SCHEMES[one] for one in expected["normalization_schemes"]]
                cell[0] += all(found[key] == value for key, value in expected.items())
    return counts


def main() -> None:
    """Time, count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nnunet", help="an interpreter in which nnunetv2 is installed")
    parser.add_argument("--golden", type=Path, help="nnU-Net's own plans")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepared = write_files(folder, *lits_like())
        result["autoseg"] = time_autoseg(prepared)
        if arguments.nnunet:
            result["nnunet"] = time_nnunet(arguments.nnunet, folder)
    if arguments.golden:
        result["golden"] = count_matches(arguments.golden)
    TARGET.write_text(json.dumps(result, indent=1) + "\n")
    print(TARGET.read_text())


if __name__ == "__main__":
    main()
