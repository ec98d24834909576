"""The fingerprint against nnU-Net 2.8.1's own dataset_fingerprint.json of the same files.

    python tests/benchmarks/fingerprint_parity.py DATA --nnunet-python nnunet_env/bin/python

Writes docs/benchmarks/fingerprint_parity.json and .md. nnU-Net draws the intensities with a seed of its own; the
differences are given in standard deviations of the foreground.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.fingerprint.extract import extract_fingerprint
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.fingerprint.nnunet import write_nnunet_fingerprint

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
NNUNET = """
import sys
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints
if __name__ == "__main__":
    extract_fingerprints([int(sys.argv[1])], num_processes=1, check_dataset_integrity=False, clean=True, verbose=False)
"""
STATISTICS = ("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5")

TEXT = """# The fingerprint against nnU-Net's

nnU-Net 2.8.1 measures the same files itself. Made by `python tests/benchmarks/fingerprint_parity.py DATA
--nnunet-python PYTHON`. Spacings and shapes are compared case by case, exactly but for rounding (1e-6); intensities of
the foreground in its standard deviations, the largest difference over channels.

| dataset | cases | spacings | shapes after crop | relative size | {statistics} |
|---|---|---|---|---|{lines}|
{rows}

Both weigh every case alike. autoseg takes mean, standard deviation, minimum and maximum of all foreground voxels, and
the percentiles of all where intensities are whole numbers; nnU-Net draws voxels with replacement, so its extremes are
those of what it drew.
"""


def measure_nnunet(folder: Path, python: str) -> dict[str, Any]:
    """Return what nnU-Net writes of a dataset."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        names = {name: root / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        for path in names.values():
            path.mkdir()
        (names["nnUNet_raw"] / folder.name).symlink_to(folder.resolve())
        number = str(int(folder.name[7:10]))
        environment = {**os.environ, **{name: str(path) for name, path in names.items()}}
        subprocess.run([python, "-c", NNUNET, number], env=environment, check=True, stdout=subprocess.DEVNULL)
        path = names["nnUNet_preprocessed"] / folder.name / "dataset_fingerprint.json"
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content


def measure_autoseg(folder: Path) -> dict[str, Any]:
    """Return the same of autoseg, in nnU-Net's form."""
    fingerprint: Fingerprint = extract_fingerprint(find_dataset(str(folder), Workspace(folder)), num_workers=1)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "dataset_fingerprint.json"
        write_nnunet_fingerprint(fingerprint, path)
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content


def compare(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return the differences of one dataset."""
    key = "foreground_intensity_properties_per_channel"
    row: dict[str, Any] = {"dataset": name, "cases": len(theirs["spacings"])}
    row["spacings"] = float(np.abs(np.subtract(ours["spacings"], theirs["spacings"])).max())
    row["shapes_after_crop"] = int(np.abs(np.subtract(ours["shapes_after_crop"], theirs["shapes_after_crop"])).max())
    size = "median_relative_size_after_cropping"
    row["relative_size"] = abs(ours[size] - theirs[size])
    for statistic in STATISTICS:
        off = [abs(ours[key][n][statistic] - theirs[key][n][statistic]) / theirs[key][n]["std"] for n in theirs[key]]
        row[statistic] = max(off)
    return row


def write(rows: list[dict[str, Any]]) -> None:
    """Write the document and the table."""
    (OUTPUT / "fingerprint_parity.json").write_text(json.dumps({"nnunet": "2.8.1", "rows": rows}, indent=1) + "\n")
    lines = []
    for row in rows:
        same = ["equal" if row[key] <= 1e-6 else f"{row[key]:.2g}" for key in ("spacings", "shapes_after_crop")]
        cells = [row["dataset"], str(row["cases"]), *same, f"{row['relative_size']:.1g}"]
        lines.append("| " + " | ".join(cells + [f"{row[key]:.1g}" for key in STATISTICS]) + " |")
    text = TEXT.format(
        statistics=" | ".join(STATISTICS), lines="|".join(["---"] * len(STATISTICS)), rows="\n".join(lines)
    )
    (OUTPUT / "fingerprint_parity.md").write_text(text)


def main() -> None:
    """Compare every dataset, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="Folder of raw datasets in nnU-Net's form, DatasetNNN_NAME.")
    parser.add_argument("--nnunet-python", required=True, help="Python of an environment with nnunetv2 2.8.1.")
    options = parser.parse_args()
    rows = []
    for folder in sorted(options.data.glob("Dataset*")):
        rows.append(compare(folder.name, measure_autoseg(folder), measure_nnunet(folder, options.nnunet_python)))
        print(rows[-1], flush=True)
    write(rows)


if __name__ == "__main__":
    main()
