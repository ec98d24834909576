"""Layouts of dataset folders: recognised, not configured.

A layout is one function that looks at a folder and returns its dataset, None if the folder is laid out otherwise, or
raises DatasetError where it is this layout with a mistake that keeps the rest from being read. A new layout is one more
function in LAYOUTS.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from autoseg.data.cases import Case, Dataset
from autoseg.data.description import (
    FILE_NAME,
    Description,
    channel_names,
    declared_labels,
    file_endings,
    lesion_regions,
    read_description,
    training_pairs,
)
from autoseg.data.formats import FILE_ENDINGS, without_ending
from autoseg.data.labels import Labels, Region
from autoseg.data.pairing import (
    CHANNEL_FILE,
    Files,
    list_images,
    list_volumes,
    number_channels,
    pair,
    summarise,
    walk_files,
)
from autoseg.data.problems import Problem, make_problem, relative_name
from autoseg.data.workspace import dataset_name
from autoseg.errors import DatasetError
from autoseg.plurals import count

DEPTH = 3
"""How many folders deep the files of a download are looked for."""

LITS_VOLUME = re.compile(r"volume-(\d+)\.nii(?:\.gz)?")
LITS_SEGMENTATION = re.compile(r"segmentation-(\d+)\.nii(?:\.gz)?")
LITS_LABELS = Labels(
    labels={"background": 0, "liver": 1, "tumour": 2},
    regions={"liver": Region(labels=(1, 2), value=1), "tumour": Region(labels=(2,), value=2)},
)
"""As the challenge scores it: the liver includes its tumours."""

ABDOMENCT_IMAGE = re.compile(r"(Case_\d{5})_0000\.nii\.gz")
ABDOMENCT_MASK = re.compile(r"(Case_\d{5})\.nii\.gz")
ABDOMENCT_LABELS = Labels.from_names({"background": 0, "liver": 1, "kidney": 2, "spleen": 3, "pancreas": 4})

Layout = Callable[[Path], Dataset | None]


def recognise(folder: Path) -> Dataset:
    """Return the dataset in ``folder``; what is wrong with single files stands in its ``problems``.

    Raises:
        DatasetError: no layout fits, or dataset.json has mistakes.
    """
    for layout in LAYOUTS:
        dataset = layout(folder)
        if dataset is not None:
            return dataset
    raise DatasetError(
        f"{folder}: no known layout; expected {FILE_NAME} with imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz "
        f"(nnU-Net), images/ and labels/, or LiTS, AbdomenCT-1K or a Decathlon task as downloaded"
    )


def decathlon(folder: Path) -> Dataset | None:
    """The Medical Segmentation Decathlon: dataset.json lists pairs of an image, 4-D where it has several channels, and
    a label.
    """
    description = read_description(folder)
    if description is None or description.channel_names or not training_pairs(description):
        return None
    channels = channel_names(folder, description)
    cases = []
    for entry in training_pairs(description):
        label = folder / entry["label"]
        name = without_ending(label.name) or label.name
        cases.append(Case(name, (folder / entry["image"],) * len(channels), label))
    return _finish(folder, description, channels, declared_labels(folder, description), cases, _missing(folder, cases))


def nnunet(folder: Path) -> Dataset | None:
    """nnU-Net v2: dataset.json, imagesTr/CASE_0000.ext (a number a channel), labelsTr/CASE.ext."""
    description = read_description(folder)
    if description is None:
        if (folder / "imagesTr").is_dir():
            declare = "it must declare channel_names, labels and file_ending"
            raise DatasetError(f"{folder / FILE_NAME}: no such file; {declare}")
        return None
    if description.dataset is None and not (folder / "imagesTr").is_dir():
        return None
    labels, channels = declared_labels(folder, description), channel_names(folder, description)
    if description.dataset is not None:
        cases, problems = _listed_cases(folder, description, len(channels))
        return _finish(folder, description, channels, labels, cases, problems)
    endings = file_endings(folder, description)
    images, label_files = list_images(folder / "imagesTr", endings), list_volumes(folder / "labelsTr", endings)
    cases, problems = pair(number_channels(images, label_files, len(channels)), label_files, len(channels))
    problems += _other_endings(folder, endings)
    return _finish(folder, description, channels, labels, cases, problems)


def lits(folder: Path) -> Dataset | None:
    """LiTS as downloaded: volume-N.nii and segmentation-N.nii, anywhere below the folder; test-volume-N.nii has no
    label.
    """
    if (folder / "imagesTr").is_dir():
        return None
    volumes, segmentations = _matching(folder, LITS_VOLUME), _matching(folder, LITS_SEGMENTATION)
    if not volumes or not segmentations:
        return None
    images = [(f"volume-{number}", -1, path) for number, paths in volumes.items() for path in paths]
    labels = {f"volume-{number}": paths for number, paths in segmentations.items()}
    return _from_download(folder, LITS_LABELS, *pair(images, labels, 1))


def abdomenct(folder: Path) -> Dataset | None:
    """AbdomenCT-1K as downloaded: Case_NNNNN_0000.nii.gz and the mask Case_NNNNN.nii.gz, anywhere below the folder."""
    if (folder / "imagesTr").is_dir():
        return None
    images, masks = _matching(folder, ABDOMENCT_IMAGE), _matching(folder, ABDOMENCT_MASK)
    if not images or not masks:
        return None
    both = {name: paths for name, paths in masks.items() if name in images}
    numbered = [(name, -1, path) for name, paths in images.items() for path in paths if name in both]
    cases, problems = pair(numbered, both, 1)
    alone = (("image", "mask", images, masks), ("mask", "image", masks, images))
    for what, other, names, others in alone:  # published in parts, and not all images with a mask
        if found := sorted(set(names) - set(others)):
            told = f"{count(len(found), what)} without {other}: {summarise(found)}"
            problems.append(make_problem("left out", told, "nothing, if that is meant"))
    return _from_download(folder, ABDOMENCT_LABELS, cases, problems)


def folders(folder: Path) -> Dataset | None:
    """Two folders, images/ and labels/: CASE.ext, or CASE_0000.ext and so on for several channels; dataset.json may add
    names.
    """
    if not (folder / "images").is_dir() or not (folder / "labels").is_dir():
        return None
    description = read_description(folder) or Description()
    endings = file_endings(folder, description)
    images, label_files = list_images(folder / "images", endings), list_volumes(folder / "labels", endings)
    if description.channel_names or description.modality:
        channels = channel_names(folder, description)
    else:
        channels = _guessed_channels(images, label_files)
    labels = declared_labels(folder, description) if description.labels is not None else None
    cases, problems = pair(number_channels(images, label_files, len(channels)), label_files, len(channels))
    return _finish(folder, description, channels, labels, cases, problems)


def read_declaration(folder: Path) -> tuple[tuple[str, ...], Labels, int | None]:
    """Return the channels and labels that nnU-Net's dataset.json declares, and its ``numTraining`` if it gives one.

    Raises:
        DatasetError: there is no such file, or it has mistakes.
    """
    description = read_description(folder)
    if description is None:
        raise DatasetError(f"{folder / FILE_NAME}: no such file; it must declare channel_names and labels")
    return channel_names(folder, description), declared_labels(folder, description), description.numTraining


LAYOUTS: tuple[Layout, ...] = (decathlon, nnunet, lits, abdomenct, folders)


def _listed_cases(folder: Path, description: Description, num_channels: int) -> tuple[list[Case], list[Problem]]:
    listed = (description.dataset or {}).items()
    cases = [
        Case(name, tuple(folder / image for image in files.images), folder / files.label) for name, files in listed
    ]
    problems = [
        make_problem(
            "channels",
            f"{count(len(case.images), 'image')} for {count(num_channels, 'channel')}",
            f"correct {FILE_NAME}",
            case=case.name,
        )
        for case in cases
        if len(case.images) != num_channels
    ]
    return cases, problems + _missing(folder, cases)


def _from_download(folder: Path, labels: Labels, cases: list[Case], problems: list[Problem]) -> Dataset:
    """Return the dataset of a download of CTs; a dataset.json beside it may say otherwise about channel and labels."""
    description = read_description(folder) or Description()
    channels = channel_names(folder, description) if description.channel_names or description.modality else ("CT",)
    if description.labels is not None:
        labels = declared_labels(folder, description)
    return _finish(folder, description, channels, labels, cases, problems)


def _finish(
    folder: Path,
    description: Description,
    channels: tuple[str, ...],
    labels: Labels | None,
    cases: list[Case],
    problems: list[Problem],
) -> Dataset:
    """Return the dataset of ``cases``, its problems and those of names and groups."""
    names = [case.name for case in cases]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(make_problem("dataset", "two cases have this name", "rename one of them", case=name))
    broken = {problem.case for problem in problems}
    if unknown := sorted(set(description.groups) - {*names, *broken}):
        found = f"groups names the unknown cases {summarise(unknown)}"
        problems.append(make_problem("dataset", found, "correct their names", file=FILE_NAME))
    if not cases and not any(problem.severity == "error" for problem in problems):
        problems.append(make_problem("dataset", "no labelled cases", "add images and labels"))
    ending = next((e for case in cases for e in FILE_ENDINGS if case.images[0].name.endswith(e)), FILE_ENDINGS[0])
    return Dataset(
        name=dataset_name(folder),
        folder=folder,
        channels=channels,
        labels=labels,
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        file_ending=ending,
        groups=description.groups,
        problems=tuple(problems),
        lesions=lesion_regions(folder, description, labels),
    )


def _matching(folder: Path, pattern: re.Pattern[str]) -> Files:
    """Return the files below ``folder`` whose name fits, by what the first group of ``pattern`` matches."""
    found: Files = {}
    for path in walk_files(folder, DEPTH):
        if match := pattern.fullmatch(path.name):
            found.setdefault(match.group(1), []).append(path)
    return found


def _guessed_channels(images: Files, labels: Files) -> tuple[str, ...]:
    """Return as many channels as the files have numbers, where these stand behind the name of a label."""
    matches = (CHANNEL_FILE.fullmatch(stem) for stem in images if stem not in labels)
    numbers = [int(match.group(2)) for match in matches if match and match.group(1) in labels]
    most = max(numbers, default=0)
    return tuple(f"channel {n}" for n in range(most + 1)) if most else ("image",)


def _other_endings(folder: Path, endings: tuple[str, ...]) -> list[Problem]:
    problems = []
    for part in ("imagesTr", "labelsTr"):
        taken = list_volumes(folder / part, endings)
        everything = {path.name for paths in list_volumes(folder / part).values() for path in paths}
        others = sorted(everything - {path.name for paths in taken.values() for path in paths})
        if others:
            found = f"{count(len(others), 'file')} in {part} not ending in {endings[0]}: {summarise(others)}"
            problems.append(make_problem("left out", found, "nothing, if that is meant", file=part))
    return problems


def _missing(folder: Path, cases: Iterable[Case]) -> list[Problem]:
    remedy = f"put it there, or take it out of {FILE_NAME}"
    return [
        make_problem("missing file", f"no such file, but {FILE_NAME} lists it", remedy,
                     case=case.name, file=relative_name(path, folder))
        for case in cases
        for path in dict.fromkeys((*case.images, *([case.label] if case.label else [])))
        if not path.exists()
    ]  # fmt: skip
