"""Finding a dataset by name or path, and the images of a folder for prediction."""

from dataclasses import replace
from pathlib import Path

from autoseg.data.cases import Case, Dataset
from autoseg.data.dicom import is_dicom_folder
from autoseg.data.formats import FILE_ENDINGS, without_ending
from autoseg.data.layouts import recognise
from autoseg.data.pairing import Files, list_images, number_channels, pair
from autoseg.data.problems import dataset_error, make_problem
from autoseg.data.splits import OWN_SPLITS
from autoseg.data.workspace import NUMBERED_FOLDER, Workspace, dataset_name
from autoseg.errors import DatasetError, nearest

__all__ = ["Case", "Dataset", "find_dataset", "find_folder", "find_images", "name_dataset"]


def name_dataset(name_or_path: str, workspace: Workspace) -> str:
    """Return the name that a dataset has in the workspace's folders; its raw data need not be there.

    Raises:
        DatasetError: it is called by its number, and no raw folder has that number.
    """
    if name_or_path.isdigit() and not workspace.plans(name_or_path).is_dir():
        return dataset_name(find_folder(name_or_path, workspace))
    return dataset_name(Path(name_or_path))


def find_dataset(name_or_path: str, workspace: Workspace, *, strict: bool = True) -> Dataset:
    """Return the dataset ``name_or_path``, with its files paired and its labels read; no volume is opened.

    It is looked up as ``raw/NAME``, then as ``raw/DatasetNNN_NAME`` and ``$nnUNet_raw/DatasetNNN_NAME`` (by its name,
    its number or both), then as a path to a folder.

    Args:
        name_or_path: of the dataset.
        workspace: where it is looked up.
        strict: whether errors of single files are raised; else they stand in the dataset's ``problems``.

    Raises:
        DatasetError: there is no such dataset, the name is ambiguous, or the dataset has mistakes (all in one message).
    """
    folder = find_folder(name_or_path, workspace)
    dataset = replace(recognise(folder), own_splits=_own_splits(folder, workspace))
    if strict and any(problem.severity == "error" for problem in dataset.problems):
        raise dataset_error(dataset.folder, dataset.problems)
    return dataset


def find_images(source: Path, channels: tuple[str, ...]) -> tuple[Case, ...]:
    """Return the cases of a folder of images without labels, or the one of a single file.

    CASE_0000.ext, CASE_0001.ext and so on are the channels of a case, CASE.ext has all of them (a 4-D file where there
    are several), and a folder of DICOM slices is an image like a file. ``source`` may be such a file or folder itself.

    Raises:
        DatasetError: there is no such folder, no image, or a case with missing or surplus channels.
    """
    if not source.exists():
        raise DatasetError(f"{source}: no such folder; name the folder that holds the images")
    images = _images_of(source)
    cases, problems = pair(number_channels(images, (), len(channels)), None, len(channels))
    if not images:
        found = (
            f"no images; expected CASE_0000 and so on, ending in {', '.join(FILE_ENDINGS)}, or folders of DICOM slices"
        )
        problems.append(make_problem("dataset", found, "name the folder that holds the images"))
    if problems:
        error = dataset_error(source, problems)
        raise DatasetError(f"{error} (channels: {', '.join(channels)})")
    return tuple(cases)


def _images_of(source: Path) -> Files:
    if is_dicom_folder(source):
        return {source.resolve().name: [source]}
    if source.is_dir():
        return list_images(source)
    name = without_ending(source.name)
    if name is None:
        raise DatasetError(f"{source}: has no known ending; known are {', '.join(FILE_ENDINGS)}")
    return {name.removesuffix("_0000"): [source]}


def find_folder(name: str, workspace: Workspace) -> Path:
    """Return the folder that ``-d`` means; see ``find_dataset``.

    Raises:
        DatasetError: there is no such folder, or the name is ambiguous.
    """
    path = Path(name).expanduser()
    roots = [workspace.raw, *([workspace.nnunet_raw] if workspace.nnunet_raw else [])]
    is_path = len(path.parts) != 1 or path.is_absolute()
    for root in () if is_path else roots:
        if (root / name).is_dir():
            return root / name
        matches = [folder for folder in _folders(root) if _is_called(folder, name)]
        if len(matches) > 1:
            raise DatasetError(
                f"{name!r} is ambiguous in {root}: {', '.join(m.name for m in matches)}; name one of these in full"
            )
        if matches:
            return matches[0]
    if path.is_dir():
        return path.resolve()
    raise _unknown(name, path if is_path else None, roots)


def _own_splits(folder: Path, workspace: Workspace) -> Path | None:
    """Return the dataset's ``splits_final.json``: beside its images, else where nnU-Net reads it, in
    ``$nnUNet_preprocessed`` (only for a dataset of ``$nnUNet_raw``, since the names of others mean nothing there)."""
    found = [folder / OWN_SPLITS]
    raw, preprocessed = workspace.nnunet_raw, workspace.nnunet_preprocessed
    if raw and preprocessed and folder.parent.resolve() == raw.resolve():
        found.append(preprocessed / folder.name / OWN_SPLITS)
    return next((path for path in found if path.is_file()), None)


def _unknown(name: str, path: Path | None, roots: list[Path]) -> DatasetError:
    if path is not None:
        return DatasetError(
            f"{path}: no such folder; -d takes the name of a dataset in {roots[0]} or the path of its folder"
        )
    known = sorted({dataset_name(folder) for root in roots for folder in _folders(root)})
    there = f"datasets there: {', '.join(known)}{nearest(name, known)}" if known else "there are no datasets there"
    return DatasetError(f"no dataset {name!r} in {' or '.join(str(root) for root in roots)}; {there}")


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else []


def _is_called(folder: Path, name: str) -> bool:
    match = NUMBERED_FOLDER.fullmatch(folder.name)
    if not match:
        return False
    number, own_name = match.groups()
    return name == own_name or (name.isdigit() and int(name) == int(number))
