"""Which files of a folder are images and labels of which case, told by their names alone."""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from autoseg.data.cases import Case
from autoseg.data.dicom import is_dicom_folder
from autoseg.data.formats import FILE_ENDINGS, without_ending
from autoseg.data.problems import Problem, make_problem

CHANNEL_FILE = re.compile(r"(.+)_(\d{4})")
MAX_NAMED = 5

Files = dict[str, list[Path]]
"""Name without ending to the files of that name; more than one is a mistake."""


def list_volumes(folder: Path, endings: tuple[str, ...] = FILE_ENDINGS) -> Files:
    """Return the volume files of a folder by name without ending; hidden files are left out."""
    found: Files = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem = without_ending(path.name, endings)
        if stem and not path.name.startswith(".") and not path.is_dir():
            found.setdefault(stem, []).append(path)
    return found


def list_images(folder: Path, endings: tuple[str, ...] = FILE_ENDINGS) -> Files:
    """Return the volume files of a folder and its subfolders of DICOM slices, by name without ending."""
    found = list_volumes(folder, endings)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith(".") and is_dicom_folder(path):
            found.setdefault(path.name, []).append(path)
    return found


def walk_files(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders down to ``depth``, hidden ones left out."""
    for root, folders, files in os.walk(folder, followlinks=True):
        level = len(Path(root).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if level < depth else []
        yield from (Path(root) / name for name in sorted(files) if not name.startswith("."))


def number_channels(
    images: Mapping[str, list[Path]], names: Collection[str], num_channels: int
) -> Iterator[tuple[str, int, Path]]:
    """Yield case, channel number and file of each image; a file that holds all channels of its case has the number -1.

    Args:
        images: by name without ending.
        names: cases that are known otherwise, from their labels.
        num_channels: where it is 1, a number at the end belongs to the name (scan_0042), unless a sibling ends in
            _0000.
    """
    for stem, paths in images.items():
        match = CHANNEL_FILE.fullmatch(stem)
        if match and match.group(1) not in names:
            too_large = num_channels == 1 or int(match.group(2)) >= num_channels
            if stem in names or (too_large and f"{match.group(1)}_0000" not in images):
                match = None
        for path in paths:
            yield (match.group(1), int(match.group(2)), path) if match else (stem, -1, path)


def pair(
    numbered: Iterable[tuple[str, int, Path]], labels: Files | None, num_channels: int
) -> tuple[list[Case], list[Problem]]:
    """Return the complete cases, and what is wrong with the others.

    Args:
        numbered: case, channel number and file of each image (``number_channels``).
        labels: the label files by case; None where cases need none.
        num_channels: of the dataset.
    """
    images: dict[str, dict[int, list[Path]]] = {}
    for name, number, path in numbered:
        images.setdefault(name, {}).setdefault(number, []).append(path)
    cases, problems = [], []
    for name in sorted({*images, *(labels or {})}):
        found = [
            *_image_problems(name, images.get(name, {}), num_channels),
            *(_label_problems(name, labels.get(name, [])) if labels is not None else []),
        ]
        problems += found
        if not found:
            files = images[name]
            paths = tuple(files[-1] * num_channels) if -1 in files else tuple(files[n][0] for n in range(num_channels))
            cases.append(Case(name, paths, labels[name][0] if labels else None))
    return cases, problems


def summarise(names: Sequence[str]) -> str:
    """Return the first few of ``names`` and how many more there are."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _image_problems(name: str, files: Mapping[int, list[Path]], num_channels: int) -> list[Problem]:
    if not files:
        return [
            make_problem(
                "missing file", "there is a label but no image", "add the image, or remove the label", case=name
            )
        ]
    doubled = [f"{path.name} and {paths[0].name}" for paths in files.values() for path in paths[1:]]
    if -1 in files and len(files) > 1:
        doubled.append(" and ".join(paths[0].name for paths in files.values()))
    if doubled:
        found = f"{summarise(doubled)} are the same channel of the same case"
        return [make_problem("channels", found, "keep one of them", case=name)]
    numbers, expected = set(files), {-1} if -1 in files else set(range(num_channels))
    problems = []
    for sort, wrong, remedy in (
        ("missing", expected - numbers, "add them"),
        (f"one too many: {num_channels} declared", numbers - expected, "remove them, or declare more channels"),
    ):
        if wrong:
            found = f"channel files {[f'_{n:04d}' for n in sorted(wrong)]} are {sort}"
            problems.append(make_problem("channels", found, remedy, case=name))
    return problems


def _label_problems(name: str, paths: list[Path]) -> list[Problem]:
    if not paths:
        found = "there is no label for this image"
        return [make_problem("missing file", found, "add the label, or move the image away", case=name)]
    if len(paths) > 1:
        found = f"{' and '.join(path.name for path in paths)} are the label of the same case"
        return [make_problem("channels", found, "keep one of them", case=name)]
    return []
