"""What stands behind the numbers: the data's fingerprint and pictures of some cases, as far as they can be found."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.compare.gallery import Gallery, make_gallery
from autoseg.compare.runs import Runs
from autoseg.compare.scores import Scores
from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.errors import AutosegError
from autoseg.fingerprint.fingerprint import Fingerprint, read_fingerprint


@dataclass(frozen=True)
class Background:
    """What the report shows beside the runs; ``without_gallery`` says why there are no pictures."""

    fingerprint: Fingerprint | None = None
    gallery: Gallery | None = None
    without_gallery: str = ""


def gather_background(
    runs: Runs,
    table: Scores,
    workspace: Workspace,
    *,
    images: bool = True,
    on_case: Callable[[str], None] | None = None,
) -> Background:
    """Read the fingerprint and draw the pictures; what cannot be found is left out, with the reason."""
    try:
        fingerprint = read_fingerprint(workspace.fingerprint(runs.dataset))
    except AutosegError:
        fingerprint = None
    if not images:
        return Background(fingerprint, None, "No pictures: they were not asked for (--no-images).")
    if not any(run.predictions for run in runs.runs):
        return Background(fingerprint, None, "No pictures: no segmentations belong to these values.")
    try:
        gallery = make_gallery(runs, table, find_dataset(runs.dataset, workspace), on_case=on_case)
    except AutosegError as error:
        return Background(fingerprint, None, f"No pictures: the images were not found ({error}).")
    if not gallery.cases:
        problems = "; ".join(gallery.problems) or "no case that all plans have is in the dataset"
        return Background(fingerprint, None, f"No pictures: {problems}.")
    return Background(fingerprint, gallery)


def describe_data(fingerprint: Fingerprint) -> list[tuple[str, str]]:
    """Return what the data looks like as pairs of a word and a value; sizes and spacing in array order (z, y, x)."""
    shapes = np.array([case.shape for case in fingerprint.cases])
    spacings = np.array([case.spacing for case in fingerprint.cases])
    volumes = np.prod(spacings, axis=1) / 1000
    rows = [
        ("Cases", f"{len(fingerprint.cases)}"),
        ("Channels", ", ".join(fingerprint.channels)),
        ("Shape, voxels", _spread(shapes, "{:.0f}")),
        ("Spacing, mm", _spread(spacings, "{:.3g}")),
    ]
    for name, region in fingerprint.regions.items():
        labels = [label for label, value in fingerprint.labels.items() if value in region.labels]
        voxels = np.array([sum(case.label_voxels.get(label, 0) for label in labels) for case in fingerprint.cases])
        ml = (voxels * volumes)[voxels > 0]
        absent = f"; absent in {len(voxels) - len(ml)}" if len(ml) < len(voxels) else ""
        told = f"{np.median(ml):.3g} ({ml.min():.3g} to {ml.max():.3g})" if len(ml) else "in no case"
        rows.append((f"Volume of {name}, ml", told + absent))
    for channel, values in zip(fingerprint.channels, fingerprint.intensities):
        ends = f"{values.percentile_00_5:.4g} to {values.percentile_99_5:.4g}"
        told = f"{values.mean:.4g} ± {values.std:.3g} (0.5 to 99.5 %: {ends})"
        rows.append((f"Foreground intensity, {channel}", told))
    return rows


def _spread(values: NDArray[np.int64] | NDArray[np.float64], form: str) -> str:
    """Return the median of rows with the least and the largest of each column: ``36 × 51 × 35 (24 to 47 × ...)``."""
    middle = " × ".join(form.format(value) for value in np.median(values, axis=0))
    ends = " × ".join(f"{form.format(a)} to {form.format(b)}" for a, b in zip(values.min(axis=0), values.max(axis=0)))
    return f"{middle} ({ends})"
