"""Segmentations of whole cases, from image files to label files on the images' own grids."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from autoseg.data.cases import Case
from autoseg.data.volumes import Geometry, write_segmentation
from autoseg.errors import DatasetError
from autoseg.plan.plan import Plan
from autoseg.predict.sliding_window import predict_logits
from autoseg.preprocess.case import PreprocessedCase, preprocess_case, restore_segmentation

OnCase = Callable[[str, float], None]


@dataclass(frozen=True)
class Prediction:
    """A segmented case.

    Attributes:
        segmentation: label values (Z, Y, X) on the grid of the image file.
        geometry: of the image file.
        seconds: what preprocessing, network and export took together.
    """

    segmentation: NDArray[Any]
    geometry: Geometry
    seconds: float


@dataclass(frozen=True)
class CaseTiming:
    """What one case took, in seconds of its own: steps that ran beside another case's count in full."""

    name: str
    seconds: float


@dataclass(frozen=True)
class _Prepared:
    """A case that the network can be given, and the seconds that it took to prepare."""

    preprocessed: PreprocessedCase
    seconds: float


def predict_case(networks: Sequence[nn.Module], case: Case, plan: Plan, *, device: torch.device) -> Prediction:
    """Segment one case with the average of the networks' logits.

    Args:
        networks: in evaluation mode on ``device``, one a fold.
        case: its image files; a label is not read.
        plan: what the networks were trained with.
        device: where they compute.

    Raises:
        DatasetError: the case has another number of channels than the plan.
        VolumeError: an image cannot be used.
    """
    _check_channels(case, plan)
    return _segment(networks, _prepare(case, plan), plan, device)


def predict_cases(
    networks: Sequence[nn.Module],
    cases: Sequence[Case],
    plan: Plan,
    output_folder: Path,
    *,
    device: torch.device,
    on_case: OnCase | None = None,
    skip_existing: bool = False,
    ending: str = ".nii.gz",
) -> list[CaseTiming]:
    """Segment cases and write each to ``output_folder`` as CASE.nii.gz, whole or not at all.

    While the network works on one case, a thread prepares the next one: at most two cases are in memory.

    Args:
        networks: in evaluation mode on ``device``, one a fold.
        cases: their image files; labels are not read.
        plan: what the networks were trained with.
        output_folder: made if missing.
        device: where the networks compute.
        on_case: told the name and the seconds of each case once it is written.
        skip_existing: leave out cases whose segmentation stands already; they are not among the timings.
        ending: of the files, which chooses the format.

    Raises:
        DatasetError: a case has another number of channels than the plan; found before anything is segmented.
        VolumeError: an image cannot be used; the cases before it are written.
    """
    for case in cases:
        _check_channels(case, plan)
    targets = [output_folder / f"{case.name}{ending}" for case in cases]
    left = [(case, path) for case, path in zip(cases, targets) if not (skip_existing and path.is_file())]
    timings = []
    with ThreadPoolExecutor(max_workers=1) as background:
        upcoming = [background.submit(_prepare, case, plan) for case, _ in left[:1]]
        for index, (case, path) in enumerate(left, start=1):
            prepared = upcoming[0].result()
            upcoming = [background.submit(_prepare, following, plan) for following, _ in left[index : index + 1]]
            timing = CaseTiming(case.name, _segment_to_file(networks, prepared, plan, device, path))
            timings.append(timing)
            if on_case:
                on_case(timing.name, timing.seconds)
    return timings


def _prepare(case: Case, plan: Plan) -> _Prepared:
    start = perf_counter()
    return _Prepared(preprocess_case(case, plan, with_label=False), perf_counter() - start)


def _segment(networks: Sequence[nn.Module], prepared: _Prepared, plan: Plan, device: torch.device) -> Prediction:
    start = perf_counter()
    properties = prepared.preprocessed.properties
    logits = predict_logits(
        networks,
        torch.from_numpy(prepared.preprocessed.image),
        patch_size=plan.training.patch_shape,
        tile_step=plan.prediction.tile_step,
        mirror_axes=plan.prediction.mirror_axes,
        num_outputs=plan.dataset.label_scheme.num_outputs,
        device=device,
        precision=plan.training.precision,
    )
    segmentation = restore_segmentation(logits, properties, plan)
    return Prediction(segmentation, properties.geometry, prepared.seconds + perf_counter() - start)


def _segment_to_file(
    networks: Sequence[nn.Module], prepared: _Prepared, plan: Plan, device: torch.device, path: Path
) -> float:
    """Segment a case, write it, and return the seconds that all of it took."""
    prediction = _segment(networks, prepared, plan, device)
    start = perf_counter()
    write_segmentation(path, prediction.segmentation, prediction.geometry)
    return prediction.seconds + perf_counter() - start


def _check_channels(case: Case, plan: Plan) -> None:
    expected = plan.dataset.channels
    if len(case.images) != len(expected):
        raise DatasetError(
            f"case {case.name}: {len(case.images)} image files found ({', '.join(path.name for path in case.images)}), "
            f"but plan {plan.name} is for {len(expected)} channels ({', '.join(expected)}); give one file a channel"
        )
