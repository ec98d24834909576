"""Results from elsewhere: a long table of values, nnU-Net's result folders, folders of segmentations."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from autoseg.compare.report import COLUMNS
from autoseg.compare.runs import CASES, Run, Runs, Values
from autoseg.compare.summary import Fold
from autoseg.data.dataset import find_dataset, known_datasets
from autoseg.data.labels import Labels
from autoseg.data.pairing import list_volumes
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document
from autoseg.errors import AutosegError, WorkspaceError, nearest
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.plurals import count

NNUNET_METRICS = {"Dice": "dice"}
TOLERANCE_MM = 2.0
ADDED = "added"
"""What stands for the fold where results are of no known one."""

MAX_NAMED = 3
_FOLD = re.compile(r"fold_(\d+)")
_ENDINGS = re.compile(r"(\.nii(\.gz)?|\.nrrd|\.mha|\.mhd|\.tiff?|\.png|\.b2nd)$")
Table = dict[tuple[str, str, Fold], dict[str, Values]]


def read_cases_table(path: Path) -> list[Runs]:
    """Read the long table of ``cases.csv``: the runs of each dataset, sorted by its name; an empty value is undefined.

    A case that one plan has in a fold and another has not in the same fold is missing from the latter.

    Raises:
        WorkspaceError: no such file, other columns, or a row that cannot be understood or stands there twice.
    """
    table: Table = {}
    for dataset, plan, fold, case, region, metric, value in _read_rows(path):
        scores = table.setdefault((dataset, plan, fold), {}).setdefault(case, {}).setdefault(region, {})
        if metric in scores:
            raise WorkspaceError(
                f"{path}: {plan}, fold {fold}, {case}, {region}, {metric} stands there twice; keep one row"
            )
        scores[metric] = value
    if not table:
        raise WorkspaceError(f"{path}: no rows; expected one a value, in the columns {','.join(COLUMNS)}")
    return [_runs_of(table, dataset) for dataset in sorted({key[0] for key in table})]


def add_results(runs: Runs, name: str, folder: Path, workspace: Workspace, on_case: Callable[[str], None]) -> Runs:
    """Return ``runs`` with those of ``folder`` as plan ``name``.

    The folder is nnU-Net's (``summary.json`` in it, or in ``fold_<k>/validation``), holds autoseg's ``metrics.json``,
    or holds segmentations, which are scored against the dataset's references.

    Raises:
        WorkspaceError: no such folder, nothing in it that is understood, or a plan of this name is there already.
        DatasetError, VolumeError: the segmentations cannot be scored.
    """
    if name in runs.names:
        raise WorkspaceError(f"--add {name}={folder}: a plan of this name is there already; choose another name")
    if not folder.is_dir():
        raise WorkspaceError(f"--add {name}={folder}: no such folder")
    if not runs.runs:
        _check_name(runs.dataset, workspace)
    known = _case_names(runs, workspace)
    added = [
        replace(_added(name, fold, cases, place), remarks=_remarks(known, cases, place) if fold == ADDED else ())
        for fold, place, cases in _find_results(runs, folder, workspace, on_case)
    ]
    return replace(runs, runs=(*runs.runs, *added))


def _check_name(name: str, workspace: Workspace) -> None:
    """Refuse a name that no dataset has and that one nearly has: a report of its own would stand under it.

    Raises:
        WorkspaceError: so it is.
    """
    known = known_datasets(workspace)
    if name not in known and not workspace.plans(name).is_dir() and (meant := nearest(name, known)):
        raise WorkspaceError(f"-d {name}: there is no such dataset, and no run of it{meant}")


def _case_names(runs: Runs, workspace: Workspace) -> frozenset[str]:
    """Return the names of the dataset's cases; none where the dataset is not at hand."""
    try:
        return frozenset(case.name for case in find_dataset(runs.dataset, workspace, strict=False).cases)
    except AutosegError:
        return frozenset()


def _remarks(known: frozenset[str], cases: Mapping[str, Values], place: Path) -> tuple[str, ...]:
    """Return what is doubtful: cases that the results lack, and segmentations of no case, whose names may be wrong."""
    if not known:
        return ()
    told = []
    if lacking := sorted(known - cases.keys()):
        told.append(
            f"no results for {len(lacking)} of the dataset's {count(len(known), 'case')} ({_named(lacking)}); these "
            "are left out, and do not count as failed"
        )
    if strange := sorted({*cases, *list_volumes(place)} - known):
        told.append(f"{count(len(strange), 'result')} of no case of the dataset ({_named(strange)})")
    told += _outdated(place)
    return tuple(told)


def _outdated(place: Path) -> list[str]:
    """Return a remark if segmentations are newer than the scores that stand beside them."""
    scores = place / "metrics.json"
    if not scores.is_file():
        return []
    written = scores.stat().st_mtime
    newer = [name for name, paths in list_volumes(place).items() if any(p.stat().st_mtime > written for p in paths)]
    if not newer:
        return []
    return [f"{count(len(newer), 'segmentation')} newer than its metrics.json ({_named(newer)}); score them again"]


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")


def _added(name: str, fold: Fold, cases: dict[str, Values], place: Path) -> Run:
    return Run(name, fold, "finished", count(len(cases), "case"), cases=cases, predictions=place)


