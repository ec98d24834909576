"""The first stage of a cascade: what it finds in a case becomes the last channel of the second stage's image."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.errors import WorkspaceError
from autoseg.plan.plan import Plan
from autoseg.predict.logits import LOGITS_BYTES, open_logits
from autoseg.predict.model import Member, Model
from autoseg.preprocess.case import CaseProperties, PreprocessedCase
from autoseg.preprocess.found import bring_to_grid
from autoseg.preprocess.restore import restore_crop
from autoseg.preprocess.store import CaseStore


def add_previous(model: Model, cases: Sequence[PreprocessedCase]) -> list[PreprocessedCase]:
    """Return the case as each member's networks take it: of a second stage, with what the first one finds.

    Args:
        model: its members.
        cases: the case as preprocessed for each of ``model.stages``.

    Raises:
        WorkspaceError: what a first stage found is not stored, or belongs to other images.
    """
    count = len(model.members)
    firsts = iter(cases[count:])
    complete = []
    for member, case in zip(model.members, cases[:count]):
        if isinstance(member.previous, Member):
            found = find_classes(member.previous, next(firsts), case.properties, member.plan, model.device)
            case = _with_channel(case, found)
        elif member.previous is not None:
            case = _with_channel(case, _read_found(member.previous, case.properties))
        complete.append(case)
    return complete


def find_classes(
    first: Member, case: PreprocessedCase, target: CaseProperties, plan: Plan, device: torch.device
) -> NDArray[np.int16]:
    """Return what the first stage finds in a case, as classes on the grid of the second one's ``plan``.

    Args:
        first: the first stage.
        case: as preprocessed for the first stage.
        target: as preprocessed for the second one.
        plan: of the second stage.
        device: where the first stage's networks are.
    """
    labels = first.plan.dataset.label_scheme
    fits = 4 * labels.num_outputs * case.image[0].size <= LOGITS_BYTES / 2
    logits = open_logits(first, case, device, compute=fits)
    values = restore_crop([logits], case.properties, first.plan, limit_bytes=LOGITS_BYTES)
    return bring_to_grid(values, labels, first.plan, target, plan)


def _read_found(store: CaseStore, properties: CaseProperties) -> NDArray[np.int16]:
    found: NDArray[np.int16] = store.found(properties.name)[...]
    if found.shape != properties.shape:
        raise WorkspaceError(
            f"{store.found_folder}: case {properties.name} has {found.shape} voxels there and {properties.shape} now; "
            f"delete that folder, then run autoseg_train again"
        )
    return found


def _with_channel(case: PreprocessedCase, found: NDArray[np.int16]) -> PreprocessedCase:
    return replace(case, image=np.concatenate([case.image, found[None].astype(np.float32)]))
