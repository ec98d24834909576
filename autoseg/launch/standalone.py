"""Segment an image with an exported model: needs onnxruntime, numpy and SimpleITK, and nothing else.

    python segment.py IMAGE [IMAGE OF THE NEXT CHANNEL ...] SEGMENTATION

This file stands beside plan.json and the networks (fold_0.onnx ...) and reads them from its own folder. It is the way
of autoseg_predict with plain matrices: orientation, crop, normalisation, resampling, overlapping tiles, mirroring, the
mean over the networks, and back onto the image's own grid. Arrays are (C, Z, Y, X).
"""

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import SimpleITK as sitk

Array = np.ndarray[Any, Any]

PADDING = 12  # voxels beyond the border, after which a cubic spline has forgotten it
SLAB = 16  # slices that are brought back at a time
SIGMA = 1 / 8  # of a tile's Gaussian weight, in patch sizes


def segment(image_paths: list[str], folder: Path) -> sitk.Image:
    """Return the segmentation of one image, on its own grid."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    channels = plan["dataset"]["channels"]
    if len(image_paths) != len(channels):
        sys.exit(f"error: {len(image_paths)} images given, {len(channels)} needed: {', '.join(channels)}")
    original = [sitk.ReadImage(path, sitk.sitkFloat32) for path in image_paths]
    canonical = [sitk.DICOMOrient(image, "LPS") for image in original]
    transpose = plan["preprocessing"]["transpose"]
    spacing = np.array(canonical[0].GetSpacing()[::-1])[transpose]
    image = np.stack([sitk.GetArrayFromImage(one).transpose(transpose) for one in canonical])
    box = nonzero_box(image)
    cropped = normalize(image[(slice(None), *box)].copy(), plan["preprocessing"]["normalization"])
    target = [own if wanted is None else wanted for own, wanted in zip(spacing, plan["preprocessing"]["spacing"])]
    logits = predict(resample_image(cropped, spacing, target, plan["preprocessing"]), plan, folder)
    found = np.zeros(image.shape[1:], dtype=np.int16)
    found[box] = restore(logits, cropped.shape[1:], target, spacing, plan)
    return to_file(found.transpose(np.argsort(transpose)), canonical[0], original[0], plan, folder)


def nonzero_box(image: Array) -> tuple[slice, ...]:
    """Return the box of the voxels that are not 0 in some channel; everything where there is none."""
    mask = (image != 0).any(axis=0)
    if not mask.any():
        return tuple(slice(0, size) for size in mask.shape)
    found = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(one[0]), int(one[-1]) + 1) for one in found)


def normalize(image: Array, schemes: list[dict[str, Any]]) -> Array:
    """Normalise each channel in place."""
    mask = None
    if any(scheme["use_mask"] for scheme in schemes):
        solid = sitk.GetImageFromArray((image != 0).any(axis=0).astype(np.uint8))
        mask = sitk.GetArrayFromImage(sitk.BinaryFillhole(solid, fullyConnected=False)) > 0
    for channel, scheme in zip(image, schemes):
        inside = mask if scheme["use_mask"] and mask is not None else np.ones(channel.shape, dtype=bool)
        if scheme["scheme"] == "ct":
            clipped = np.clip(channel, scheme["lower"], scheme["upper"])
            channel[:] = (clipped - scheme["mean"]) / max(scheme["std"], 1e-8)
        elif scheme["scheme"] == "zscore" and inside.any():
            values = channel[inside].astype(np.float64)
            channel[inside] = (values - values.mean()) / max(values.std(), 1e-8)
        elif scheme["scheme"] == "rescale":
            channel -= channel.min()
            channel /= max(channel.max(), 1e-8)
        elif scheme["scheme"] == "rgb":
            channel /= 255
    return image


def coarse_axis(current: Any, new: Any, threshold: float) -> int | None:
    """Return the axis along which the nearest slice is taken, or None."""
    for spacing in (current, new):
        if max(spacing) > threshold * min(spacing):
            axes = [axis for axis, value in enumerate(spacing) if value >= max(spacing) * (1 - 1e-4)]
            return axes[0] if len(axes) == 1 else None
    return None


def resample_image(image: Array, spacing: Any, target: Any, settings: dict[str, Any]) -> Array:
    """Resample each channel to the target spacing by splines, within the range of its values."""
    shape = [max(1, round(old / new * size)) for old, new, size in zip(spacing, target, image.shape[1:])]
    if list(image.shape[1:]) == shape:
        return image
    axis, order = coarse_axis(spacing, target, settings["separate_axis_threshold"]), settings["image_order"]
    matrices = [axis_matrix(*sizes, 0 if a == axis else order) for a, sizes in enumerate(zip(image.shape[1:], shape))]
    in_plane = tuple(a for a in range(3) if a != axis)
    result = []
    for channel in image:
        resampled = apply(channel, matrices)
        if order > 1:
            limits = [function(channel, axis=in_plane, keepdims=True) for function in (np.min, np.max)]
            if axis is not None:
                limits = [np.moveaxis(np.tensordot(matrices[axis], limit, (1, axis)), 0, axis) for limit in limits]
            resampled = np.clip(resampled, *limits)
        result.append(resampled.astype(np.float32))
    return np.stack(result)


def axis_matrix(old: int, new: int, order: int) -> Array:
    """Return the matrix (new, old) that resamples an axis by splines of order 0, 1 or 3."""
    if old == new:
        return np.eye(old)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    if order < 2:
        centres = np.clip(centres, 0, old - 1)
        low = np.floor(centres + (0.5 if order == 0 else 0)).astype(int)
        part = np.zeros(new) if order == 0 else centres - low
        identity = np.eye(old)
        return np.asarray((1 - part)[:, None] * identity[low] + part[:, None] * identity[np.minimum(low + 1, old - 1)])
    size = old + 2 * PADDING
    filtered = np.eye(size) * 4 / 6 + (np.eye(size, k=1) + np.eye(size, k=-1)) / 6
    filtered[0, 1] = filtered[-1, -2] = 2 / 6
    padded = np.eye(old)[np.clip(np.arange(size) - PADDING, 0, old - 1)]
    position = centres + PADDING
    weights = np.zeros((new, size))
    for offset in range(-1, 3):
        index = np.floor(position).astype(int) + offset
        distance = np.abs(position - index)
        near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
        weights[np.arange(new), np.clip(index, 0, size - 1)] += np.where(distance < 1, near, far)
    return np.asarray(weights @ np.linalg.solve(filtered, padded))


def apply(array: Array, matrices: list[Array]) -> Array:
    """Apply each axis's matrix to (Z, Y, X), those that shrink first."""
    for axis in sorted(range(3), key=lambda a: len(matrices[a]) / matrices[a].shape[1]):
        if len(matrices[axis]) != matrices[axis].shape[1] or array.shape[axis] != len(matrices[axis]):
            array = np.moveaxis(np.tensordot(matrices[axis].astype(np.float32), array, (1, axis)), 0, axis)
    return array


