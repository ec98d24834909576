"""Files that SimpleITK reads whole: NRRD, MetaImage, GIPL."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.data.completeness import check_whole
from autoseg.data.geometry import Geometry, make_geometry
from autoseg.data.stored import DAMAGED, Stored, refuse_kind, volume_shape
from autoseg.errors import VolumeError


def read_itk(path: Path, *, as_float: bool) -> Stored:
    """Read a file through SimpleITK: of a 4-D file all volumes.

    Args:
        path: of the file.
        as_float: whether to return float32; else the stored dtype.

    Raises:
        VolumeError: SimpleITK cannot read it, or it is no real-valued volume.
    """
    check_whole(path)
    try:
        reader = open_header(path)
        check_kind(reader, path)
        shape = volume_shape(reader.GetSize(), path)
        if as_float:
            reader.SetOutputPixelType(sitk.sitkFloat32)
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise VolumeError(path, f"SimpleITK cannot read it ({reason(error)})", DAMAGED) from None
    return Stored(sitk.GetArrayFromImage(image).reshape(shape), geometry_of(image))


def open_header(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header only."""
    sitk.ProcessObject_SetGlobalWarningDisplay(
        False
    )  # its warnings are no news to the user, and would tear a progress bar
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def check_kind(reader: sitk.ImageFileReader, path: Path) -> None:
    """Refuse what has not one real number a voxel."""
    is_complex = "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID())
    refuse_kind(path, reader.GetNumberOfComponents(), is_complex=is_complex)


def geometry_of(image: sitk.Image | sitk.ImageFileReader) -> Geometry:
    """Return the grid of an image or header of 2, 3 or 4 axes; further axes are left out, a missing third is one slice
    of 1 mm.
    """
    axes = image.GetDimension()
    kept = min(axes, 3)
    direction = np.eye(3)
    direction[:kept, :kept] = np.reshape(image.GetDirection(), (axes, axes))[:kept, :kept]
    x, y, z = (*image.GetSize(), 1)[:3]
    sx, sy, sz = (*image.GetSpacing(), 1.0)[:3]
    ox, oy, oz = (*image.GetOrigin(), 0.0)[:3]
    return make_geometry((z, y, x), (sz, sy, sx), (ox, oy, oz), direction)


def reason(error: Exception) -> str:
    """Return the telling line of SimpleITK's many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "ERROR:" in line] or lines[-1:]
    return telling[-1].split("ERROR:")[-1].strip() if telling else "no reason given"
