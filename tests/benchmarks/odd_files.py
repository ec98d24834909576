"""What autoseg does with odd files: writes docs/benchmarks/odd-files.md.

Each file is read as an image and as a label. What is read is compared with nibabel and SimpleITK, voxels and grid; what
is refused is shown with its line. Run as ``python tests/benchmarks/odd_files.py FOLDER``, where FOLDER/MANIFEST.csv
lists the files (path, source).
"""

import csv
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from autoseg.data.geometry import Geometry, orientation_code
from autoseg.data.labels import Labels, Region
from autoseg.data.volumes import Volume, read_channels, read_label
from autoseg.errors import VolumeError

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "odd-files.md"
INTRODUCTION = """# Odd files

What autoseg does with each file of a collection of odd ones, as an image and as a label. Made by
`python tests/benchmarks/odd_files.py FOLDER`. *Read* means: voxels and grid are those that nibabel and SimpleITK find;
where the two disagree, the table says whose is taken and why. As a label, a file that is one was declared with the
values that it holds (one-hot masks: one label a volume), any other file with 0 and 1. *Refused* is followed by the line
that the user sees.

SimpleITK alone would have turned NaN into 0, folded the surface into a volume of 27307 x 1 x 6, and filled the missing
end of a shortened NIfTI file with zeros; nnU-Net reads through it.

| file | as an image | as a label |
|---|---|---|
"""


@dataclass(frozen=True)
class Outcome:
    """What happened: ``read`` or ``refused``, the line for it, and whether both oracles agree (None: there is nothing
    to compare).
    """

    action: str
    text: str
    right: bool | None


@dataclass(frozen=True)
class Oracle:
    """What another library reads: voxels (N, Z, Y, X) and the affine in RAS (None where it has none of its own)."""

    array: np.ndarray
    affine: np.ndarray | None


def judge_image(path: Path) -> Outcome:
    """Read ``path`` as an image: with one channel, or, if it holds more volumes, with as many."""
    try:
        return _compared(read_channels(path, 1), path, "read")
    except VolumeError as error:
        line = f"{error.found}; {error.remedy}"
        if error.kind != "channels":
            return Outcome("refused", line, None)
    number = len((from_nibabel(path) or from_simpleitk(path)).array)
    outcome = _compared(read_channels(path, number), path, f"read as {number} channels")
    return Outcome(
        "read", f"refused as one channel: {line}. With {number} channels declared: {outcome.text}", outcome.right
    )


def judge_label(path: Path) -> Outcome:
    """Read ``path`` as a label, declared with its own values if it is one."""
    labels = _declared(path)
    try:
        volume = read_label(path, labels)
        values = labels.decode(labels.encode(volume.array[0], path.name))
    except VolumeError as error:
        refused = Outcome("refused", f"{error.found}; {error.remedy}", None)
        return _judge_overlapping(path, refused) if "overlap" in error.found else refused
    outcome = _compared(volume, path, f"read, values {_short(np.unique(values))}")
    found = [np.rint(oracle.array) for oracle in (from_nibabel(path), from_simpleitk(path)) if oracle]
    merged = [array[0] if len(array) == 1 else labels.merge_masks(array, path) for array in found]
    return Outcome("read", outcome.text, bool(outcome.right) and all((values == array).all() for array in merged))


def _judge_overlapping(path: Path, refused: Outcome) -> Outcome:
    """Read a stack of overlapping masks with a region for each of them and a label for each combination that occurs."""
    masks = (from_nibabel(path) or from_simpleitk(path)).array > 0.5
    combinations = np.unique(masks.reshape(len(masks), -1), axis=1).T
    combinations = [tuple(row) for row in combinations if row.any()]
    labels = Labels(
        labels={"background": 0, **{f"combination {n}": n for n in range(1, len(combinations) + 1)}},
        regions={
            f"mask {k}": Region(labels=tuple(n for n, row in enumerate(combinations, 1) if row[k]), value=k + 1)
            for k in range(len(masks))
        },
    )
    values = read_label(path, labels).array[0]
    right = all((np.isin(values, r.labels) == mask).all() for r, mask in zip(labels.regions.values(), masks))
    text = f"refused with a label for each volume: {refused.text}. With overlapping regions declared: read"
    return Outcome("read", text, right)


@lru_cache(maxsize=2)
def from_nibabel(path: Path) -> Oracle | None:
    """Return what nibabel reads, if it can and the file has a grid."""
    try:
        image = nibabel.load(path)
        array = image.get_fdata(dtype=np.float32).T
    except Exception:
        return None
    array = array.reshape((1,) * (4 - array.ndim) + array.shape) if array.ndim < 4 else array
    header = image.header
    has_grid = getattr(header, "get", lambda *_: 1)("qform_code", 1) > 0 or header["sform_code"] > 0
    return Oracle(array, image.affine if has_grid else None)


