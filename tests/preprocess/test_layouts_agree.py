"""The same cases in four layouts: the same fingerprint, and preprocessed cases that are equal to the last bit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.dataset import find_dataset
from autoseg.data.phantom import make_phantom_dataset
from autoseg.data.workspace import Workspace
from autoseg.fingerprint.extract import extract_fingerprint
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import preprocess_case

CHANNELS = {"0": "CT"}
LABELS = {"background": 0, "liver": 1, "tumour": 2}
Pairs = list[tuple[Path, Path]]


def link(path: Path, target: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return str(path)


def as_nnunet(folder: Path, pairs: Pairs) -> None:
    for number, (image, label) in enumerate(pairs):
        (
            link(folder / "imagesTr" / f"c{number}_0000.nii.gz", image),
            link(folder / "labelsTr" / f"c{number}.nii.gz", label),
        )


def as_lits(folder: Path, pairs: Pairs) -> None:
    for number, (image, label) in enumerate(pairs):
        batch = folder / f"Training Batch {1 + number % 2}"
        link(batch / f"volume-{number}.nii.gz", image), link(batch / f"segmentation-{number}.nii.gz", label)


def as_abdomenct(folder: Path, pairs: Pairs) -> None:
    for number, (image, label) in enumerate(pairs):
        link(folder / "ImagePart1" / f"Case_{number:05d}_0000.nii.gz", image)
        link(folder / "Mask" / f"Case_{number:05d}.nii.gz", label)


def as_decathlon(folder: Path, pairs: Pairs) -> dict:
    entries = []
    for number, (image, label) in enumerate(pairs):
        (
            link(folder / "imagesTr" / f"liver_{number}.nii.gz", image),
            link(folder / "labelsTr" / f"liver_{number}.nii.gz", label),
        )
        entries.append({"image": f"./imagesTr/liver_{number}.nii.gz", "label": f"./labelsTr/liver_{number}.nii.gz"})
    return {"modality": CHANNELS, "labels": {str(v): n for n, v in LABELS.items()}, "training": entries}


LAYOUTS = (as_nnunet, as_lits, as_abdomenct, as_decathlon)


def lay_out(root: Path, pairs: Pairs) -> dict[str, Path]:
    """Lay the cases out in each way, as links, with channel and labels declared alike."""
    folders = {}
    for layout in LAYOUTS:
        folder = folders[layout.__name__] = root / layout.__name__ / "Liver"
        description = layout(folder, pairs) or {"channel_names": CHANNELS, "labels": LABELS}
        (folder / "dataset.json").write_text(json.dumps(description))
    return folders


def measure(folder: Path) -> Fingerprint:
    """Return the fingerprint with its cases called by number: their names are those of the files."""
    found = extract_fingerprint(find_dataset(str(folder), Workspace(folder)), num_workers=2)
    cases = tuple(case.model_copy(update={"name": str(number)}) for number, case in enumerate(found.cases))
    return found.model_copy(update={"cases": cases})


def compare(folders: dict[str, Path], build_plan: Callable[..., Plan], spacing: tuple[float, float, float]) -> None:
    fingerprints = {name: measure(folder) for name, folder in folders.items()}
    first = fingerprints["as_nnunet"]
    assert all(found == first for found in fingerprints.values())
    plan = build_plan(first.label_scheme, spacing=spacing)
    datasets = [find_dataset(str(folder), Workspace(folder)) for folder in folders.values()]
    for same_case in zip(*(dataset.cases for dataset in datasets)):
        one, *others = (preprocess_case(case, plan) for case in same_case)
        for other in others:
            np.testing.assert_array_equal(other.image, one.image)
            np.testing.assert_array_equal(other.classes, one.classes)
            assert (other.properties.geometry, other.properties.box) == (one.properties.geometry, one.properties.box)


def test_phantoms_in_four_layouts(tmp_path: Path, build_plan: Callable[..., Plan]) -> None:
    raw = tmp_path / "raw"
    make_phantom_dataset(raw, num_cases=3, size=24, seed=3)
    pairs = [
        (raw / "imagesTr" / f"phantom_00{n}_0000.nii.gz", raw / "labelsTr" / f"phantom_00{n}.nii.gz") for n in (1, 2, 3)
    ]
    compare(lay_out(tmp_path, pairs), build_plan, (2.0, 1.5, 1.5))


def test_four_real_cts_in_four_layouts(real_data: Path, tmp_path: Path, build_plan: Callable[..., Plan]) -> None:
    source = real_data / "Dataset003_LiverMini"
    pairs = [
        (path, source / "labelsTr" / path.name.replace("_0000", "")) for path in sorted((source / "imagesTr").iterdir())
    ]
    compare(lay_out(tmp_path, pairs), build_plan, (8.0, 6.0, 6.0))  # coarse, so that it is quick


def test_without_a_dataset_json_lits_has_the_regions_that_it_is_scored_by(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    make_phantom_dataset(raw, num_cases=2, size=24, seed=3)
    pairs = [
        (raw / "imagesTr" / f"phantom_00{n}_0000.nii.gz", raw / "labelsTr" / f"phantom_00{n}.nii.gz") for n in (1, 2)
    ]
    as_lits(tmp_path / "lits", pairs), as_abdomenct(tmp_path / "abdomen", pairs)
    lits, abdomen = measure(tmp_path / "lits"), measure(tmp_path / "abdomen")
    assert lits.label_scheme.overlapping and lits.label_scheme.num_outputs == 2 and not abdomen.label_scheme.overlapping
    assert lits.intensities == abdomen.intensities
    assert [case.shape_after_crop for case in lits.cases] == [case.shape_after_crop for case in abdomen.cases]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_raw_data_is_never_written_to(tmp_path: Path, layout: Callable, build_plan: Callable[..., Plan]) -> None:
    raw = tmp_path / "raw"
    make_phantom_dataset(raw, num_cases=2, size=24, seed=3)
    pairs = [
        (raw / "imagesTr" / f"phantom_00{n}_0000.nii.gz", raw / "labelsTr" / f"phantom_00{n}.nii.gz") for n in (1, 2)
    ]
    description = layout(tmp_path / "d", pairs) or {"channel_names": CHANNELS, "labels": LABELS}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(description))
    before = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    found = measure(tmp_path / "d")
    preprocess_case(find_dataset(str(tmp_path / "d"), Workspace(tmp_path)).cases[0], build_plan(found.label_scheme))
    assert sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
