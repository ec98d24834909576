"""A trained plan as one zip file, and its installation on another machine.

An archive comes from anywhere, so nothing in it is believed: only known names are unpacked, nothing outside the new
folder, documents are parsed strictly, networks are loaded as tensors alone (never as pickled code), and a plan that
names a module outside autoseg is refused, since loading it would run that module.
"""

import json
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from autoseg.data.workspace import Workspace
from autoseg.documents import read_document, write_beside
from autoseg.errors import AutosegError, PlanError, WorkspaceError
from autoseg.evaluate.evaluate import Metrics
from autoseg.launch.first_stage import RECORD_FILE as FIRST_STAGE_FILE
from autoseg.launch.first_stage import FoundContent
from autoseg.launch.fold import choose_folds, read_run_plan
from autoseg.launch.inference import POSTPROCESSING_FILE, results_of
from autoseg.launch.segmenter import find_runs
from autoseg.plan.plan import Plan
from autoseg.predict.postprocess import Postprocessing
from autoseg.train.state import load_network, read_checkpoint

MEMBERS = re.compile(
    r"fold_\d{1,3}/(plan\.json|previous\.json|checkpoints/last\.pt|validation/metrics\.json)|postprocessing\.json"
)
LARGEST_BYTES = 32 * 10**9
"""Of all files of an archive, unpacked."""


def pack_model(
    workspace: Workspace, dataset: str, plan_name: str, path: Path, *, folds: Sequence[int] = ()
) -> list[int]:
    """Write the networks of a plan's folds with their plans and scores into the zip ``path``; return the folds.

    Raises:
        WorkspaceError: the file exists already.
        PlanError: the plan has no trained fold, or not those asked for.
        TrainingError: a checkpoint is unreadable.
    """
    if path.exists():
        raise WorkspaceError(f"-o {path}: exists already; name a new file")
    folder = results_of(workspace, dataset) / plan_name
    used = choose_folds(workspace, dataset, plan_name, folds)
    with write_beside(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for fold in used:
            _pack_run(archive, workspace.fold(dataset, plan_name, fold))
        if (folder / POSTPROCESSING_FILE).is_file():
            archive.write(folder / POSTPROCESSING_FILE, POSTPROCESSING_FILE)
    return used


def install_model(workspace: Workspace, path: Path) -> Path:
    """Unpack a zip of ``pack_model`` into results/<its dataset>/<its plan>; return that folder.

    Raises:
        WorkspaceError: the file is no such archive, holds anything else, or the plan is there already.
        DocumentError, PlanError, TrainingError: a document or a network in it is not valid.
    """
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=workspace.root) as temporary:
        unpacked = Path(temporary) / "model"
        _unpack(path, unpacked)
        try:
            plan = _check(unpacked)
        except AutosegError as error:
            text = str(error).replace(f"{unpacked}/", "")
            raise type(error)(f"{path}: {text}") from None
        target = results_of(workspace, plan.dataset.name) / plan.name
        if target.exists():
            raise WorkspaceError(f"{target}: is there already; remove it first, or install in another workspace (-w)")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unpacked, target)
    return target


def _pack_run(archive: zipfile.ZipFile, run: Path) -> None:
    """Add one fold; of its checkpoint only what predicting needs."""
    plan = read_run_plan(run)
    checkpoint = read_checkpoint(run / "checkpoints" / "last.pt", plan)
    slim = {key: checkpoint[key] for key in ("schema", "plan_sha256", "epoch", "network")}
    archive.write(run / "plan.json", f"{run.name}/plan.json")
    if plan.previous_stage:
        archive.write(run / FIRST_STAGE_FILE, f"{run.name}/{FIRST_STAGE_FILE}")
    with archive.open(f"{run.name}/checkpoints/last.pt", "w", force_zip64=True) as file:
        torch.save(slim, file)
    if (run / "validation" / "metrics.json").is_file():
        archive.write(run / "validation" / "metrics.json", f"{run.name}/validation/metrics.json")


def _unpack(path: Path, folder: Path) -> None:
    if not path.is_file():
        raise WorkspaceError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if problem := next(_problems(members), None):
                raise WorkspaceError(f"{path}: {problem}; this is no model that autoseg_export has packed")
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise WorkspaceError(
            f"{path}: cannot be read as a zip file ({error}); copy it again, or pack it anew"
        ) from None


def _problems(members: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    names = [member.filename for member in members]
    for member in members:
        if not MEMBERS.fullmatch(member.filename):
            yield f"holds {member.filename!r}, which is not unpacked"
        if stat.S_ISLNK(member.external_attr >> 16):
            yield f"{member.filename} is a link, which is not unpacked"
    if len(set(names)) < len(names):
        yield "holds a file twice"
    if sum(member.file_size for member in members) > LARGEST_BYTES:
        yield f"holds more than {LARGEST_BYTES / 1e9:.0f} GB"
    if not any(name.endswith("last.pt") for name in names):
        yield "holds no network"


def _check(folder: Path) -> Plan:
    """Return the plan of an unpacked archive once everything in it is known to be valid."""
    runs = find_runs(folder)
    for run in runs:
        _refuse_outside_modules(run / "plan.json")
    plans = [read_document(run / "plan.json", Plan) for run in runs]
    if any((plan.name, plan.dataset) != (plans[0].name, plans[0].dataset) for plan in plans):
        raise PlanError("the folds are of different plans")
    for run, plan in zip(runs, plans):
        load_network(run, plan, which="last", device=torch.device("cpu"))
        if plan.previous_stage:
            read_document(run / FIRST_STAGE_FILE, FoundContent)
        if (run / "validation" / "metrics.json").is_file():
            read_document(run / "validation" / "metrics.json", Metrics)
    if (folder / POSTPROCESSING_FILE).is_file():
        read_document(folder / POSTPROCESSING_FILE, Postprocessing)
    return plans[0]


def _refuse_outside_modules(path: Path) -> None:
    """Refuse a plan with a dotted name before it is parsed, since parsing imports what it names."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        training = content["training"]
        names = [content["network"]["architecture"], training["loss"]["name"]]
        names += [entry["name"] for entry in training["augmentation"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{path}: is no plan ({type(error).__name__}: {error})") from None
    if outside := [name for name in names if not str(name).isidentifier()]:
        raise PlanError(
            f"{path}: names the module {outside[0]!r} outside autoseg, which installing would run; copy the run by "
            "hand if you trust it"
        )
