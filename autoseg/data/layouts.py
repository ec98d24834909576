"""Layouts of dataset folders: recognised, not configured.

A layout is one function that looks at a folder and returns its dataset, None if the folder is laid out otherwise, or raises
DatasetError where it is this layout with mistakes. A new layout is one more function in LAYOUTS.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from autoseg.data.cases import Case, Dataset, dataset_error
from autoseg.data.labels import IGNORE_NAME, Labels
from autoseg.data.volumes import FILE_ENDINGS
from autoseg.documents import Document, parse_document, read_document
from autoseg.errors import DatasetError, DocumentError

NUMBERED_FOLDER = re.compile(r"(?:Dataset|Task)(\d+)_(.+)")
CHANNEL_FILE = re.compile(r"(.+)_(\d{4})")
DESCRIPTION = "dataset.json"

Layout = Callable[[Path], Dataset | None]


class _CaseFiles(Document):
    """One entry of nnU-Net's optional ``dataset`` dictionary: paths, relative to the dataset's folder."""

    images: tuple[str, ...]
    label: str


class _Description(Document):
    """The fields of dataset.json that matter here; others are the user's own."""

    model_config = ConfigDict(extra="ignore")
    channel_names: dict[str, str] | None = None
    modality: dict[str, str] | None = None
    labels: dict[str, Any]
    regions_class_order: tuple[int, ...] | None = None
    file_ending: str | None = None
    dataset: dict[str, _CaseFiles] | None = None
    training: list[Any] | None = None
    groups: dict[str, str] = {}
    numTraining: int | None = None  # noqa: N815  nnU-Net's name


def recognise(folder: Path) -> Dataset:
    """Return the dataset in ``folder``.

    Raises:
        DatasetError: no layout fits, or the one that fits has mistakes.
    """
    for layout in LAYOUTS:
        dataset = layout(folder)
        if dataset is not None:
            return dataset
    raise DatasetError(f"{folder}: no known layout; expected nnU-Net's: {DESCRIPTION}, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz")


def decathlon(folder: Path) -> Dataset | None:
    """The Medical Segmentation Decathlon: dataset.json lists pairs of a 3-D image and its label under ``training``."""
    description = _describe(folder)
    if description is None or description.channel_names or not _lists_pairs(description):
        return None
    channels = _channels(folder, description)
    if len(channels) > 1:
        raise DatasetError(
            f"{folder}: {len(channels)} channels {list(channels)} in one 4-D file a case are not supported; "
            f"store one 3-D file a channel in nnU-Net's layout (CASE_0000, CASE_0001, ...)"
        )
    cases = []
    for pair in description.training or ():
        label = folder / pair["label"]
        cases.append(Case(_without_ending(label.name) or label.name, (folder / pair["image"],), label))
    return _finish(folder, description, cases, _missing_files(cases))


def nnunet(folder: Path) -> Dataset | None:
    """nnU-Net v2: dataset.json, imagesTr/CASE_0000.ext (a number a channel), labelsTr/CASE.ext."""
    description = _describe(folder)
    if description is None:
        if (folder / "imagesTr").is_dir():
            raise DatasetError(f"{folder / DESCRIPTION}: no such file; it must declare channel_names, labels and file_ending")
        return None
    num_channels = len(_channels(folder, description))
    if description.dataset is not None:
        cases = [
            Case(name, tuple(folder / image for image in files.images), folder / files.label)
            for name, files in description.dataset.items()
        ]
        problems = [f"{case.name}: {len(case.images)} images for {num_channels} channels" for case in cases if len(case.images) != num_channels]
        return _finish(folder, description, cases, problems + _missing_files(cases))
    cases, problems = _pair_by_name(folder, _file_ending(folder, description), num_channels)
    return _finish(folder, description, cases, problems)


