"""The file formats that are read, and which module reads them."""

from pathlib import Path
from typing import Protocol

from autoseg.data.dicom import read_dicom
from autoseg.data.itk_files import read_itk
from autoseg.data.mgh import read_mgh
from autoseg.data.nifti import read_nifti
from autoseg.data.pictures import ENDINGS as PICTURE_ENDINGS
from autoseg.data.pictures import read_picture
from autoseg.data.stored import DAMAGED, Stored, check_content
from autoseg.errors import VolumeError


class Reader(Protocol):
    """What reads one format."""

    def __call__(self, path: Path, /, *, as_float: bool) -> Stored:
        """Read a file."""


READERS: dict[str, Reader] = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".nrrd": read_itk,
    ".nhdr": read_itk,
    ".mha": read_itk,
    ".mhd": read_itk,
    ".mgz": read_mgh,
    ".mgh": read_mgh,
    ".gipl.gz": read_itk,
    ".gipl": read_itk,
    **dict.fromkeys(PICTURE_ENDINGS, read_picture),
}

FILE_ENDINGS = tuple(READERS)
"""Endings of the volume files that are recognised in a dataset."""


def read_file(path: Path, *, as_float: bool) -> Stored:
    """Read a volume file, or the DICOM series in a folder.

    Args:
        path: of the file or folder; its ending chooses the format.
        as_float: whether to return float32; else the stored dtype.

    Raises:
        VolumeError: it is missing, damaged, no real-valued volume, or not finite.
    """
    if not path.exists():
        raise VolumeError(path, "no such file", "put it there, or leave the case out", kind="missing file")
    try:
        stored = _reader(path)(path, as_float=as_float)
    except OSError as error:
        raise VolumeError(
            path, f"cannot be read ({error.strerror or error})", "check its permissions and disk"
        ) from None
    except MemoryError:
        raise VolumeError(path, "is too large for the memory of this machine", DAMAGED) from None
    return check_content(stored, path)


def without_ending(name: str, endings: tuple[str, ...] = FILE_ENDINGS) -> str | None:
    """Return a file's name without its ending, or None where that is not among ``endings``."""
    return next((name[: -len(ending)] for ending in endings if name.endswith(ending)), None)


def _reader(path: Path) -> Reader:
    if path.is_dir():
        return read_dicom
    for ending, reader in READERS.items():
        if path.name.endswith(ending):
            return reader
    raise VolumeError(path, "has no known ending", f"known are {', '.join(FILE_ENDINGS)}")
