"""What a previous stage found in each case, on the preprocessed grid of the stage that sees it.

A case is two files in a folder of its own: ``<case>.b2nd`` (classes) and ``<case>_found.json``, which is written last.
The folder's name is a hash of all that the classes depend on beside the images, see launch/first_stage.py.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.data.cases import Case
from autoseg.data.labels import Labels
from autoseg.documents import Document, read_document, write_document
from autoseg.errors import DocumentError, WorkspaceError
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import CaseProperties, SourceFile, describe_sources
from autoseg.preprocess.resample import coarse_axis, resample_classes
from autoseg.preprocess.store import write_array


class FoundCase(Document):
    """What a stored segmentation was made from.

    Attributes:
        fold: of the previous stage, whose network did not see the case.
        sources: the image files.
    """

    fold: int
    sources: tuple[SourceFile, ...]


def save_found(folder: Path, case: Case, fold: int, classes: NDArray[np.int16]) -> None:
    """Write what was found in a case; what stood there before is invalid from the first moment on."""
    path = folder / f"{case.name}_found.json"
    path.unlink(missing_ok=True)
    write_array(folder / f"{case.name}.b2nd", classes)
    write_document(path, FoundCase(fold=fold, sources=describe_sources(case, None)))


def is_found(folder: Path, case: Case, fold: int) -> bool:
    """Whether what was found in a case stands there whole, and neither its images nor the folds have changed since."""
    if not (folder / f"{case.name}.b2nd").is_file():
        return False
    try:
        known = read_document(folder / f"{case.name}_found.json", FoundCase)
    except DocumentError:
        return False
    return known == FoundCase(fold=fold, sources=describe_sources(case, None))


def bring_to_grid(
    values: NDArray[np.integer], labels: Labels, first: Plan, target: CaseProperties, plan: Plan
) -> NDArray[np.int16]:
    """Return what ``first`` found as classes on the preprocessed grid of ``plan``.

    Args:
        values: label values (z, y, x) in the case's crop, along the axes of ``first``, before resampling.
        labels: of both plans.
        first: the plan of the previous stage.
        target: the case, as preprocessed by ``plan``.
        plan: its rules for labels are used.

    Raises:
        WorkspaceError: the case's images have changed since it was preprocessed.
    """
    back = values.transpose(np.argsort(first.preprocessing.transpose))
    turned = np.ascontiguousarray(back.transpose(plan.preprocessing.transpose))
    if turned.shape != target.shape_before_resampling:
        raise WorkspaceError(
            f"case {target.name}: the images are {turned.shape} voxels after cropping, but were "
            f"{target.shape_before_resampling} when they were preprocessed; run autoseg_plan again"
        )
    spacing = plan.preprocessing.spacing_of(target.spacing)
    axis = coarse_axis(target.spacing, spacing, plan.preprocessing.separate_axis_threshold)
    classes = labels.encode(turned, where=f"case {target.name}")
    return resample_classes(classes, target.shape, order=plan.preprocessing.label_order, separate_axis=axis)
