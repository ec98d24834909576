"""Finding a dataset by name or path, and the images of a folder for prediction."""

from collections.abc import Iterator
from pathlib import Path

from autoseg.data.cases import Case, Dataset, dataset_error
from autoseg.data.layouts import CHANNEL_FILE, NUMBERED_FOLDER, channel_problem, dataset_name, list_volumes, recognise
from autoseg.data.volumes import FILE_ENDINGS
from autoseg.data.workspace import Workspace
from autoseg.errors import DatasetError, nearest

__all__ = ["Case", "Dataset", "find_dataset", "find_folder", "find_images"]


def find_dataset(name_or_path: str, workspace: Workspace) -> Dataset:
    """Return the dataset ``name_or_path``, with its files paired and its labels read; no volume is opened.

    It is looked up as ``raw/NAME``, then as ``raw/DatasetNNN_NAME`` and ``$nnUNet_raw/DatasetNNN_NAME`` (by its name, its number or
    both), then as a path to a folder.

    Raises:
        DatasetError: there is no such dataset, the name is ambiguous, or the dataset has mistakes (all in one message).
    """
    return recognise(find_folder(name_or_path, workspace))


def find_images(folder: Path, channels: tuple[str, ...]) -> tuple[Case, ...]:
    """Return the cases of a folder of images without labels: CASE_0000.ext, CASE_0001.ext, ...; a single channel may also be CASE.ext.

    Raises:
        DatasetError: there is no such folder, no image, or a case with missing or surplus channels.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; name the folder that holds the images")
    found: dict[str, dict[int, Path]] = {}
    problems = []
    for name, number, path in _channel_files(folder, len(channels)):
        if number in found.setdefault(name, {}):
            problems.append(f"{path}: {found[name][number].name} is the same channel of the same case")
        found[name][number] = path
    problems += [p for name, files in found.items() if (p := channel_problem(name, files, len(channels)))]
    if not found:
        problems.append(f"no images; expected CASE_0000 and so on, ending in {', '.join(FILE_ENDINGS)}")
    if problems:
        raise dataset_error(folder, [f"{problem} (channels: {', '.join(channels)})" for problem in problems])
    return tuple(Case(name, tuple(files[n] for n in range(len(channels))), None) for name, files in sorted(found.items()))


def _channel_files(folder: Path, num_channels: int) -> Iterator[tuple[str, int, Path]]:
    """Yield case name, channel number and path of each volume.

    With a single channel a number at the end belongs to the name (scan_0042), unless a sibling ends in _0000.
    """
    volumes = list_volumes(folder)
    for stem, paths in volumes.items():
        match = CHANNEL_FILE.fullmatch(stem)
        numbered = match and (num_channels > 1 or f"{match.group(1)}_0000" in volumes)
        for path in paths:
            yield (match.group(1), int(match.group(2)), path) if match and numbered else (stem, 0, path)


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
            raise DatasetError(f"{name!r} is ambiguous in {root}: {', '.join(m.name for m in matches)}; name one of these in full")
        if matches:
            return matches[0]
    if path.is_dir():
        return path.resolve()
    raise _unknown(name, path if is_path else None, roots)


def _unknown(name: str, path: Path | None, roots: list[Path]) -> DatasetError:
    if path is not None:
        return DatasetError(f"{path}: no such folder; -d takes the name of a dataset in {roots[0]} or the path of its folder")
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
