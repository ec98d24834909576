"""Preprocessed cases against those of nnU-Net 2.8.1, which plans and preprocesses the same files itself.

Writes docs/benchmarks/preprocessing_parity.json and .md. autoseg takes transposition, spacing and intensities from
nnU-Net's plan, so that what is compared is preprocessing alone. nnU-Net keeps each file's own axes, autoseg brings all
to LPS; so nnU-Net is given copies of the files that are stored along LPS already.

    python tests/benchmarks/preprocessing_parity.py DATA --nnunet-python nnunet_env/bin/python
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import SimpleITK as sitk

from autoseg.data.dataset import Case, find_dataset
from autoseg.data.workspace import Workspace
from autoseg.plan.plan import Normalization, Plan, PlanDataset, Preprocessing
from autoseg.preprocess.case import preprocess_case

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
LIMITS = {"Dataset004_Hippocampus": 20, "Dataset027_ACDC": 8}
"""Most cases of a dataset, evenly through it."""

IMAGE_TOLERANCE, LABEL_AGREEMENT = 1e-3, 0.9999
SCHEMES = {"CTNormalization": "ct", "ZScoreNormalization": "zscore", "NoNormalization": "none",
           "RescaleTo01Normalization": "rescale", "RGBTo01Normalization": "rgb"}  # fmt: skip
OTHER_SPACING = (1.25, 0.85, 0.85)
"""Factors of a second spacing, to which every case is resampled: coarser along z, finer in plane."""

NNUNET = """
import json, os, sys
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
if __name__ == "__main__":
    number = int(sys.argv[1])
    extract_fingerprints([number], num_processes=1, check_dataset_integrity=False, clean=True, verbose=False)
    plan_experiments([number])
    path = os.path.join(os.environ["nnUNet_preprocessed"], sys.argv[2], "nnUNetPlans.json")
    plans = json.load(open(path))
    settings = plans["configurations"]["3d_fullres"]
    settings["spacing"] = [mm * factor for mm, factor in zip(settings["spacing"], json.loads(sys.argv[3]))]
    json.dump(plans, open(path, "w"))
    preprocess([number], configurations=["3d_fullres"], num_processes=[1], verbose=False)
"""

TEXT = """# Preprocessed cases against nnU-Net's

