"""Measurements of single cases on disk: what is unchanged is not read again, and parts measured anywhere merge.

One file a case, named like it, holds what ``measure_case`` found and what it was found in: the files' sizes and times,
the declared labels and the version of the measurement. Folders of such files from several machines are merged by
copying them together.
"""

import zlib
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import Field

from autoseg.data.cases import Case, Dataset
from autoseg.data.geometry import Geometry
from autoseg.data.labels import Labels
from autoseg.data.problems import Problem, relative_name
from autoseg.documents import Document, parse_document, write_beside
from autoseg.errors import DocumentError
from autoseg.fingerprint.measure import Foreground, MeasuredCase

SCHEMA: Literal["autoseg.measured.1"] = "autoseg.measured.1"


class InputFile(Document):
    """A raw file as it was when it was read, its name relative to the dataset's folder."""

    name: str
    size: int
    modified_ns: int


class Inputs(Document):
    """What a measurement depends on."""

    case: str
    files: tuple[InputFile, ...]
    labels: Labels | None
    num_channels: int
    max_values: int


class _Measured(Document):
    """All of a measurement but its arrays."""

    schema_: Literal["autoseg.measured.1"] = Field(alias="schema")
    inputs: Inputs
    problems: tuple[Problem, ...]
    geometry: Geometry
    shape_after_crop: tuple[int, int, int]
    voxels: dict[int, int]
    moments: tuple[tuple[float, float, float, float], ...]
    digest: str


def describe_inputs(case: Case, dataset: Dataset, max_values: int) -> Inputs | None:
    """Return what the measurement of a case depends on, or None if a file is not there."""
    paths = dict.fromkeys([*case.images, *([case.label] if case.label else [])])
    try:
        single = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        states = [(file, file.stat()) for file in single]
    except OSError:
        return None
    files = tuple(
        InputFile(name=relative_name(path, dataset.folder), size=state.st_size, modified_ns=state.st_mtime_ns)
        for path, state in states
    )
    return Inputs(
        case=case.name, files=files, labels=dataset.labels, num_channels=len(case.images), max_values=max_values
    )


def read_measured(folder: Path, inputs: Inputs) -> MeasuredCase | None:
    """Return the kept measurement of just these ``inputs``, or None if there is none or it is unreadable."""
    try:
        with np.load(_path(folder, inputs.case), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        about = parse_document(bytes(arrays.pop("about")).decode(), _Measured, where=inputs.case)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, DocumentError):
        # none yet, cut short, or of another version
        return None
    return _assemble(about, arrays) if about.inputs == inputs else None


def write_measured(folder: Path, inputs: Inputs, case: MeasuredCase) -> None:
    """Keep the measurement of a case without errors."""
    folder.mkdir(parents=True, exist_ok=True)
    about = _Measured(
        schema=SCHEMA, inputs=inputs, problems=case.problems, geometry=_known(case.geometry),
        shape_after_crop=case.shape_after_crop, voxels=dict(case.voxels),
        moments=tuple((part.mean, part.variance, part.min, part.max) for part in case.foreground),
        digest=case.digest.hex(),
    )  # fmt: skip
    arrays: dict[str, Any] = {f"components_{value}": volumes for value, volumes in case.components.items()}
    for channel, part in enumerate(case.foreground):
        arrays |= {f"values_{channel}": part.values, f"counts_{channel}": part.counts}
    text = about.model_dump_json(by_alias=True)
    with write_beside(_path(folder, inputs.case)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, about=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)


def _assemble(about: _Measured, arrays: dict[str, Any]) -> MeasuredCase:
    moments = enumerate(about.moments)
    return MeasuredCase(
        name=about.inputs.case,
        problems=about.problems,
        geometry=about.geometry,
        shape_after_crop=about.shape_after_crop,
        voxels=about.voxels,
        components={
            int(name.removeprefix("components_")): array
            for name, array in arrays.items()
            if name.startswith("components_")
        },
        foreground=tuple(
            Foreground(*four, arrays[f"values_{channel}"], arrays[f"counts_{channel}"]) for channel, four in moments
        ),
        digest=bytes.fromhex(about.digest),
    )


def _known(geometry: Geometry | None) -> Geometry:
    if geometry is None:
        raise ValueError("a case with errors has no measurement to keep")
    return geometry


def _path(folder: Path, case: str) -> Path:
    return folder / f"{case}.npz"
