"""FreeSurfer's MGH and MGZ files, which SimpleITK cannot read: nibabel does."""

import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from autoseg.data.geometry import make_geometry
from autoseg.data.stored import DAMAGED, Stored, refuse_kind, volume_shape
from autoseg.errors import VolumeError

DAMAGES = (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, MemoryError, ImageFileError, HeaderDataError)


def read_mgh(path: Path, *, as_float: bool) -> Stored:
    """Read an MGH or MGZ file: of a 4-D file all volumes.

    Args:
        path: of the file.
        as_float: whether to return float32; else the stored dtype.

    Raises:
        VolumeError: it is damaged, or no real-valued volume.
    """
    try:
        image = nibabel.MGHImage.from_filename(path)
        stored = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except DAMAGES as error:
        raise VolumeError(path, f"nibabel cannot read it ({' '.join(str(error).split())})", DAMAGED) from None
    refuse_kind(path, 1, is_complex=stored.dtype.kind == "c")
    shape = volume_shape(stored.shape, path)
    array = stored.T.reshape(shape)  # its first axis runs fastest
    array = np.ascontiguousarray(array, dtype=np.float32 if as_float else array.dtype.newbyteorder("="))
    matrix = affine[:3, :3] * np.array([-1.0, -1.0, 1.0])[:, None]  # from RAS to LPS
    spacing = np.linalg.norm(matrix, axis=0)
    if not spacing.all() or not np.isfinite(affine).all():
        raise VolumeError(path, "stores no usable grid", "correct the header", kind="grid")
    origin = affine[:3, 3] * (-1.0, -1.0, 1.0)
    return Stored(array, make_geometry(shape[1:], spacing[::-1].tolist(), origin.tolist(), matrix / spacing))
