"""A phantom dataset: drawn abdomens that look a little like CT, to try everything without a download.

It is honest about being a phantom: dataset.json says so. Nothing measured on it says anything about patients.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.data.volumes import Geometry, write_segmentation, write_volume
from autoseg.documents import format_json, write_text

SPACING_MM = (2.5, 1.4, 1.4)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
NUM_UNLABELLED = 2

# Hounsfield units, roughly those of a contrast-enhanced scan in the portal venous phase
AIR, FAT, SOFT, BONE, LIVER, TUMOUR, SPLEEN, KIDNEY = -1000.0, -100.0, 45.0, 400.0, 110.0, 60.0, 125.0, 160.0
NOISE_HU, BIAS_HU = 12.0, 8.0

Floats = NDArray[np.float32]


def make_phantom_dataset(
    folder: Path, *, num_cases: int = 12, size: int = 64, seed: int = 0, on_case: Callable[[str], None] | None = None
) -> None:
    """Write ``num_cases`` labelled and two unlabelled phantoms in nnU-Net's layout; dataset.json comes last.

    Args:
        folder: of the dataset, e.g. ``raw/Phantom``.
        num_cases: number of labelled cases.
        size: about the number of voxels in x and y; z has three quarters of it.
        seed: of everything that is drawn; the same seed gives the same voxels.
        on_case: called with the name of each case written.
    """
    for index in range(num_cases + NUM_UNLABELLED):
        name = f"phantom_{index + 1:03d}"
        image, label, geometry = draw_phantom(size, np.random.default_rng([seed, index]))
        labelled = index < num_cases
        write_volume(folder / ("imagesTr" if labelled else "imagesTs") / f"{name}_0000.nii.gz", image, geometry)
        if labelled:
            write_segmentation(folder / "labelsTr" / f"{name}.nii.gz", label, geometry)
        if on_case:
            on_case(name)
    write_text(folder / "dataset.json", format_json(_describe(num_cases)) + "\n")


def draw_phantom(size: int, rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.uint8], Geometry]:
    """Return one phantom: image in HU and label (0 background, 1 liver, 2 tumour), both (Z, Y, X), and the geometry."""
    geometry = _draw_geometry(size, rng)
    grid = _grid(geometry.shape)
    noise = _smooth_noise(geometry.shape, rng)
    image, body = _draw_body(grid, noise, rng)
    liver = body & (
        _ellipsoid(grid, _jitter((0.1, -0.05, -0.35), 0.05, rng), _jitter((0.6, 0.45, 0.38), 0.04, rng)) + 0.25 * noise
        < 1
    )
    image[liver] = LIVER
    tumour = _draw_tumours(grid, liver, noise, rng)
    image[tumour] = TUMOUR
    label = np.where(tumour, 2, liver).astype(np.uint8)
    image = ndimage.gaussian_filter(image, (0.3, 0.5, 0.5))  # partial volume at the borders
    image += BIAS_HU * _smooth_noise(geometry.shape, rng) + rng.normal(0, NOISE_HU, image.shape).astype(np.float32)
    return np.rint(np.clip(image, -1024, 3071)).astype(np.int16), label, geometry


def _draw_geometry(size: int, rng: np.random.Generator) -> Geometry:
    z, y, x = (
        int(rng.integers(round(low * size), round(high * size) + 1))
        for low, high in ((0.625, 0.875), (1, 1.125), (1, 1.125))
    )
    in_plane = round(float(SPACING_MM[1] * rng.uniform(0.9, 1.1)), 3)
    spacing = (float(rng.choice((2.0, SPACING_MM[0], 3.0))), in_plane, in_plane)
    origin = (
        round(float(rng.uniform(-80, -20)), 2),
        round(float(rng.uniform(-80, -20)), 2),
        round(float(rng.uniform(-400, 100)), 2),
    )
    exact = [np.float32(value).item() for value in (*spacing, *origin)]  # what NIfTI can hold
    return Geometry(
        shape=(z, y, x),
        spacing=(exact[0], exact[1], exact[2]),
        origin=(exact[3], exact[4], exact[5]),
        direction=IDENTITY,
    )


def _draw_body(grid: list[Floats], noise: Floats, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the image without liver and tumours, and the mask of what lies inside the rim of fat."""
    half_width, half_depth = rng.uniform(0.84, 0.92), rng.uniform(0.66, 0.76)
    _, y, x = grid
    image = np.full(noise.shape, AIR, dtype=np.float32)
    image[np.broadcast_to((y / half_depth) ** 2 + (x / half_width) ** 2 < 1, image.shape)] = FAT
    inside = (y / (half_depth - 0.1)) ** 2 + (x / (half_width - 0.1)) ** 2 + 0.05 * noise < 1
    image[inside] = SOFT
    organs = (
        (BONE, (0.0, 0.48, 0.0), (9.0, 0.13, 0.13)),
        (SPLEEN, (0.15, 0.2, 0.55), (0.45, 0.2, 0.16)),
        (KIDNEY, (-0.45, 0.33, 0.33), (0.42, 0.13, 0.12)),
        (KIDNEY, (-0.5, 0.33, -0.33), (0.42, 0.13, 0.12)),
    )
    for value, centre, radii in organs:
        image[inside & (_ellipsoid(grid, _jitter(centre, 0.03, rng), _jitter(radii, 0.01, rng)) + 0.1 * noise < 1)] = (
            value
        )
    return image, inside


def _draw_tumours(
    grid: list[Floats], liver: NDArray[np.bool_], noise: Floats, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return one to three blobs of different sizes, centred inside the liver and cut off at its border."""
    voxels = np.argwhere(ndimage.binary_erosion(liver, iterations=2))
    tumours = np.zeros_like(liver)
    for _ in range(int(rng.integers(1, 4))):
        z, y, x = voxels[rng.integers(len(voxels))]
        centre = (float(grid[0][z, 0, 0]), float(grid[1][0, y, 0]), float(grid[2][0, 0, x]))
        radius = float(rng.uniform(0.09, 0.2))
        tumours |= _ellipsoid(grid, centre, (1.4 * radius, radius, radius)) + 0.3 * noise < 1
    return tumours & liver


def _grid(shape: tuple[int, int, int]) -> list[Floats]:
    """Return coordinates from -1 to 1 along each axis, shaped to broadcast."""
    axes = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    return [axis.reshape([-1 if k == i else 1 for k in range(3)]) for i, axis in enumerate(axes)]


def _ellipsoid(grid: list[Floats], centre: tuple[float, ...], radii: tuple[float, ...]) -> Floats:
    """Return a field that is below 1 inside the ellipsoid."""
    z, y, x = (((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii))
    total: Floats = z + y + x
    return total


def _smooth_noise(shape: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    """Return a smooth random field of standard deviation 1, drawn on a coarse grid."""
    coarse = rng.normal(size=(6, 6, 6)).astype(np.float32)
    field: Floats = ndimage.zoom(coarse, [n / 6 for n in shape], order=3, mode="nearest", grid_mode=True)
    field = (field - field.mean()) / field.std()
    return field


def _jitter(values: tuple[float, float, float], amount: float, rng: np.random.Generator) -> tuple[float, ...]:
    return tuple((np.array(values) + rng.uniform(-amount, amount, 3)).tolist())


def _describe(num_cases: int) -> dict[str, object]:
    return {
        "name": "Phantom",
        "description": "Synthetic phantom drawn by autoseg: not patient data; results say nothing about real images.",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
