"""Every metric against other implementations: ``python tests/benchmarks/metrics.py DATA OUTPUT``.

DATA holds raw datasets in nnU-Net's form. Each case's label is compared with that of the next case, on its own grid,
and with itself moved by a voxel: real shapes, small and large errors. Writes OUTPUT.json and OUTPUT.md.
With ``--speed`` a synthetic 512 x 512 x 400 liver is timed against MONAI as well.
"""

import argparse
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import surface_distance as oracle
from scipy import ndimage

import autoseg
from autoseg.data.labels import Labels
from autoseg.data.volumes import read_label
from autoseg.documents import write_text
from autoseg.evaluate.evaluate import Scoring, evaluate_case

TOLERANCE = 2.0
LABELS = Labels.from_names({"background": 0, "object": 1})
SOURCES = {
    "dice": "surface-distance", "surface_dice": "surface-distance", "hausdorff_95": "surface-distance",
    "average_surface_distance": "surface-distance", "iou": "numpy", "sensitivity": "numpy", "precision": "numpy",
    "volume_difference_ml": "SimpleITK", "lesion_f1_10": "scipy's assignment", "lesion_f1_50": "scipy's assignment",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cases", type=int, default=12, help="of each dataset")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    deviations: dict[str, list[float]] = {name: [] for name in SOURCES}
    num_pairs: dict[str, int] = {}
    for dataset, reference, predicted, spacing in _pairs(options.data, options.cases):
        num_pairs[dataset] = num_pairs.get(dataset, 0) + 1
        ours = evaluate_case(reference.astype(np.uint8), predicted.astype(np.uint8), LABELS, spacing,
                             Scoring(TOLERANCE, ("object",)))["object"]  # fmt: skip
        for name, value in _theirs(reference, predicted, spacing).items():
            deviations[name].append(abs(value - ours[name]))
    result = {
        "autoseg": autoseg.__version__,
        "pairs": num_pairs,
        "largest_deviation": {name: max(values) for name, values in deviations.items()},
        "sources": SOURCES,
        "speed": _time_against_monai() if options.speed else None,
    }
    write_text(options.output.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    write_text(options.output.with_suffix(".md"), _page(result))


def _pairs(data: Path, limit: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, tuple[float, ...]]]:
    for folder in sorted(data.glob("Dataset*")):
        paths = sorted((folder / "labelsTr").iterdir())[: limit + 1]
        for first, second in itertools.pairwise(paths):
            volume, other = read_label(first), read_label(second)
            reference = volume.array[0]
            common = np.zeros_like(reference)
            part = tuple(slice(0, min(a, b)) for a, b in zip(reference.shape, other.array[0].shape))
            common[part] = other.array[0][part]
            for value in np.unique(reference)[1:]:
                mask = reference == value
                yield folder.name, mask, np.roll(mask, 1, 2), volume.geometry.spacing
                if (common == value).any():
                    yield folder.name, mask, common == value, volume.geometry.spacing


def _theirs(reference: np.ndarray, predicted: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    found = oracle.compute_surface_distances(reference, predicted, spacing)
    there, back = oracle.compute_average_surface_distance(found)
    weights = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    both = np.logical_and(reference, predicted).sum()
    return {
        "dice": oracle.compute_dice_coefficient(reference, predicted),
        "surface_dice": oracle.compute_surface_dice_at_tolerance(found, TOLERANCE),
        "hausdorff_95": oracle.compute_robust_hausdorff(found, 95),
        "average_surface_distance": float(np.average([there, back], weights=weights)),
        "iou": both / np.logical_or(reference, predicted).sum(),
        "sensitivity": both / reference.sum(),
        "precision": both / predicted.sum(),
        "volume_difference_ml": _volume(predicted, spacing) - _volume(reference, spacing),
        "lesion_f1_10": _lesion_f1(reference, predicted, 0.1),
        "lesion_f1_50": _lesion_f1(reference, predicted, 0.5),
    }


def _volume(mask: np.ndarray, spacing: tuple[float, ...]) -> float:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(image)
    return float(shapes.GetPhysicalSize(1)) / 1000


def _lesion_f1(reference: np.ndarray, predicted: np.ndarray, threshold: float) -> float:
    """Assign lesions to each other by scipy's solver for the assignment problem, not by a matching of graphs."""
    from scipy.optimize import linear_sum_assignment

    first, num_first = ndimage.label(reference, np.ones((3, 3, 3)))
    second, num_second = ndimage.label(predicted, np.ones((3, 3, 3)))
    hit = np.zeros((num_first, num_second))
    for one, box in enumerate(ndimage.find_objects(first)):
        lesion = first[box] == one + 1
        for other in np.unique(second[box][lesion]):
            if other:
                common = np.sum(lesion & (second[box] == other))
                hit[one, other - 1] = common / (lesion.sum() + (second == other).sum() - common) >= threshold
    return 2 * hit[linear_sum_assignment(-hit)].sum() / (num_first + num_second)


def _time_against_monai() -> dict[str, Any]:
    import monai
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    shape, spacing = (400, 512, 512), (1.0, 0.8, 0.8)
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    reference, predicted = (
        sum(((a - c - s) / r) ** 2 for a, c, r in zip(axes, (200, 250, 210), (90, 110, 130))) < 1 for s in (0, 4)
    )
    timed: dict[str, tuple[float, float]] = {}

    def time(tool: str, function: Callable[[], Any]) -> Any:
        wall, cpu = perf_counter(), process_time()
        found = function()
        timed[tool] = perf_counter() - wall, process_time() - cpu
        return found

    def run_monai() -> float:
        first, second = (torch.from_numpy(mask)[None, None] for mask in (predicted, reference))
        hausdorff = compute_hausdorff_distance(first, second, percentile=95, spacing=spacing)
        compute_surface_dice(first, second, [TOLERANCE], spacing=spacing, use_subvoxels=True)
        compute_average_surface_distance(first, second, symmetric=True, spacing=spacing)
        return float(hausdorff)

    values = [mask.astype(np.uint8) for mask in (reference, predicted)]
    ours = time("autoseg", lambda: evaluate_case(*values, LABELS, spacing, Scoring(TOLERANCE)))
    return {
        "label": "an ellipsoid of 90 x 110 x 130 voxels in 400 x 512 x 512",
        "autoseg": f"all {len(ours['object'])} metrics", "monai": f"{monai.__version__}: HD95, surface Dice, ASD",
        "hausdorff_95": {"autoseg": ours["object"]["hausdorff_95"], "monai": time("monai", run_monai)},
        "many": f"all {len(ours['object'])} metrics and the lesions of 100 spheres of 100 classes in 200 x 400 x 400",
        "many_scored": len(time("many", _score_many)),
        "seconds": {tool: wall for tool, (wall, _) in timed.items()},
        "cpu_seconds": {tool: cpu for tool, (_, cpu) in timed.items()},
    }  # fmt: skip


def _score_many() -> dict[str, Any]:
    """Score 100 spheres, each of another class, against themselves moved by two voxels."""
    labels = Labels.from_names({"background": 0, **{f"class {n}": n for n in range(1, 101)}})
    reference = np.zeros((200, 400, 400), dtype=np.uint8)
    sphere = sum((axis - 17.5) ** 2 for axis in np.ogrid[:36, :36, :36]) < 17**2
    for index, (z, y, x) in enumerate(itertools.product(range(4), range(5), range(5)), start=1):
        box = tuple(slice(start, start + 36) for start in (z * 50 + 7, y * 70 + 42, x * 70 + 42))
        reference[box][sphere] = index
    scoring = Scoring(TOLERANCE, tuple(labels.regions))
    return evaluate_case(reference, np.roll(reference, 2, 2), labels, (1.0, 0.8, 0.8), scoring)


def _page(result: dict) -> str:
    pairs = ", ".join(f"{count} of {name}" for name, count in result["pairs"].items())
    lines = [
        "# Metrics against other implementations\n",
        f"Made by `tests/benchmarks/metrics.py` with autoseg {result['autoseg']}. Pairs of real masks: {pairs}.\n",
        "| metric | compared with | largest deviation |\n|---|---|---|",
        *(f"| `{name}` | {SOURCES[name]} | {value:.1e} |" for name, value in result["largest_deviation"].items()),
    ]
    if speed := result["speed"]:
        wall, cpu, found = speed["seconds"], speed["cpu_seconds"], speed["hausdorff_95"]
        rows = [
            f"| {name}, {speed[tool]} | {wall[tool]:.1f} | {cpu[tool]:.1f} |"
            for tool, name in (("autoseg", "autoseg"), ("monai", "MONAI"))
        ]
        lines += [
            f"\nTime on {speed['label']}, on two cores that were busy otherwise, which stretches seconds and not CPU "
            "seconds:\n\n| | seconds | CPU seconds |\n|---|---|---|",
            *rows,
            f"\nautoseg is {wall['monai'] / wall['autoseg']:.1f} times as fast, and takes "
            f"{cpu['monai'] / cpu['autoseg']:.1f} times less of the processor. MONAI counts voxels of the surface "
            "instead of its area, except for the surface Dice, so its HD95 is another number: "
            f"{found['monai']:.2f} against {found['autoseg']:.2f} mm.\n",
            f"For {speed['many']}: {wall['many']:.1f} s ({cpu['many']:.1f} CPU seconds).",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