def read_declaration(folder: Path) -> tuple[tuple[str, ...], Labels, int | None]:
    """Return the channels and labels that nnU-Net's dataset.json declares, and its ``numTraining`` if it gives one.

    Raises:
        DatasetError: there is no such file, or it has mistakes.
    """
    description = _describe(folder)
    if description is None:
        raise DatasetError(f"{folder / DESCRIPTION}: no such file; it must declare channel_names and labels")
    return _channels(folder, description), _labels(folder, description), description.numTraining


LAYOUTS: tuple[Layout, ...] = (decathlon, nnunet)


def dataset_name(folder: Path) -> str:
    """Return the folder's name without nnU-Net's ``DatasetNNN_`` or the Decathlon's ``TaskNN_``."""
    match = NUMBERED_FOLDER.fullmatch(folder.name)
    return match.group(2) if match else folder.name


def list_volumes(folder: Path, endings: Iterable[str] = FILE_ENDINGS) -> dict[str, list[Path]]:
    """Return the volume files of a folder by name without ending; hidden files are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem = _without_ending(path.name, endings)
        if stem and not path.name.startswith("."):
            found.setdefault(stem, []).append(path)
    return found


def channel_problem(name: str, numbers: Iterable[int], num_channels: int) -> str | None:
    """Return what is wrong with the channel numbers found for case ``name``, or None."""
    found, expected = set(numbers), set(range(num_channels))
    if missing := sorted(expected - found):
        return f"{name}: channel files {[f'_{n:04d}' for n in missing]} are missing"
    if surplus := sorted(found - expected):
        return f"{name}: channel files {[f'_{n:04d}' for n in surplus]} are one too many: {num_channels} declared"
    return None


def _pair_by_name(folder: Path, ending: str, num_channels: int) -> tuple[list[Case], list[str]]:
    """Return the cases of imagesTr and labelsTr that are complete, and what is wrong with the others."""
    images: dict[str, dict[int, Path]] = {}
    problems = []
    for stem, (path,) in list_volumes(folder / "imagesTr", [ending]).items():
        if match := CHANNEL_FILE.fullmatch(stem):
            images.setdefault(match.group(1), {})[int(match.group(2))] = path
        else:
            problems.append(f"{path}: its name has no channel number; expected {stem}_0000{ending}")
    labels = {stem: path for stem, (path,) in list_volumes(folder / "labelsTr", [ending]).items()}
    problems += [f"{path}: there is no image imagesTr/{name}_0000{ending}" for name, path in labels.items() if name not in images]
    cases = []
    for name, files in images.items():
        if name not in labels:
            problems.append(f"imagesTr/{name}: there is no label labelsTr/{name}{ending}")
        elif problem := channel_problem(f"imagesTr/{name}", files, num_channels):
            problems.append(problem)
        else:
            cases.append(Case(name, tuple(files[n] for n in range(num_channels)), labels[name]))
    if not images and not labels:
        others = sorted({"".join(p.suffixes) for p in (folder / "imagesTr").glob("*") if p.is_file()})
        problems.append(f"no cases: imagesTr has no files CASE_0000{ending}" + (f", only {others[:3]}" if others else ""))
    return cases, problems


def _finish(folder: Path, description: _Description, cases: list[Case], problems: list[str]) -> Dataset:
    """Return the dataset of ``cases``, or raise all ``problems`` and those of names and groups."""
    names = [case.name for case in cases]
    problems = problems + [f"{name}: two cases have this name" for name in sorted({n for n in names if names.count(n) > 1})]
    unknown = sorted(set(description.groups) - set(names))
    if unknown and not problems:
        problems.append(f"{DESCRIPTION}: groups names unknown cases {unknown[:3]}")
    if not problems and not cases:
        problems.append("no labelled cases")
    if problems:
        raise dataset_error(folder, problems)
    return Dataset(
        name=dataset_name(folder),
        folder=folder,
        channels=_channels(folder, description),
        labels=_labels(folder, description),
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        file_ending=_file_ending(folder, description),
        groups=description.groups,
    )


def _describe(folder: Path) -> _Description | None:
    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    try:
        return read_document(path, _Description)
    except DocumentError as error:
        raise DatasetError(str(error)) from None


def _lists_pairs(description: _Description) -> bool:
    pairs = description.training
    return bool(pairs) and all(
        isinstance(p, dict) and isinstance(p.get("image"), str) and isinstance(p.get("label"), str) for p in pairs or ()
    )


def _channels(folder: Path, description: _Description) -> tuple[str, ...]:
    named = description.channel_names or description.modality
    if not named:
        raise DatasetError(f'{folder / DESCRIPTION}: channel_names is missing; add e.g. "channel_names": {{"0": "CT"}}')
    numbers = [str(n) for n in range(len(named))]
    if set(named) != set(numbers):
        raise DatasetError(f"{folder / DESCRIPTION}: channel_names has the keys {list(named)}; expected {numbers}")
    return tuple(named[n] for n in numbers)


def _file_ending(folder: Path, description: _Description) -> str:
    """Return the declared ending, else that of the first volume."""
    ending = description.file_ending
    if ending is None:
        first = next(iter(list_volumes(folder / "imagesTr").values()), [Path(FILE_ENDINGS[0])])[0]
        ending = next(e for e in FILE_ENDINGS if first.name.endswith(e))
    if ending not in FILE_ENDINGS:
        raise DatasetError(f"{folder / DESCRIPTION}: file_ending {ending!r} is not supported; supported: {', '.join(FILE_ENDINGS)}")
    return ending


def _labels(folder: Path, description: _Description) -> Labels:
    """Return the labels; nnU-Net's lists of values become regions."""
    where = str(folder / DESCRIPTION)
    declared = description.labels
    if declared and all(key.isdigit() and isinstance(name, str) for key, name in declared.items()):
        declared = {name: int(key) for key, name in declared.items()}  # the Decathlon's way round
    values = {name: _label_values(where, name, value) for name, value in declared.items()}
    if all(len(entry) == 1 for entry in values.values()):
        plain = {name: entry[0] for name, entry in values.items()}
        foreground = {name: value for name, value in plain.items() if name not in ("background", IGNORE_NAME)}
        content = {"labels": plain, "regions": {n: {"labels": [v], "value": v} for n, v in foreground.items()}}
    else:
        content = _region_content(where, values, description.regions_class_order)
    try:
        return parse_document(json.dumps(content), Labels, where=where)
    except DocumentError as error:
        raise DatasetError(str(error)) from None


