"""Probabilities on the grid of the image file, written piece by piece as a compressed array."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import blosc2
import numpy as np

from autoseg.documents import write_beside
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import CaseProperties
from autoseg.preprocess.resample import Floats
from autoseg.preprocess.restore import Box, OnProbabilities, part_to_file


def probabilities_path(segmentation: Path) -> Path:
    """Return where the probabilities of a segmentation stand: CASE_probabilities.b2nd beside CASE.nii.gz."""
    name = segmentation.name.removesuffix(".gz")
    return segmentation.with_name(f"{name.rpartition('.')[0]}_probabilities.b2nd")


@contextmanager
def write_probabilities(path: Path, properties: CaseProperties, plan: Plan) -> Iterator[OnProbabilities]:
    """Yield a function that takes the parts that ``restore`` gives; the file appears once all of them are written.

    It holds float16 (R, Z, Y, X) along the axes of the image file: the classes from the background on, or the regions.
    Outside the crop the background has 1 and everything else 0. Read it with ``blosc2.open(path)[:]``.
    """
    labels = plan.dataset.label_scheme
    with write_beside(path) as temporary:
        shape = (labels.num_outputs, *properties.geometry.shape)
        array = blosc2.zeros(shape, dtype=np.dtype(np.float16), urlpath=str(temporary), mode="w")
        if not labels.overlapping:
            for index in range(shape[1]):
                array[0, index] = np.ones(shape[2:], dtype=np.float16)

        def write(box: Box, probabilities: Floats) -> None:
            place, part = part_to_file(box, probabilities, properties, plan)
            array[(slice(None), *place)] = part.astype(np.float16)

        yield write
