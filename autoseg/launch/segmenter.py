"""A trained model as a Python object, for arrays and SimpleITK images in memory."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.data.volumes import Geometry, Volume
from autoseg.documents import read_document
from autoseg.errors import DatasetError, VolumeError, WorkspaceError
from autoseg.launch.first_stage import open_previous
from autoseg.launch.fold import choose_device
from autoseg.launch.inference import POSTPROCESSING_FILE
from autoseg.plan.plan import Plan
from autoseg.plurals import count
from autoseg.predict.model import Member, Model
from autoseg.predict.postprocess import Postprocessing
from autoseg.predict.predictor import predict_volume
from autoseg.preprocess.resample import Floats
from autoseg.preprocess.restore import Box
from autoseg.train.state import load_network

FOLD = re.compile(r"fold_(\d+)")
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class Segmenter:
    """Segments images in memory. Made by ``autoseg.load_model``."""

    def __init__(self, model: Model) -> None:
        """Segment with ``model``."""
        self._model = model

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that an image must have, in order."""
        return self._model.plan.dataset.channels

    @property
    def labels(self) -> Mapping[str, int]:
        """Names and values of the labels in a segmentation."""
        return self._model.plan.dataset.labels

    @overload
    def predict(self, image: sitk.Image | Sequence[sitk.Image], spacing: None = None) -> sitk.Image: ...

    @overload
    def predict(self, image: NDArray[Any], spacing: Sequence[float]) -> NDArray[Any]: ...

    def predict(
        self, image: NDArray[Any] | sitk.Image | Sequence[sitk.Image], spacing: Sequence[float] | None = None
    ) -> NDArray[Any] | sitk.Image:
        """Segment one image.

        Args:
            image: a SimpleITK image (several channels: a vector image, or one image a channel), whose geometry is
                respected; or an array (Z, Y, X) or (C, Z, Y, X) in LPS orientation: x towards the patient's left, y
                towards the back, z towards the head. It is not changed.
            spacing: mm (z, y, x) of an array; left out for SimpleITK images.

        Returns:
            label values: a SimpleITK image of the same geometry, or an array (Z, Y, X).

        Raises:
            VolumeError: the image is no 3-D volume, or holds NaN or infinity, or its channels lie on different grids.
            DatasetError: it has another number of channels than the model was trained with.
        """
        volume = self._as_volume(image, spacing)
        found = predict_volume(self._model, volume)
        return found if isinstance(image, np.ndarray) else _to_sitk(found, volume.geometry)

    def predict_probabilities(
        self, image: NDArray[Any] | sitk.Image | Sequence[sitk.Image], spacing: Sequence[float] | None = None
    ) -> Floats:
        """Return the probabilities (R, Z, Y, X), of the classes or of overlapping regions, on the image's own grid.

        The arguments are those of ``predict``. Outside the nonzero part of the image all but the background is 0.
        """
        volume = self._as_volume(image, spacing)
        labels = self._model.plan.dataset.label_scheme
        result = np.zeros((labels.num_outputs, *volume.geometry.shape), dtype=np.float32)
        if not labels.overlapping:
            result[0] = 1

        def keep(box: Box, part: Floats) -> None:
            result[(slice(None), *box)] = part

        predict_volume(self._model, volume, keep)
        return result

    def _as_volume(self, image: Any, spacing: Sequence[float] | None) -> Volume:
        volume = _from_array(image, spacing) if isinstance(image, np.ndarray) else _from_sitk(image, spacing)
        if len(volume.array) != len(self.channels):
            raise DatasetError(
                f"the image has {count(len(volume.array), 'channel')}, the model takes {len(self.channels)} "
                f"({', '.join(self.channels)})"
            )
        if not np.isfinite(volume.array.sum(dtype=np.float64)):
            raise VolumeError("the image", "holds NaN or infinity", "replace them with a number")
        return volume