def _region_content(where: str, values: dict[str, list[int]], order: tuple[int, ...] | None) -> dict[str, Any]:
    regions = {name: entry for name, entry in values.items() if name not in ("background", IGNORE_NAME)}
    if order is None or len(order) != len(regions):
        found = "missing" if order is None else f"{list(order)}"
        raise DatasetError(f"{where}: regions_class_order is {found}; expected {len(regions)} values, one for each of {list(regions)}")
    names = {entry[0]: name for name, entry in values.items() if len(entry) == 1}
    used = sorted({value for entry in values.values() for value in entry})
    return {
        "labels": {names.get(value, f"label_{value}"): value for value in used},
        "regions": {name: {"labels": entry, "value": value} for (name, entry), value in zip(regions.items(), order)},
    }


def _label_values(where: str, name: str, value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    numbers = [int(v) if isinstance(v, str) and v.lstrip("-").isdigit() else v for v in values]
    if not numbers or any(isinstance(v, bool) or not isinstance(v, int) for v in numbers):
        raise DatasetError(f"{where}: label {name!r} is {value!r}; expected an integer, or a list of integers for a region")
    return numbers


def _missing_files(cases: Iterable[Case]) -> list[str]:
    return [
        f"{path}: no such file, but {DESCRIPTION} lists it"
        for case in cases
        for path in (*case.images, *([case.label] if case.label else []))
        if not path.is_file()
    ]


def _without_ending(name: str, endings: Iterable[str] = FILE_ENDINGS) -> str | None:
    return next((name[: -len(ending)] for ending in endings if name.endswith(ending)), None)
