"""``dataset.json``: what it may say, in nnU-Net's and in the Decathlon's words, and what that comes down to."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from autoseg.data.formats import FILE_ENDINGS
from autoseg.data.labels import IGNORE_NAME, Labels
from autoseg.documents import Document, parse_document, read_document
from autoseg.errors import DatasetError, DocumentError, nearest

FILE_NAME = "dataset.json"
LESION_NAME = re.compile(r"lesion|tumou?r|metasta|nodule", re.IGNORECASE)
"""Regions of such a name mark lesions where dataset.json does not say which do."""


class CaseFiles(Document):
    """One entry of nnU-Net's optional ``dataset`` dictionary: paths, relative to the dataset's folder."""

    images: tuple[str, ...]
    label: str


class Description(Document):
    """The fields of dataset.json that matter here; others are the user's own. ``spacing`` is read with the pictures it
    is for.
    """

    model_config = ConfigDict(extra="ignore")
    channel_names: dict[str, str] | None = None
    modality: dict[str, str] | None = None
    labels: dict[str, Any] | None = None
    regions_class_order: tuple[int, ...] | None = None
    file_ending: str | None = None
    dataset: dict[str, CaseFiles] | None = None
    training: list[Any] | None = None
    groups: dict[str, str] = {}
    lesions: tuple[str, ...] | None = None
    numTraining: int | None = None  # noqa: N815  nnU-Net's name


def read_description(folder: Path) -> Description | None:
    """Return what the folder's dataset.json says; None if there is none.

    Raises:
        DatasetError: it is no valid JSON, or a field does not fit.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        return read_document(path, Description)
    except DocumentError as error:
        raise DatasetError(str(error)) from None


def training_pairs(description: Description) -> list[dict[str, str]]:
    """Return the Decathlon's pairs of ``image`` and ``label``; none where ``training`` is missing or something else."""
    pairs = description.training or []
    fits = all(
        isinstance(p, dict) and isinstance(p.get("image"), str) and isinstance(p.get("label"), str) for p in pairs
    )
    return pairs if fits else []


def channel_names(folder: Path, description: Description) -> tuple[str, ...]:
    """Return the names of the channels in their order.

    Raises:
        DatasetError: they are missing, or not numbered from 0.
    """
    named = description.channel_names or description.modality
    if not named:
        raise DatasetError(f'{folder / FILE_NAME}: channel_names is missing; add e.g. "channel_names": {{"0": "CT"}}')
    numbers = [str(n) for n in range(len(named))]
    if set(named) != set(numbers):
        raise DatasetError(f"{folder / FILE_NAME}: channel_names has the keys {list(named)}; expected {numbers}")
    return tuple(named[n] for n in numbers)


def file_endings(folder: Path, description: Description) -> tuple[str, ...]:
    """Return the endings that the files of the cases may have: the declared one, else all that are known.

    Raises:
        DatasetError: the declared one is not known.
    """
    ending = description.file_ending
    if ending is None:
        return FILE_ENDINGS
    if ending not in FILE_ENDINGS:
        known = ", ".join(FILE_ENDINGS)
        raise DatasetError(f"{folder / FILE_NAME}: file_ending {ending!r} is not supported; supported: {known}")
    return (ending,)


def declared_labels(folder: Path, description: Description) -> Labels:
    """Return the labels; nnU-Net's lists of values become regions.

    Raises:
        DatasetError: they are missing or contradict themselves.
    """
    where = str(folder / FILE_NAME)
    declared = description.labels
    if declared is None:
        raise DatasetError(f'{where}: labels is missing; add e.g. "labels": {{"background": 0, "liver": 1}}')
    if declared and all(key.isdigit() and isinstance(name, str) for key, name in declared.items()):
        declared = {name: int(key) for key, name in declared.items()}  # the Decathlon's way round
    values = {name: _label_values(where, name, value) for name, value in declared.items()}
    if all(len(entry) == 1 for entry in values.values()):
        plain = {name: entry[0] for name, entry in values.items()}
        foreground = {name: value for name, value in plain.items() if name not in ("background", IGNORE_NAME)}
        content: dict[str, dict[str, Any]] = {
            "labels": plain,
            "regions": {n: {"labels": [v], "value": v} for n, v in foreground.items()},
        }
    else:
        content = _region_content(where, values, description.regions_class_order)
    try:
        return parse_document(json.dumps(content), Labels, where=where)
    except DocumentError as error:
        raise DatasetError(str(error)) from None


def lesion_regions(folder: Path, description: Description, labels: Labels | None) -> tuple[str, ...]:
    """Return the regions that mark lesions: those that ``lesions`` lists, else those with a name that says so.

    Raises:
        DatasetError: it lists what is no region.
    """
    known = () if labels is None else tuple(labels.regions)
    if description.lesions is None:
        return tuple(name for name in known if LESION_NAME.search(name))
    if wrong := [name for name in description.lesions if name not in known]:
        there = f"regions: {', '.join(known)}{nearest(wrong[0], known)}" if known else "labels declares no region"
        raise DatasetError(f"{folder / FILE_NAME}: lesions names {wrong[0]!r}, which is no region; {there}")
    return description.lesions


def _region_content(
    where: str, values: Mapping[str, list[int]], order: tuple[int, ...] | None
) -> dict[str, dict[str, Any]]:
    regions = {name: entry for name, entry in values.items() if name not in ("background", IGNORE_NAME)}
    if order is None or len(order) != len(regions):
        found = "missing" if order is None else f"{list(order)}"
        expected = f"expected {len(regions)} values, one for each of {list(regions)}"
        raise DatasetError(f"{where}: regions_class_order is {found}; {expected}")
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
        expected = "expected an integer, or a list of integers for a region"
        raise DatasetError(f"{where}: label {name!r} is {value!r}; {expected}")
    return numbers