@lru_cache(maxsize=2)
def from_simpleitk(path: Path) -> Oracle | None:
    """Return what SimpleITK reads, if it can."""
    try:
        if path.is_dir():
            image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)), sitk.sitkFloat32)
        else:
            image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    except RuntimeError:
        return None
    array = sitk.GetArrayFromImage(image)
    array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    if image.GetDimension() < 3:
        return Oracle(array, None)
    axes = image.GetDimension()
    matrix = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * image.GetSpacing()[:3]
    return Oracle(array, _to_ras(matrix, np.array(image.GetOrigin()[:3])))


def affine_of(geometry: Geometry) -> np.ndarray:
    """Return autoseg's grid as an affine in RAS."""
    matrix = np.reshape(geometry.direction, (3, 3)) * geometry.spacing[::-1]
    return _to_ras(matrix, np.array(geometry.origin))


def _to_ras(matrix: np.ndarray, origin: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _compared(volume: Volume, path: Path, text: str) -> Outcome:
    oracles = {"nibabel": from_nibabel(path), "SimpleITK": from_simpleitk(path)}
    known = {name: oracle for name, oracle in oracles.items() if oracle is not None}
    voxels = {name: _same_voxels(volume.array, oracle.array) for name, oracle in known.items()}
    grids = {name: oracle.affine is None or _same_grid(volume, oracle.affine) for name, oracle in known.items()}
    size = " x ".join(str(n) for n in volume.geometry.shape)
    text = f"{text}: {size}, {orientation_code(volume.geometry)}"
    for what, agreed in (("voxels", voxels), ("grid", grids)):
        if wrong := [name for name, same in agreed.items() if not same]:
            text += f"; {what} other than in {' and '.join(wrong)}"
    text += "".join(f"; said: {remark.found}" for remark in volume.remarks)
    return Outcome(
        "read", text, all(voxels.values()) and any(grids.values()) and (all(grids.values()) or bool(volume.remarks))
    )


def _same_voxels(ours: np.ndarray, theirs: np.ndarray) -> bool:
    if len(ours) != len(theirs):  # a stack of masks that was merged
        return True
    return ours.shape == theirs.shape and bool(np.allclose(ours, theirs, rtol=1e-5, atol=1e-5))


def _same_grid(volume: Volume, affine: np.ndarray) -> bool:
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    corners[:, :3] *= np.array(volume.geometry.shape[::-1]) - 1
    shift = corners @ (affine_of(volume.geometry) - affine).T
    return bool(np.abs(shift).max() < 0.05 * min(volume.geometry.spacing))


def _declared(path: Path) -> Labels:
    named = path.parent.name in ("labels", "mismatch") or "label" in path.name or path.name.startswith("seg")
    is_label = named and "image" not in path.name
    oracle = (from_nibabel(path) or from_simpleitk(path)) if is_label else None
    if oracle is None or "soft" in path.name:
        return Labels.from_names({"background": 0, "organ": 1})
    number = len(oracle.array)
    values = range(number + 1) if number > 1 else np.unique(np.rint(oracle.array)).astype(int).tolist()
    foreground = [value for value in values if value not in (0, 255)] or [1]
    ignore = {"ignore": 255} if 255 in values else {}
    return Labels.from_names({"background": 0, **{f"label_{v}": v for v in foreground}, **ignore})


def _short(values: np.ndarray) -> str:
    numbers = [int(value) for value in values]
    return str(numbers) if len(numbers) < 8 else f"{len(numbers)} from {numbers[0]} to {numbers[-1]}"


def main(folder: Path, output: Path = OUTPUT) -> list[tuple[str, Outcome, Outcome]]:
    """Judge all files of the manifest and write the table."""
    rows = []
    with (folder / "MANIFEST.csv").open(encoding="utf-8") as file:
        for entry in csv.DictReader(file):
            path = folder / entry["path"]
            rows.append((entry["path"], judge_image(path), judge_label(path)))
    lines = [f"| `{name}` | {_cell(image)} | {_cell(label)} |" for name, image, label in rows]
    output.write_text(INTRODUCTION + "\n".join(lines) + "\n", encoding="utf-8")
    return rows


def _cell(outcome: Outcome) -> str:
    mark = "**wrong** " if outcome.right is False else ""
    text = outcome.text if outcome.action == "read" else f"refused: {outcome.text}"
    return mark + text.replace("|", "/")


if __name__ == "__main__":
    for row in main(Path(sys.argv[1])):
        sys.stdout.write(f"{row[0]}\n    image: {row[1]}\n    label: {row[2]}\n")
