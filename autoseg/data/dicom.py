"""A folder of DICOM slices as one volume: read by SimpleITK, put in order by position, never by file name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.data.geometry import Geometry, make_geometry
from autoseg.data.itk_files import check_kind, open_header, reason
from autoseg.data.problems import Remark
from autoseg.data.stored import DAMAGED, Stored
from autoseg.errors import VolumeError
from autoseg.plurals import count

SERIES, POSITION, ORIENTATION, FRAMES = "0020|000e", "0020|0032", "0020|0037", "0028|0008"
MAGIC, MAGIC_OFFSET = b"DICM", 128
MAX_PROBED = 8
SAME_POSITION_MM = 1e-3
MAX_GAP_DEVIATION = 0.1
"""Of the spacing between slices: positions are rounded, but a missing slice doubles a gap."""
MAX_ORIENTATION_DEVIATION = 1e-3
MAX_TILT = 1e-3
"""Shift between slices per distance between them: above, the gantry was tilted."""


@dataclass(frozen=True)
class _Slice:
    """One file: its series, and where it lies (mm, LPS)."""

    path: Path
    series: str
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacing: tuple[float, float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Direction in which slices are stacked."""
        return np.cross(self.axes[0], self.axes[1])


def is_dicom_folder(folder: Path) -> bool:
    """Tell whether one of the first files of a folder is a DICOM file."""
    if not folder.is_dir():
        return False
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return any(_is_dicom(path) for path, _ in zip(files, range(MAX_PROBED)))


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder by name; other files are left out."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and _is_dicom(path)]


def read_dicom(folder: Path, *, as_float: bool) -> Stored:
    """Read the DICOM series in ``folder``; rescaled to what its values mean (Hounsfield units in CT).

    Args:
        folder: of the slices, of one series only.
        as_float: whether to return float32; else the stored dtype.

    Raises:
        VolumeError: it holds no series or several, slices are missing or lie at the same place, or one is damaged.
    """
    slices = _in_order([_read_slice(path) for path in dicom_files(folder)], folder)
    try:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(one.path) for one in slices])
        if as_float:
            reader.SetOutputPixelType(sitk.sitkFloat32)
        array = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise VolumeError(folder, f"SimpleITK cannot read the series ({reason(error)})", DAMAGED) from None
    grid = _grid(slices, array.shape)
    return Stored(array[None], grid, tuple(_tilt(slices, folder)))


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(MAGIC_OFFSET)
        return file.read(len(MAGIC)) == MAGIC


def _read_slice(path: Path) -> _Slice:
    try:
        reader = open_header(path)
    except RuntimeError as error:
        raise VolumeError(path, f"SimpleITK cannot read it ({reason(error)})", DAMAGED) from None
    check_kind(reader, path)
    if reader.GetSize()[2:] not in ((), (1,)):
        found = f"holds {count(reader.GetSize()[2], 'slice')} in one DICOM file"
        raise VolumeError(path, found, "convert it to NIfTI (dcm2niix does)", kind="dimensions")
    tags = {key: reader.GetMetaData(key) for key in (SERIES, POSITION, ORIENTATION) if reader.HasMetaDataKey(key)}
    try:
        position = np.array([float(value) for value in tags[POSITION].split("\\")])
        axes = np.array([float(value) for value in tags[ORIENTATION].split("\\")]).reshape(2, 3)
    except (KeyError, ValueError):
        raise VolumeError(path, "stores no position or orientation", "give slices of a 3-D scan", kind="grid") from None
    sx, sy, sz = (*reader.GetSpacing(), 1.0)[:3]
    return _Slice(path, tags.get(SERIES, "").strip(), position, axes, (sz, sy, sx))


def _in_order(slices: list[_Slice], folder: Path) -> list[_Slice]:
    """Return the slices from the first to the last along their normal."""
    if not slices:
        raise VolumeError(folder, "holds no DICOM files", "give a folder of one DICOM series", kind="missing file")
    series = sorted({one.series for one in slices})
    if len(series) > 1:
        counts = ", ".join(
            f"{name}: {count(sum(one.series == name for one in slices), 'slice')}" for name in series[:3]
        )
        found = f"holds {len(series)} DICOM series ({counts})"
        raise VolumeError(folder, found, "put each into a folder of its own", kind="dimensions")
    turned = [one for one in slices if np.abs(one.axes - slices[0].axes).max() > MAX_ORIENTATION_DEVIATION]
    if turned:
        found = f"its slices have different orientations, e.g. {turned[0].path.name}"
        raise VolumeError(folder, found, "keep the slices of one orientation", kind="grid")
    ordered = sorted(slices, key=lambda one: float(one.position @ slices[0].normal))
    _check_gaps(ordered, folder)
    return ordered


def _check_gaps(slices: list[_Slice], folder: Path) -> None:
    gaps = np.diff([one.position @ slices[0].normal for one in slices])
    if not gaps.size:
        return
    if gaps.min() < SAME_POSITION_MM:
        names = " and ".join(one.path.name for one in slices[gaps.argmin() : gaps.argmin() + 2])
        raise VolumeError(folder, f"{names} lie at the same position", "keep one of them", kind="grid")
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() > MAX_GAP_DEVIATION * usual:
        worst = int(np.abs(gaps - usual).argmax())
        gap = f"{gaps[worst]:g} mm behind {slices[worst].path.name}, else {usual:g} mm"
        found = f"slices are missing or unevenly spaced: {gap}"
        raise VolumeError(folder, found, "complete the series, or leave the case out", kind="grid")


def _grid(slices: list[_Slice], shape: tuple[int, ...]) -> Geometry:
    first, last = slices[0], slices[-1]
    distance = float((last.position - first.position) @ first.normal)
    spacing = distance / (len(slices) - 1) if len(slices) > 1 else first.spacing[0]
    direction = np.stack([*first.axes, first.normal], axis=1)
    direction /= np.linalg.norm(direction, axis=0)
    return make_geometry(shape, (spacing, *first.spacing[1:]), first.position.tolist(), direction)


def _tilt(slices: list[_Slice], folder: Path) -> list[Remark]:
    way = slices[-1].position - slices[0].position
    distance = float(way @ slices[0].normal)
    shift = float(np.linalg.norm(way - distance * slices[0].normal))
    if shift <= MAX_TILT * max(distance, SAME_POSITION_MM):
        return []
    found = f"its slices are sheared (a tilted gantry: the last slice is shifted by {shift:.1f} mm)"
    return [
        Remark(folder, "header", f"{found}; they are stacked at right angles", "resample the series if that matters")
    ]