def _read_rows(path: Path) -> Iterator[tuple[str, str, Fold, str, str, str, float | None]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{path}: cannot be read ({error})") from None
    reader = csv.DictReader(text.splitlines())
    if absent := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
        raise WorkspaceError(f"{path}: column {absent[0]} is missing; expected the columns {','.join(COLUMNS)}")
    for number, row in enumerate(reader, start=2):
        words = [row[column] for column in COLUMNS]
        if any(word is None for word in words) or not all(words[:-1]):
            raise WorkspaceError(f"{path}, row {number}: an empty or missing field; only the value may be empty")
        dataset, plan, fold, case, region, metric, value = words
        yield dataset, plan, int(fold) if fold.isdecimal() else fold, case, region, metric, _number(value, path, number)


def _number(text: str, path: Path, row: int) -> float | None:
    try:
        value = float(text) if text.strip() else None
    except ValueError:
        raise WorkspaceError(f"{path}, row {row}: value {text!r} is no number; leave it empty if undefined") from None
    return value if value is not None and isfinite(value) else None


def _runs_of(table: Table, dataset: str) -> Runs:
    own = {(plan, fold): cases for (name, plan, fold), cases in table.items() if name == dataset}
    every: dict[Fold, dict[str, None]] = {}
    for (_, fold), cases in own.items():
        every.setdefault(fold, {}).update(dict.fromkeys(cases))
    runs = [
        Run(
            p,
            fold,
            "finished",
            count(len(cases), "case"),
            cases=cases,
            missing=tuple(c for c in every[fold] if c not in cases),
        )
        for (p, fold), cases in own.items()
    ]
    return Runs(dataset, tuple(sorted(runs, key=lambda run: (run.plan, str(run.fold).zfill(4)))))


def _find_results(
    runs: Runs, folder: Path, workspace: Workspace, on_case: Callable[[str], None]
) -> Iterator[tuple[Fold, Path, dict[str, Values]]]:
    """Yield fold, folder of the segmentations, and values."""
    labels = _labels(runs, workspace)
    folds = sorted(path for path in folder.glob("fold_*/validation/summary.json"))
    for path in folds or [path for path in (folder / "summary.json",) if path.is_file()]:
        matched = _FOLD.search(str(path.parent.relative_to(folder)))
        yield int(matched.group(1)) if matched else ADDED, path.parent, _read_nnunet(path, labels)
    if folds or (folder / "summary.json").is_file():
        return
    if (folder / "metrics.json").is_file():
        yield ADDED, folder, _read_metrics(folder / "metrics.json")
        return
    yield ADDED, folder, _score(runs, folder, workspace, on_case)


def _labels(runs: Runs, workspace: Workspace) -> dict[frozenset[int], str]:
    """Return what the regions are called, by their label values: as the runs say, else as the dataset does."""
    declared: Mapping[str, Any] = runs.labels
    if not declared:
        try:
            scheme = find_dataset(runs.dataset, workspace).labels
        except AutosegError:  # nothing but numbers is known, then
            return {}
        if scheme is None:
            return {}
        declared = {name: region.model_dump() for name, region in scheme.regions.items()}
    return {frozenset(region["labels"]): name for name, region in declared.items()}


def _read_nnunet(path: Path, labels: Mapping[frozenset[int], str]) -> dict[str, Values]:
    """Read nnU-Net's summary.json; its keys are labels (``1``) or regions (``(1, 2)``)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda text: None)
        found = {}
        for entry in content["metric_per_case"]:
            name = _ENDINGS.sub("", Path(entry["reference_file"]).name)
            found[name] = {_region(key, labels): _scores(scores) for key, scores in entry["metrics"].items()}
        return CASES.validate_python(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkspaceError(f"{path}: is no summary.json of nnU-Net ({type(error).__name__}: {error})") from None


def _region(key: str, labels: Mapping[frozenset[int], str]) -> str:
    values = frozenset(int(number) for number in re.findall(r"\d+", key))
    return labels.get(values, "label_" + "_".join(str(value) for value in sorted(values)))


def _scores(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    return {ours: scores[theirs] for theirs, ours in NNUNET_METRICS.items() if theirs in scores}


def _read_metrics(path: Path) -> dict[str, Values]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda text: None)
        return CASES.validate_python(content["cases"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(f"{path}: is no metrics.json of autoseg ({type(error).__name__})") from None


def _score(runs: Runs, folder: Path, workspace: Workspace, on_case: Callable[[str], None]) -> dict[str, Values]:
    """Score the segmentations of a folder by the dataset's references; cases without a segmentation are left out."""
    from autoseg.evaluate.evaluate import evaluate_folder

    there = list_volumes(folder)
    if not there:
        raise WorkspaceError(
            f"{folder}: neither summary.json of nnU-Net, nor metrics.json, nor segmentations CASE.nii.gz and the like"
        )
    dataset = find_dataset(runs.dataset, workspace)
    cases = [case for case in dataset.cases if case.name in there]
    if not cases:
        raise WorkspaceError(
            f"{folder}: no segmentation is named like a case of {dataset.name}, e.g. {dataset.cases[0].name}"
        )
    options: dict[str, Any] = {"tolerance_mm": _tolerance(runs), "lesions": dataset.lesions, "on_case": on_case}
    metrics = evaluate_folder(cases, folder, dataset.labels or _measured_labels(runs.dataset, workspace), **options)
    return metrics.cases


def _measured_labels(dataset: str, workspace: Workspace) -> Labels | None:
    """Return the labels that were found where none are declared: another value in a segmentation is then a mistake."""
    path = workspace.fingerprint(dataset)
    return read_document(path, Fingerprint).label_scheme if path.is_file() else None


def _tolerance(runs: Runs) -> float:
    found = (run.document.get("prediction", {}).get("surface_tolerance_mm") for run in runs.runs)
    return next((float(tolerance) for tolerance in found if tolerance is not None), TOLERANCE_MM)