def load_segmenter(folder: Path, *, folds: Sequence[int] = (), device: str = "auto") -> Segmenter:
    """Load the networks of a run folder or of a plan's folder of runs; the arguments are those of ``load_model``."""
    chosen = choose_device(device)
    runs = find_runs(folder, folds)
    plan = read_document(runs[0] / "plan.json", Plan)
    networks = tuple(load_network(run, plan, which="last", device=chosen) for run in runs)
    document = runs[0].parent / POSTPROCESSING_FILE
    learnt = read_document(document, Postprocessing) if document.is_file() else None
    member = Member(plan, networks, previous=open_previous(plan, runs, chosen))
    return Segmenter(Model((member,), chosen, learnt))


def find_runs(folder: Path, folds: Sequence[int] = ()) -> list[Path]:
    """Return the run folders that ``folder`` means: itself, or the folds in it.

    Raises:
        WorkspaceError: there is no trained fold, one that is asked for is missing, or one has no checkpoint.
    """
    if (folder / "checkpoints").is_dir() and not folds:
        return [folder]
    matches = {int(m.group(1)): path for path in folder.glob("fold_*") if (m := FOLD.fullmatch(path.name))}
    if not matches:
        raise WorkspaceError(f"{folder}: no trained model; name a run (.../fold_0), or the folder that holds the folds")
    if missing := sorted(set(folds) - set(matches)):
        raise WorkspaceError(f"{folder}: fold {missing[0]} is missing; folds there: {sorted(matches)}")
    runs = [matches[fold] for fold in (folds or sorted(matches))]
    if bare := [run for run in runs if not (run / "checkpoints" / "last.pt").is_file()]:
        raise WorkspaceError(
            f"{bare[0]}: has no checkpoints/last.pt; train this fold, or name the folds to use (trained: "
            f"{sorted(n for n, run in matches.items() if (run / 'checkpoints' / 'last.pt').is_file())})"
        )
    return runs


def _from_array(image: NDArray[Any], spacing: Sequence[float] | None) -> Volume:
    if spacing is None or len(spacing) != 3 or min(spacing) <= 0:
        remedy = "an array needs its spacing (z, y, x) in mm, three numbers above 0"
        raise VolumeError("the array", f"has the spacing {spacing}", remedy)
    if image.ndim not in (3, 4):
        raise VolumeError("the array", f"has {image.ndim} dimensions", "give (Z, Y, X) or (C, Z, Y, X)")
    array = (image[None] if image.ndim == 3 else image).astype(np.float32, copy=False)
    _, z, y, x = array.shape
    spacing_zyx = float(spacing[0]), float(spacing[1]), float(spacing[2])
    return Volume(array, Geometry(shape=(z, y, x), spacing=spacing_zyx, origin=(0.0, 0.0, 0.0), direction=IDENTITY))


def _from_sitk(image: sitk.Image | Sequence[sitk.Image], spacing: Sequence[float] | None) -> Volume:
    if spacing is not None:
        raise VolumeError("the image", f"has its own spacing, and {spacing} is given", "leave the argument out")
    images = [image] if isinstance(image, sitk.Image) else list(image)
    if wrong := [one for one in images if not isinstance(one, sitk.Image) or one.GetDimension() != 3]:
        found = f"{wrong[0].GetDimension()}-D" if isinstance(wrong[0], sitk.Image) else type(wrong[0]).__name__
        raise VolumeError("the image", f"is {found}", "give a 3-D SimpleITK image, one a channel, or a numpy array")
    geometries = [_geometry(one) for one in images]
    if any(geometry != geometries[0] for geometry in geometries):
        raise VolumeError("the image", "has channels on different grids", "resample them onto one")
    arrays = [np.atleast_3d(sitk.GetArrayFromImage(one)).astype(np.float32) for one in images]
    channels = [np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None] for array in arrays]
    return Volume(np.concatenate(channels), geometries[0])


def _geometry(image: sitk.Image) -> Geometry:
    return Geometry(
        shape=image.GetSize()[::-1],
        spacing=image.GetSpacing()[::-1],
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
    )


def _to_sitk(array: NDArray[Any], geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image
