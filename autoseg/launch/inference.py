"""Segmenting images with trained plans: which networks, with which weights, and into which folder.

This is what ``autoseg_predict`` does.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

import autoseg
from autoseg.data.cases import Case
from autoseg.data.workspace import Workspace
from autoseg.documents import Document, read_document, write_document
from autoseg.errors import PlanError, WorkspaceError
from autoseg.launch.fold import choose_folds, open_member
from autoseg.predict.model import Model, check_together
from autoseg.predict.postprocess import Postprocessing
from autoseg.predict.predictor import ending_of
from autoseg.train.state import training_digest

RECORD_FILE = "prediction.json"
POSTPROCESSING_FILE = "postprocessing.json"
LARGEST_WEIGHT = 1000.0
"""Of a plan with a perfect score."""


class UsedPlan(Document):
    """A plan that took part.

    Attributes:
        name: of the plan.
        training_sha256: of all that its weights depend on.
        folds: whose networks were averaged.
        weight: of its probabilities.
        previous_stage: the plan whose segmentation it saw; null: none.
    """

    name: str
    training_sha256: str
    folds: tuple[int, ...]
    weight: float
    previous_stage: str | None = None


class PredictionRecord(Document):
    """prediction.json: what made the segmentations of a folder."""

    schema_: Literal["autoseg.prediction.1"] = Field(default="autoseg.prediction.1", alias="schema")
    autoseg: str
    dataset: str
    plans: tuple[UsedPlan, ...]
    postprocessing: Postprocessing | None


def open_model(
    workspace: Workspace,
    dataset: str,
    plans: Sequence[str],
    folds: Sequence[int],
    device: torch.device,
    *,
    with_postprocessing: bool = True,
) -> tuple[Model, PredictionRecord]:
    """Load trained plans; several are weighted by their cross-validated Dice.

    Args:
        workspace: where they stand.
        dataset: its name.
        plans: their names.
        folds: of each; empty: all that are trained to their end.
        device: where they compute.
        with_postprocessing: whether to apply what was learnt for this plan, or these plans together.

    Raises:
        PlanError: a plan has no trained fold or not those asked for, or the plans do not suit each other.
        TrainingError: a checkpoint is unreadable.
    """
    names = list(dict.fromkeys(plans))
    weights = ensemble_weights(workspace, dataset, names)
    used = [choose_folds(workspace, dataset, name, folds) for name in names]
    members = tuple(
        open_member(workspace, dataset, name, chosen, device, weight)
        for name, chosen, weight in zip(names, used, weights)
    )
    check_together([member.plan for member in members])
    path = postprocessing_path(workspace, dataset, names)
    learnt = read_document(path, Postprocessing) if with_postprocessing and path.is_file() else None
    model = Model(members, device, learnt)
    return model, describe_model(model, used)


def describe_model(model: Model, folds: Sequence[Sequence[int]]) -> PredictionRecord:
    """Return the record of a model whose members use these folds."""
    return PredictionRecord(
        autoseg=autoseg.__version__,
        dataset=model.plan.dataset.name,
        plans=tuple(
            UsedPlan(
                name=m.plan.name,
                training_sha256=training_digest(m.plan),
                folds=tuple(used),
                weight=m.weight,
                previous_stage=m.plan.previous_stage,
            )
            for m, used in zip(model.members, folds)
        ),
        postprocessing=model.postprocessing,
    )


def results_of(workspace: Workspace, dataset: str) -> Path:
    """Return the folder of a dataset's results."""
    return workspace.fold(dataset, "plan", 0).parents[1]


def pair_folder(workspace: Workspace, dataset: str, plans: Sequence[str]) -> Path:
    """Return the folder of what is known of plans together."""
    return results_of(workspace, dataset) / "pairs" / "+".join(sorted(plans))


def postprocessing_path(workspace: Workspace, dataset: str, plans: Sequence[str]) -> Path:
    """Return where the postprocessing of a plan, or of plans together, stands."""
    single = len(plans) == 1
    folder = results_of(workspace, dataset) / plans[0] if single else pair_folder(workspace, dataset, plans)
    return folder / POSTPROCESSING_FILE


