"""Segmentations of whole cases, from image files to label files on the images' own grids."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from autoseg.data.cases import Case
from autoseg.data.volumes import Geometry, Volume, write_segmentation
from autoseg.errors import AutosegError, DatasetError
from autoseg.plan.plan import Plan, Preprocessing
from autoseg.predict.cascade import add_previous
from autoseg.predict.logits import LOGITS_BYTES, run_networks
from autoseg.predict.model import Model
from autoseg.predict.postprocess import postprocess
from autoseg.predict.probabilities import probabilities_path, write_probabilities
from autoseg.preprocess.case import CaseProperties, PreprocessedCase, preprocess_case, preprocess_volume
from autoseg.preprocess.resample import Floats
from autoseg.preprocess.restore import Box, OnProbabilities, Restorable, part_to_file, restore, restore_combinations

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl.gz", ".gipl")
"""Formats that segmentations are written in; images of other formats get the first."""

OnCase = Callable[[str, float], None]
OnError = Callable[[str, AutosegError], None]


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
    """A case as preprocessed for each of the model's stages, and the seconds that it took to prepare."""

    cases: tuple[PreprocessedCase, ...]
    seconds: float

    @property
    def properties(self) -> CaseProperties:
        return self.cases[0].properties


def predict_case(model: Model, case: Case) -> Prediction:
    """Segment one case; its label is not read.

    Raises:
        DatasetError: the case has another number of channels than the plan.
        VolumeError: an image cannot be used.
    """
    check_channels(case, model.plan)
    prepared = _prepare(case, model)
    start = perf_counter()
    segmentation = _finish(model, prepared.properties, run_networks(model, add_previous(model, prepared.cases)), None)
    return Prediction(segmentation, prepared.properties.geometry, prepared.seconds + perf_counter() - start)


def predict_volume(model: Model, volume: Volume, on_part: OnProbabilities | None = None) -> NDArray[Any]:
    """Return the label values (Z, Y, X) of an image (C, Z, Y, X) on its own grid; the image is not changed.

    Args:
        model: what segments.
        volume: the image.
        on_part: given a box of the image's grid and the probabilities (R, z, y, x) there, until all of it that is not
            cropped away is covered.
    """
    cases = _by_preprocessing(model, lambda plan: preprocess_volume("image", volume, plan))
    properties = cases[0].properties

    def turn(box: Box, part: Floats) -> None:
        if on_part:
            on_part(*part_to_file(box, part, properties, model.plan))

    return _finish(model, properties, run_networks(model, add_previous(model, cases)), turn if on_part else None)


def predict_combinations(
    model: Model, combinations: Sequence[Sequence[int]], case: Case, paths: Sequence[Path]
) -> None:
    """Segment a case with each combination of the model's members, running each network once, and write the results.

    Args:
        model: its members; a postprocessing is left out.
        combinations: indices of members.
        case: its image files.
        paths: of the segmentations, one a combination.

    Raises:
        DatasetError: the case has another number of channels than the plans.
        VolumeError: an image cannot be used.
    """
    check_channels(case, model.plan)
    prepared = _prepare(case, model)
    logits, properties = run_networks(model, add_previous(model, prepared.cases)), prepared.properties
    found = restore_combinations(logits, combinations, properties, model.plan, limit_bytes=LOGITS_BYTES)
    for path, segmentation in zip(paths, found):
        write_segmentation(path, segmentation, properties.geometry)


def predict_cases(
    model: Model,
    cases: Sequence[Case],
    output_folder: Path,
    *,
    on_case: OnCase | None = None,
    on_error: OnError | None = None,
    skip_existing: bool = False,
    save_probabilities: bool = False,
    ending: str | None = None,
) -> list[CaseTiming]:
    """Segment cases and write each to ``output_folder``, whole or not at all.

    While the network works on one case, one thread prepares the next and another writes the one before.

    Args:
        model: what segments.
        cases: their image files; labels are not read.
        output_folder: made if missing.
        on_case: told the name and the seconds of each case once it is written.
        on_error: told the name of a case that cannot be used, and why; the others go on. None: the error is raised.
        skip_existing: leave out cases whose segmentation stands already; they are not among the timings.
        save_probabilities: write CASE_probabilities.b2nd too: float16 (R, Z, Y, X) on the image's grid.
        ending: of the files, which chooses the format; None: that of each case's image.

    Raises:
        DatasetError: a case has another number of channels than the plan; found before anything is segmented.
        VolumeError: an image cannot be used and there is no ``on_error``; the cases before it are written.
    """
    for case in cases:
        check_channels(case, model.plan)
    targets = [output_folder / f"{case.name}{ending or ending_of(case.images[0])}" for case in cases]
    left = [(case, path) for case, path in zip(cases, targets) if not (skip_existing and path.is_file())]
    run = _Run(model, save_probabilities, on_case, on_error)
    with ThreadPoolExecutor(max_workers=1) as reader, ThreadPoolExecutor(max_workers=1) as writer:
        upcoming = [reader.submit(_prepare, case, model) for case, _ in left[:1]]
        for index, (case, path) in enumerate(left, start=1):
            prepared = upcoming[0]
            _wait_for(prepared)
            upcoming = [reader.submit(_prepare, following, model) for following, _ in left[index : index + 1]]
            run.segment(case, prepared, path, writer)
        run.settle()
    return run.timings