def predict(image: Array, plan: dict[str, Any], folder: Path) -> Array:
    """Return the logits (R, Z, Y, X): Gaussian-weighted tiles, mirrored copies and networks averaged."""
    sessions = [onnxruntime.InferenceSession(str(path)) for path in sorted(folder.glob("fold_*.onnx"))]
    patch = ([1] + plan["training"]["patch_size"])[-3:]
    missing = [max(p - s, 0) for p, s in zip(patch, image.shape[1:])]
    padded = np.pad(image, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    profiles = [np.exp(-0.5 * ((np.arange(p) - p // 2) / (SIGMA * p)) ** 2) for p in patch]
    weight = (profiles[0][:, None, None] * profiles[1][:, None] * profiles[2]).astype(np.float32)
    axes = plan["prediction"]["mirror_axes"]
    mirrored = [flips for n in range(len(axes) + 1) for flips in itertools.combinations(axes, n)]
    starts = [tile_starts(*sizes, plan["prediction"]["tile_step"]) for sizes in zip(padded.shape[1:], patch)]
    total, logits = np.zeros(padded.shape[1:], dtype=np.float32), None
    for corner in itertools.product(*starts):
        box = tuple(slice(start, start + p) for start, p in zip(corner, patch))
        total[box] += weight * len(mirrored) * len(sessions)
        for flips in mirrored:
            tile = np.flip(padded[(slice(None), *box)], tuple(a + 1 for a in flips))[None].copy()
            for session in sessions:
                output = session.run(None, {session.get_inputs()[0].name: tile})[0][0]
                if logits is None:
                    logits = np.zeros((len(output), *padded.shape[1:]), dtype=np.float32)
                logits[(slice(None), *box)] += weight * np.flip(output, tuple(a + 1 for a in flips))
    if logits is None:
        sys.exit(f"error: {folder}: no fold_*.onnx")
    inside = tuple(slice(m // 2, m // 2 + s) for m, s in zip(missing, image.shape[1:]))
    logits /= total
    return np.asarray(logits[(slice(None), *inside)])


def tile_starts(size: int, patch: int, step: float) -> list[int]:
    """Return where tiles begin on an axis, evenly at most patch x step apart."""
    gap = max(size - patch, 0)
    count = math.ceil(gap / max(patch * step, 1)) + 1
    return [round(gap / (count - 1) * index) for index in range(count)] if count > 1 else [0]


def restore(logits: Array, shape: tuple[int, ...], target: Any, spacing: Any, plan: dict[str, Any]) -> Array:
    """Return label values on the cropped grid before resampling, a few slices at a time."""
    axis = coarse_axis(target, spacing, plan["preprocessing"]["separate_axis_threshold"])
    matrices = [axis_matrix(*sizes, 0 if a == axis else 1) for a, sizes in enumerate(zip(logits.shape[1:], shape))]
    regions = list(plan["dataset"]["regions"].values())
    values = sorted(v for name, v in plan["dataset"]["labels"].items() if name not in ("background", "ignore"))
    overlapping = sorted(region["labels"] for region in regions) != [[value] for value in values]
    found = np.zeros(shape, dtype=np.int16)
    for start in range(0, shape[0], SLAB):
        rows = matrices[0][start : start + SLAB]
        used = np.flatnonzero(rows.any(axis=0))
        part = slice(int(used[0]), int(used[-1]) + 1)
        slab = np.stack([apply(channel[part], [rows[:, part], *matrices[1:]]) for channel in logits])
        if overlapping:
            for channel, region in zip(slab, regions):
                found[start : start + SLAB][channel > 0] = region["value"]
        else:
            found[start : start + SLAB] = np.array([0, *values])[slab.argmax(axis=0)]
    return found


def to_file(
    found: Array, canonical: sitk.Image, original: sitk.Image, plan: dict[str, Any], folder: Path
) -> sitk.Image:
    """Return the segmentation along the axes of the image file, postprocessed."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(found))
    image.CopyInformation(canonical)
    document = folder / "postprocessing.json"
    for step in json.loads(document.read_text(encoding="utf-8"))["steps"] if document.is_file() else ():
        image = postprocess(image, step, plan["dataset"]["regions"])
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(original.GetDirection())
    image = sitk.DICOMOrient(image, code)
    image.CopyInformation(original)
    values = plan["dataset"]["labels"].values()
    return sitk.Cast(image, sitk.sitkUInt8) if min(values) >= 0 and max(values) < 256 else image


def postprocess(image: sitk.Image, step: dict[str, Any], regions: dict[str, Any]) -> sitk.Image:
    """Apply one step of postprocessing.json."""
    values = sitk.GetArrayFromImage(image)
    region = regions[step["region"]]
    mask = sitk.GetImageFromArray(np.isin(values, region["labels"]).astype(np.uint8))
    if step["action"] == "fill_holes":
        filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(mask, fullyConnected=False)) > 0
        values[filled & (values == 0)] = region["value"]
    else:
        components = sitk.GetArrayFromImage(sitk.ConnectedComponent(mask, True))
        sizes = np.bincount(components.ravel())
        kept = sizes * math.prod(image.GetSpacing()) / 1000 >= (step["volume_ml"] or 0)
        if step["action"] == "keep_largest" and len(sizes) > 1:
            kept = np.arange(len(sizes)) == 1 + np.argmax(sizes[1:])
        kept[0] = True
        earlier = list(itertools.takewhile(lambda name: name != step["region"], regions))
        around = [regions[n]["value"] for n in earlier if set(region["labels"]) < set(regions[n]["labels"])]
        values[~kept[components]] = around[-1] if around else 0
    result = sitk.GetImageFromArray(values)
    result.CopyInformation(image)
    return result


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sitk.WriteImage(segment(sys.argv[1:-1], Path(__file__).parent), sys.argv[-1], useCompression=True)
