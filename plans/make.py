"""Write the reference plans: ``python plans/make.py [DATA]``.

Without DATA each dataset's plans are derived from its fingerprint.json. With it the fingerprints are made anew first:
from published figures (Lits), from ``geometry/kits19_train_geometry.csv`` in DATA, and by measuring the datasets
Hippocampus and ACDC there. Cases are numbered; a fingerprint holds no images.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from autoseg.data.dataset import find_dataset
from autoseg.data.labels import Labels
from autoseg.data.workspace import Workspace
from autoseg.documents import write_document
from autoseg.errors import PlanError
from autoseg.fingerprint.extract import extract_fingerprint
from autoseg.fingerprint.fingerprint import CaseFingerprint, ChannelIntensities, Fingerprint, read_fingerprint
from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan
from autoseg.plan.recipe import recipe_names

FOLDER = Path(__file__).parent
DATASETS = ("Lits", "KiTS19", "Hippocampus", "ACDC")


def make_plans(fingerprint: Fingerprint) -> Iterator[Plan]:
    """Yield the plan of each recipe that suits a dataset."""
    for name in recipe_names():
        try:
            yield make_plan(name, fingerprint)
        except PlanError as error:
            sys.stderr.write(f"{fingerprint.dataset}, {name}: {error}\n")


def make_fingerprints(data: Path) -> Iterator[Fingerprint]:
    """Yield the fingerprint of each dataset."""
    yield _lits()
    yield _kits(data / "geometry" / "kits19_train_geometry.csv")
    for name in ("Dataset004_Hippocampus", "Dataset027_ACDC"):
        measured = extract_fingerprint(find_dataset(str(data / name), Workspace(data)), num_workers=2)
        cases = [case.model_copy(update={"name": f"case_{i:03d}"}) for i, case in enumerate(measured.cases, start=1)]
        yield measured.model_copy(update={"cases": tuple(cases)})


def _lits() -> Fingerprint:
    """131 equal cases of nnU-Net's published medians."""
    grid = [((1.0, 0.7676, 0.7676), (432, 512, 512))] * 131
    intensities = _published(mean=99.4, std=39.4, low=-17.0, high=201.0)
    return _fingerprint("Lits", {"background": 0, "liver": 1, "tumor": 2}, grid, intensities, "unknown")


def _kits(path: Path) -> Fingerprint:
    """The geometry of the 210 cases; intensities as published by the challenge's winner."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    grid = [
        (tuple(float(row[f"s{axis}"]) for axis in range(3)), tuple(int(row[f"n{axis}"]) for axis in range(3)))
        for row in rows
    ]
    intensities = _published(mean=101.0, std=76.9, low=-79.0, high=304.0)
    return _fingerprint("KiTS19", {"background": 0, "kidney": 1, "tumor": 2}, grid, intensities, "LIP")


def _published(*, mean: float, std: float, low: float, high: float) -> ChannelIntensities:
    """Return a channel of which four numbers were published; the others stand in for what is not known."""
    return ChannelIntensities(
        mean=mean, median=mean, std=std, min=low, max=high, percentile_00_5=low, percentile_99_5=high
    )


def _fingerprint(
    name: str, values: dict[str, int], grid: list, intensities: ChannelIntensities, orientation: str
) -> Fingerprint:
    labels = Labels.from_names(values)
    cases = [
        CaseFingerprint(
            name=f"case_{index:03d}", spacing=spacing, shape=shape, shape_after_crop=shape, orientation=orientation,
            label_voxels={},
        )
        for index, (spacing, shape) in enumerate(grid, start=1)
    ]  # fmt: skip
    return Fingerprint(
        schema="autoseg.fingerprint.1", dataset=name, channels=("CT",), labels=labels.labels, regions=labels.regions,
        num_training=len(cases), cases=tuple(cases), intensities=(intensities,),
        median_relative_size_after_cropping=1.0,
    )  # fmt: skip


def main() -> None:
    """Write all reference plans."""
    if len(sys.argv) > 1:
        for fingerprint in make_fingerprints(Path(sys.argv[1])):
            write_document(FOLDER / fingerprint.dataset / "fingerprint.json", fingerprint)
    for name in DATASETS:
        for old in (FOLDER / name).glob("*.json"):
            if old.name != "fingerprint.json":
                old.unlink()
        for plan in make_plans(read_fingerprint(FOLDER / name / "fingerprint.json")):
            write_document(FOLDER / name / f"{plan.name}.json", plan)


if __name__ == "__main__":
    main()
