"""Where voxels lie in the patient: grids, their comparison, and the canonical orientation.

The *canonical* orientation is LPS: x, y and z run towards the patient's left, back (posterior) and head (superior).
Volumes reach it by exchanging and reversing axes only, so nothing is lost and the way back is exact. A volume that lies
obliquely goes to the nearest of the 48 such orientations and stays oblique by less than 55 degrees an axis.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.documents import Document

SPACING_TOLERANCE = 1e-3  # relative: formats round spacings to about 1e-4
ORIGIN_TOLERANCE_MM = 1e-2
ORIGIN_TOLERANCE_VOXELS = 1e-2
DIRECTION_TOLERANCE = 1e-3

Order = tuple[int, int, int]


class Geometry(Document):
    """Where the voxels of a file lie in the patient.

    Attributes:
        shape: voxels (z, y, x).
        spacing: mm (z, y, x).
        origin: position of the first voxel, mm (x, y, z) in LPS.
        direction: SimpleITK's row-major matrix; column j is the direction of image axis j (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, float, float, float, float, float, float, float, float]


def make_geometry(
    shape: Sequence[int], spacing: Sequence[float], origin: Sequence[float], direction: NDArray[np.float64]
) -> Geometry:
    """Return the geometry of arrays: shape, spacing (z, y, x), origin (x, y, z), direction (3, 3), a column an axis."""
    z, y, x = (int(size) for size in shape)
    sz, sy, sx = (float(value) for value in spacing)
    ox, oy, oz = (float(value) for value in origin)
    a, b, c, d, e, f, g, h, i = (float(value) for value in direction.ravel())
    return Geometry(shape=(z, y, x), spacing=(sz, sy, sx), origin=(ox, oy, oz), direction=(a, b, c, d, e, f, g, h, i))


def canonical_geometry(geometry: Geometry) -> Geometry:
    """Return the geometry that a volume of ``geometry`` has after ``to_canonical``."""
    order, reversed_axes = canonical_axes(geometry)
    columns = _matrix(geometry)[:, ::-1]  # of the array axes z, y, x
    origin = np.array(geometry.origin)
    for axis, is_reversed in zip(order, reversed_axes):
        if is_reversed:
            origin = origin + columns[:, axis] * (geometry.spacing[axis] * (geometry.shape[axis] - 1))
    signs = np.where(reversed_axes, -1.0, 1.0)
    direction = (columns[:, list(order)] * signs)[:, ::-1] + 0.0  # + 0.0 turns -0.0 into 0.0
    shape, spacing = [geometry.shape[axis] for axis in order], [geometry.spacing[axis] for axis in order]
    return make_geometry(shape, spacing, origin.tolist(), direction)


def canonical_axes(geometry: Geometry) -> tuple[Order, tuple[bool, bool, bool]]:
    """Return, for each canonical array axis z, y, x: the file's array axis that becomes it, and whether that is
    reversed.

    Of the six assignments the one is taken whose axes lie nearest to the patient's, in sum.
    """
    cosines = _matrix(geometry)[::-1, ::-1]  # [canonical array axis, array axis of the file]
    orders: list[Order] = list(itertools.permutations(range(3)))  # type: ignore[arg-type]
    order = max(orders, key=lambda o: sum(abs(cosines[axis, o[axis]]) for axis in range(3)))
    z, y, x = (bool(cosines[axis, order[axis]] < 0) for axis in range(3))
    return order, (z, y, x)


def orientation_code(geometry: Geometry) -> str:
    """Return where the image axes x, y and z run to, in letters; canonical is ``LPS``, many NIfTI files are ``RAS``."""
    order, reversed_axes = canonical_axes(geometry)
    letters = {}
    for canonical_axis, (axis, is_reversed) in enumerate(zip(order, reversed_axes)):
        letters[axis] = ("SI", "PA", "LR")[canonical_axis][is_reversed]
    return letters[2] + letters[1] + letters[0]


def same_geometry(a: Geometry, b: Geometry) -> str | None:
    """Return None where the grids agree to within what file formats round, else what differs.

    Tolerances: spacing 1e-3 of itself; origin 0.01 mm and a hundredth of the largest spacing; direction 1e-3 an entry.
    """
    spacing = np.array(a.spacing)
    limits = {
        "shape": 0.0,
        "spacing": SPACING_TOLERANCE * spacing,
        "origin": ORIGIN_TOLERANCE_MM + ORIGIN_TOLERANCE_VOXELS * spacing.max(),
        "direction": DIRECTION_TOLERANCE,
    }
    units = {
        "shape": "voxels (z, y, x)",
        "spacing": "mm (z, y, x)",
        "origin": "mm (x, y, z)",
        "direction": "(row by row)",
    }
    for name, limit in limits.items():
        one, other = getattr(a, name), getattr(b, name)
        if (np.abs(np.subtract(one, other)) > limit).any():
            return f"{name} {_text(one)} against {_text(other)} {units[name]}"
    return None


def _matrix(geometry: Geometry) -> NDArray[np.float64]:
    return np.array(geometry.direction, dtype=np.float64).reshape(3, 3)


def _text(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