nnU-Net 2.8.1 plans and preprocesses the cases itself (`3d_fullres`); autoseg preprocesses the same ones with the
transposition, spacing and intensities of nnU-Net's plan. Made by `python tests/benchmarks/preprocessing_parity.py DATA
--nnunet-python PYTHON`. The difference of images is the largest at any voxel of any case, in standard deviations of
nnU-Net's image; the goals are {image} and labels equal in {label:.2%} of the voxels. Cases that have the plan's spacing
already are not resampled; so each dataset has a second row, for which the plan's spacing was multiplied by {other}.

| dataset | cases | resampled | stored as | spacing, mm | image, largest difference | equal labels, worst case | goals |
|---|---|---|---|---|---|---|---|
{rows}

{verdict}

Differences that are meant:

- **Orientation.** autoseg brings every image to LPS; nnU-Net keeps each file's own axes. Here nnU-Net was given copies
  along LPS.
- **Outside the nonzero mask** nnU-Net always marks background as -1; autoseg marks it only where a channel is
  normalised within the mask. Both count as background here.
- **Intensities of CT** are nnU-Net's random sample here; autoseg's own fingerprint has the exact ones.
"""


def main() -> None:
    """Compare every dataset, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="Folder of raw datasets in nnU-Net's form, DatasetNNN_NAME.")
    parser.add_argument("--nnunet-python", required=True, help="Python of a virtual environment with nnunetv2 2.8.1.")
    options = parser.parse_args()
    rows = []
    for folder in sorted(options.data.glob("Dataset*")):
        for factors in ((1.0, 1.0, 1.0), OTHER_SPACING):
            with tempfile.TemporaryDirectory() as root:
                rows.append(compare_dataset(folder, Path(root), options.nnunet_python, factors))
            print(rows[-1], flush=True)
    write(rows)


def compare_dataset(folder: Path, root: Path, python: str, factors: tuple[float, ...]) -> dict[str, Any]:
    """Preprocess a dataset both ways; return the largest differences."""
    dataset = find_dataset(str(folder), Workspace(root))
    limit = min(LIMITS.get(folder.name, len(dataset.cases)), len(dataset.cases))
    chosen = [dataset.cases[i] for i in np.linspace(0, len(dataset.cases) - 1, limit).round().astype(int)]
    copies, codes = copy_cases(chosen, folder, root / "raw" / folder.name)
    names = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    (root / "run.py").write_text(NNUNET)
    number = folder.name.split("_")[0].removeprefix("Dataset")
    command = [python, str(root / "run.py"), number, folder.name, json.dumps(factors)]
    subprocess.run(command, check=True, env=os.environ | names, stdout=sys.stderr)
    prepared = root / "preprocessed" / folder.name
    theirs = json.loads((prepared / "nnUNetPlans.json").read_text())
    plan = take_plan(theirs, dataset.name, dataset.labels, dataset.channels)
    results = prepared / theirs["configurations"]["3d_fullres"]["data_identifier"]
    found = [compare_case(case, plan, results) for case in copies]
    return {
        "dataset": dataset.name, "cases": len(found), "stored_as": sorted(codes),
        "spacing": list(plan.preprocessing.spacing), "transpose": list(plan.preprocessing.transpose),
        "largest_image_difference": max(image for image, _, _ in found),
        "smallest_label_agreement": min(label for _, label, _ in found),
        "resampled": sum(resampled for *_, resampled in found),
        "each_case": {case.name: {"image": image, "label": label} for case, (image, label, _) in zip(copies, found)},
    }  # fmt: skip


def copy_cases(cases: list[Case], source: Path, target: Path) -> tuple[list[Case], set[str]]:
    """Write the cases along LPS, without interpolation; return them, and how they were stored."""
    codes, copies = set(), []
    for part in ("imagesTr", "labelsTr"):
        (target / part).mkdir(parents=True)
    for case in cases:
        images = tuple(target / "imagesTr" / path.name for path in case.images)
        label = target / "labelsTr" / case.label.name
        for old, new in zip((*case.images, case.label), (*images, label)):
            volume = sitk.ReadImage(str(old))
            codes.add(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(volume.GetDirection()))
            sitk.WriteImage(sitk.DICOMOrient(volume, "LPS"), str(new))
        copies.append(Case(case.name, images, label))
    description = json.loads((source / "dataset.json").read_text()) | {"numTraining": len(cases)}
    (target / "dataset.json").write_text(json.dumps(description))
    return copies, codes


def take_plan(theirs: dict[str, Any], name: str, labels: Any, channels: tuple[str, ...]) -> Plan:
    """Return a plan of which only what preprocessing needs is filled in, with nnU-Net's numbers."""
    settings = theirs["configurations"]["3d_fullres"]
    intensities = theirs["foreground_intensity_properties_per_channel"]
    schemes = [
        Normalization(
            scheme=SCHEMES[scheme], use_mask=masked, lower=values["percentile_00_5"], upper=values["percentile_99_5"],
            mean=values["mean"], std=values["std"],
        )
        for scheme, masked, values in zip(
            settings["normalization_schemes"], settings["use_mask_for_norm"], intensities.values(), strict=True
        )
    ]  # fmt: skip
    z, y, x = (float(value) for value in settings["spacing"])
    return Plan.model_construct(
        name="parity",
        dataset=PlanDataset(name=name, channels=channels, labels=labels.labels, regions=labels.regions,
                            fingerprint_sha256="0" * 64),
        preprocessing=Preprocessing(orientation="LPS", transpose=tuple(theirs["transpose_forward"]), spacing=(z, y, x),
                                    downsample=1.0, normalization=tuple(schemes), image_order=3, label_order=1,
                                    separate_axis_threshold=3.0),
    )  # fmt: skip


def compare_case(case: Case, plan: Plan, results: Path) -> tuple[float, float, bool]:
    """Return the largest difference of the images in standard deviations, the share of equal labels, and whether the
    case was resampled.
    """
    ours = preprocess_case(case, plan)
    image = blosc2.open(str(results / f"{case.name}.b2nd"), mode="r")[:]
    label = blosc2.open(str(results / f"{case.name}_seg.b2nd"), mode="r")[0]
    if image.shape != ours.image.shape:
        raise RuntimeError(f"{case.name}: {ours.image.shape}, nnU-Net's {image.shape}")
    spread = image.std(axis=(1, 2, 3), keepdims=True)
    difference = float((np.abs(ours.image - image) / spread).max())
    agreement = float((np.maximum(ours.classes, 0) == np.maximum(label, 0)).mean())
    return difference, agreement, ours.properties.shape != ours.properties.shape_before_resampling


def write(rows: list[dict[str, Any]]) -> None:
    """Write both documents."""
    lines, missed = [], []
    for row in rows:
        images, labels = row["largest_image_difference"], row["smallest_label_agreement"]
        met = images <= IMAGE_TOLERANCE and labels >= LABEL_AGREEMENT
        missed += [] if met else [row["dataset"]]
        spacing = " x ".join(f"{value:.4g}" for value in row["spacing"])
        lines.append(
            f"| {row['dataset']} | {row['cases']} | {row['resampled']} | {', '.join(row['stored_as'])} | {spacing} | "
            f"{images:.1e} | {labels:.5%} | {'met' if met else 'missed'} |"
        )
    verdict = f"The goals are missed on {', '.join(missed)}." if missed else "Every case meets both goals."
    text = TEXT.format(
        rows="\n".join(lines),
        image=IMAGE_TOLERANCE,
        label=LABEL_AGREEMENT,
        verdict=verdict,
        other=" x ".join(map(str, OTHER_SPACING)),
    )
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "preprocessing_parity.json").write_text(json.dumps(rows, indent=1) + "\n")
    (OUTPUT / "preprocessing_parity.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