def ensemble_weights(workspace: Workspace, dataset: str, plans: Sequence[str]) -> list[float]:
    """Return each plan's weight: 1 / (1 - its cross-validated Dice), so that half the error is twice the weight.

    All weigh the same if one of them has no scores.
    """
    scores = [cross_validated_dice(workspace, dataset, plan) for plan in plans]
    known = [score for score in scores if score is not None]
    if len(known) < len(plans) or len(plans) == 1:
        return [1.0] * len(plans)
    return [min(LARGEST_WEIGHT, 1 / max(1 - score, 1e-9)) for score in known]


def cross_validated_dice(workspace: Workspace, dataset: str, plan: str) -> float | None:
    """Return the mean over the regions of each one's mean Dice over all validated cases; None without scores."""
    paths = (results_of(workspace, dataset) / plan).glob("fold_*/validation/metrics.json")
    return mean_dice([json.loads(path.read_text(encoding="utf-8"))["cases"] for path in sorted(paths)])


def mean_dice(documents: Sequence[dict[str, dict[str, dict[str, float | None]]]]) -> float | None:
    """Return the mean Dice over regions of the mean over the cases of several ``cases`` sections."""
    values: dict[str, list[float]] = {}
    for cases in documents:
        for regions in cases.values():
            for region, scores in regions.items():
                if (dice := scores["dice"]) is not None:
                    values.setdefault(region, []).append(dice)
    means = [sum(row) / len(row) for row in values.values()]
    return sum(means) / len(means) if means else None


def check_output(folder: Path) -> None:
    """Refuse what can be no folder, before any network is loaded.

    Raises:
        WorkspaceError: the path, or one above it, is a file.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise WorkspaceError(f"-o {folder}: {nearest} is a file; name a folder, which is made if it is missing")


def claim_output(folder: Path, record: PredictionRecord, cases: Sequence[Case], *, overwrite: bool) -> None:
    """Note in the output folder what makes its segmentations; refuse one that holds others of these names.

    So a second call can go on from where the first one stopped, and never mixes two models.

    Raises:
        WorkspaceError: segmentations of these cases, made otherwise, are there and may not be replaced; or the folder
            is that of the images, or not a folder.
    """
    check_output(folder)
    targets = [folder / f"{case.name}{ending_of(case.images[0])}" for case in cases]
    images = {image.resolve() for case in cases for image in case.images}
    if clash := [path for path in targets if path.resolve() in images]:
        raise WorkspaceError(f"-o {folder}: {clash[0].name} there is an image; name another folder")
    path = folder / RECORD_FILE
    before = read_document(path, PredictionRecord) if path.is_file() else None
    if before != record and not overwrite and (there := [target.name for target in targets if target.exists()]):
        by = "by other plans or settings" if before else "and were not made by autoseg_predict"
        raise WorkspaceError(
            f"-o {folder}: {len(there)} segmentations are there already {by}, e.g. {there[0]}; name another folder, "
            f"or replace them with --overwrite"
        )
    if before != record:
        for target in targets:
            target.unlink(missing_ok=True)  # else an interruption would leave both kinds under one record
    write_document(path, record)


def release_output(folder: Path, *, made: bool) -> None:
    """Take back what ``claim_output`` noted, since nothing came of it, and the folder if it was ``made`` for it."""
    (folder / RECORD_FILE).unlink(missing_ok=True)
    if made and not any(folder.iterdir()):
        folder.rmdir()


def chosen_plans(workspace: Workspace, dataset: str, plans: Sequence[str] | None) -> list[str]:
    """Return the plans that were asked for, else those that ``autoseg_compare --best`` chose.

    Raises:
        PlanError: no plan is given, and none was chosen.
    """
    if plans:
        return list(plans)
    path = results_of(workspace, dataset) / "best.json"
    if not path.is_file():
        raise PlanError(f"-a: no plan is named, and there is no {path}; name one, or run autoseg_compare --best")
    return list(json.loads(path.read_text(encoding="utf-8"))["chosen"]["plans"])