class _Run:
    """The cases of one call: the one that is being written, and those that are done."""

    def __init__(
        self, model: Model, save_probabilities: bool, on_case: OnCase | None, on_error: OnError | None
    ) -> None:
        self.timings: list[CaseTiming] = []
        self._model, self._save_probabilities = model, save_probabilities
        self._on_case, self._on_error = on_case, on_error
        self._writing: tuple[str, Future[float]] | None = None

    def segment(self, case: Case, prepared: Future[_Prepared], path: Path, writer: ThreadPoolExecutor) -> None:
        """Run the networks on a case, and leave the rest to the writer once it is done with the case before."""
        try:
            ready = prepared.result()
        except AutosegError as error:
            self.settle()
            self._report(case.name, error)
            return
        start = perf_counter()
        logits = run_networks(self._model, add_previous(self._model, ready.cases))
        seconds = ready.seconds + perf_counter() - start
        self.settle()
        self._writing = case.name, writer.submit(self._write, ready.properties, logits, path, seconds)
        if any(one.row_bytes for one in logits):
            self.settle()  # the networks still have to compute while the logits are read

    def settle(self) -> None:
        """Wait for the case that is being written."""
        if self._writing is None:
            return
        (name, future), self._writing = self._writing, None
        try:
            self.timings.append(CaseTiming(name, future.result()))
        except AutosegError as error:
            self._report(name, error)
            return
        if self._on_case:
            self._on_case(name, self.timings[-1].seconds)

    def _write(self, properties: CaseProperties, logits: Sequence[Restorable], path: Path, seconds: float) -> float:
        start = perf_counter()
        if self._save_probabilities:
            with write_probabilities(probabilities_path(path), properties, self._model.plan) as writer:
                segmentation = _finish(self._model, properties, logits, writer)
        else:
            segmentation = _finish(self._model, properties, logits, None)
        write_segmentation(path, segmentation, properties.geometry)
        return seconds + perf_counter() - start

    def _report(self, name: str, error: AutosegError) -> None:
        if self._on_error is None:
            raise error
        self._on_error(name, error)


def _wait_for(future: Future[Any]) -> None:
    """Wait until a future is done, whether it failed or not."""
    future.exception()


def _prepare(case: Case, model: Model) -> _Prepared:
    start = perf_counter()
    cases = _by_preprocessing(model, lambda plan: preprocess_case(case, plan, with_label=False))
    return _Prepared(cases, perf_counter() - start)


def _by_preprocessing(model: Model, make: Callable[[Plan], PreprocessedCase]) -> tuple[PreprocessedCase, ...]:
    """Return the case of each stage, made once for each distinct preprocessing."""
    made: list[tuple[Preprocessing, PreprocessedCase]] = []
    for member in model.stages:
        if all(preprocessing != member.plan.preprocessing for preprocessing, _ in made):
            made.append((member.plan.preprocessing, make(member.plan)))
    return tuple(next(case for p, case in made if p == member.plan.preprocessing) for member in model.stages)


def _finish(
    model: Model, properties: CaseProperties, logits: Sequence[Restorable], on_probabilities: OnProbabilities | None
) -> NDArray[Any]:
    """Return the segmentation on the image's own grid, postprocessed."""
    found = restore(logits, properties, model.plan, limit_bytes=LOGITS_BYTES, on_probabilities=on_probabilities)
    if model.postprocessing is None:
        return found
    labels = model.plan.dataset.label_scheme
    return postprocess(found, model.postprocessing.steps, labels, properties.geometry.spacing)


def ending_of(image: Path) -> str:
    """Return the ending of the segmentation of an image: the image's own, where that is a format of volumes."""
    return next((ending for ending in ENDINGS if image.name.endswith(ending) and image.is_file()), ENDINGS[0])


def check_channels(case: Case, plan: Plan) -> None:
    """Refuse a case that has another number of image files than the plan has channels.

    Raises:
        DatasetError: the message names the files.
    """
    expected = plan.dataset.channels
    if len(case.images) != len(expected):
        raise DatasetError(
            f"case {case.name}: {len(case.images)} image files found ({', '.join(path.name for path in case.images)}), "
            f"but plan {plan.name} is for {len(expected)} channels ({', '.join(expected)}); give one file a channel"
        )
