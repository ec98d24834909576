"""The surface of a mask as small elements between voxels: where they are, and their area in mm^2.

Definition (Nikolov et al., 2018): every corner shared by eight voxels, some in the mask and some not, carries the piece
of surface that marching cubes (Lorensen and Cline, 1987) puts into the cube between these voxels' centres.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, ...]
Triangle = tuple[int, int, int]

CORNERS: tuple[Point, ...] = tuple(itertools.product((0, 1), repeat=3))
"""The corners (z, y, x) of a cube; the one at index i is bit i of a neighbourhood's code."""
FULL = 255
"""The code of a neighbourhood wholly in the mask. No surface crosses it, nor one of code 0."""


def surface_elements(mask: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the elements of the surface of a mask (Z, Y, X): lattice positions (N, 3) and areas (N,) in mm^2.

    Lattice point (z, y, x) is the corner below voxel (z, y, x) in all three axes. Voxels outside the array count as
    background, but an axis of a single voxel goes on unchanged in both directions: the surface of a 2-D mask is its
    contour, not its two faces.
    """
    codes = _neighbourhood_codes(mask)
    points = np.argwhere((codes != 0) & (codes != FULL))
    return points, element_areas(tuple(spacing))[codes[tuple(points.T)]]


def _neighbourhood_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the code of each lattice point's eight voxels; shape (Z+1, Y+1, X+1), but 1 along an axis of one voxel."""
    codes = mask.astype(np.uint8)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):  # joins voxels to pairs, pairs to quadruples, these to all eight
        margin = [(int(a == axis), int(a == axis)) for a in range(3)]
        lines: NDArray[Any] = np.moveaxis(codes if mask.shape[axis] == 1 else np.pad(codes, margin), axis, 0)
        low, high = (lines, lines) if len(lines) == 1 else (lines[:-1], lines[1:])
        codes = np.moveaxis(low | (high << bits), 0, axis)
    return codes


@functools.lru_cache(maxsize=64)
def element_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the area in mm^2 of the surface in each of the 256 neighbourhoods, for a spacing (z, y, x) in mm."""
    z, y, x = spacing
    scaled = _vector_areas() * np.array([y * x, z * x, z * y])
    return np.asarray(np.linalg.norm(scaled, axis=2).sum(axis=1))


@functools.cache
def _vector_areas() -> NDArray[np.float64]:
    """Return the vector areas (256, 4, 3) of each neighbourhood's triangles in a unit cube; zero beyond the last."""
    table = np.zeros((FULL + 1, 4, 3))
    for code in range(1, FULL):
        inside = frozenset(corner for bit, corner in enumerate(CORNERS) if code >> bit & 1)
        fewer = inside if len(inside) <= 4 else frozenset(CORNERS) - inside  # mask and complement share their surface
        vectors = [vector for polygon in _polygons(fewer) for vector in _largest_triangulation(polygon)]
        table[code, : len(vectors)] = vectors
    return table


def _polygons(inside: frozenset[Point]) -> Iterator[NDArray[np.float64]]:
    """Yield the closed polygons, through midpoints of the cube's edges, that part the corners inside from the rest."""
    neighbours: dict[Point, list[Point]] = {}
    for start, end in _segments(inside):
        neighbours.setdefault(start, []).append(end)
        neighbours.setdefault(end, []).append(start)
    while neighbours:
        polygon = [next(iter(neighbours))]
        while following := [point for point in neighbours.pop(polygon[-1]) if point in neighbours]:
            polygon.append(following[0])
        yield np.array(polygon) / 2


def _segments(inside: frozenset[Point]) -> Iterator[tuple[Point, Point]]:
    """Yield where the surface cuts the faces of the cube, in half edges.

    Of a face with two opposite corners inside, it cuts off each of them.
    """
    for axis, side in itertools.product(range(3), (0, 1)):
        ring = [_on_face(axis, side, a, b) for a, b in ((0, 0), (0, 1), (1, 1), (1, 0))]
        middles = [tuple(p + q for p, q in zip(ring[i], ring[(i + 1) % 4])) for i in range(4)]
        crossed = [i for i in range(4) if (ring[i] in inside) != (ring[(i + 1) % 4] in inside)]
        if len(crossed) == 2:
            yield middles[crossed[0]], middles[crossed[1]]
        elif len(crossed) == 4:
            yield from ((middles[i - 1], middles[i]) for i in range(4) if ring[i] in inside)


def _on_face(axis: int, side: int, a: int, b: int) -> Point:
    point = [a, b]
    point.insert(axis, side)
    return tuple(point)


def _largest_triangulation(polygon: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the vector areas of the triangles of the triangulation with the greatest area.

    Bent polygons can be triangulated in several ways; this one gives the original implementation's areas, all 256.
    """

    sides = polygon[None] - polygon[:, None]
    vectors = np.cross(sides[:, :, None], sides[:, None, :]) / 2  # of the triangle at each three of the vertices
    areas = np.linalg.norm(vectors, axis=3).tolist()
    options = _triangulations(0, len(polygon) - 1)
    largest = max(options, key=lambda option: sum(areas[a][b][c] for a, b, c in option))
    return [vectors[triangle] for triangle in largest]


def _triangulations(first: int, last: int) -> list[list[Triangle]]:
    """Return every way to cut the polygon of the vertices ``first`` to ``last`` into triangles."""
    if last - first < 2:
        return [[]]
    return [
        [*left, *right, (first, middle, last)]
        for middle in range(first + 1, last)
        for left in _triangulations(first, middle)
        for right in _triangulations(middle, last)
    ]
