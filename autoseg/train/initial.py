"""Weights that a training starts from: those that a finished run of another plan ended with.

They are read once, before the first epoch. From then on the run has checkpoints of its own, so that it goes on whatever
becomes of the other run.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from autoseg.documents import Document, write_document
from autoseg.errors import PlanError, TrainingError
from autoseg.plan.plan import Plan
from autoseg.plan.story import differences
from autoseg.plan.trace import build_without_values
from autoseg.train.state import TrainState, build_network, read_checkpoint, training_digest

RECORD_FILE = "initial.json"
"""In the folder of a run that started from another one's weights."""

CHECKPOINT = Path("checkpoints") / "last.pt"
"""Of the other run: what predicts, so the averaged weights where its plan averages them."""

Weights = Mapping[str, torch.Tensor]


class InitialRecord(Document):
    """Which weights a run started from.

    Attributes:
        plan: name of the plan that was trained before.
        plan_sha256: hash of all that its weights depend on, as in its checkpoints.
        fold: of both runs.
        epoch: finished epochs of the other run.
        checkpoint: file that was read, seen from the folder of the dataset's results.
        checkpoint_sha256: of the whole file.
    """

    schema_: Literal["autoseg.initial.1"] = Field(default="autoseg.initial.1", alias="schema")
    plan: str
    plan_sha256: str
    fold: int
    epoch: int
    checkpoint: str
    checkpoint_sha256: str


@dataclass(frozen=True)
class InitialRun:
    """The finished run whose weights another one starts from; ``plan`` is the one that it was trained with."""

    plan: Plan
    fold: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.plan.name} fold {self.fold}"


def check_fits(plan: Plan, source: Plan) -> None:
    """Refuse a plan whose network cannot take the weights of ``source``.

    Patches, loss, optimiser, augmentation and preprocessing may differ: they leave the network as it is.

    Raises:
        PlanError: they differ in channels, labels, axes or network; the message says in what.
    """
    where = f"plan {plan.name}: training.initial_weights {source.name!r}"
    for what in ("channels", "labels", "regions"):
        mine, theirs = (getattr(one.dataset, what) for one in (plan, source))
        if mine != theirs or list(mine) != list(theirs):  # the order of the labels is that of the network's outputs
            raise PlanError(f"{where} was planned with other {what}; plan both again with autoseg_plan")
    kinds = [(one.network.architecture, f"{one.training.dimensions}-D") for one in (source, plan)]
    if kinds[0] != kinds[1]:
        there, here = (" in ".join(kind) for kind in kinds)
        raise PlanError(f"{where} does not fit: the network is {there} there and {here} here; {_advise(source)}")
    if plan.network != source.network or plan.num_previous_classes != source.num_previous_classes:
        _check_shapes(plan, source, where)


def take_weights(source: InitialRun, run_folder: Path) -> Weights:
    """Return the weights that a finished run ended with, on the CPU; ``run_folder`` keeps where they come from.

    Raises:
        TrainingError: the checkpoint is unreadable, or not that of the run's plan.
    """
    path = source.folder / CHECKPOINT
    checkpoint = read_checkpoint(path, source.plan)
    weights: Weights = checkpoint["network"]
    record = InitialRecord(
        plan=source.plan.name,
        plan_sha256=training_digest(source.plan),
        fold=source.fold,
        epoch=checkpoint["epoch"],
        checkpoint=path.relative_to(source.folder.parents[1]).as_posix(),
        checkpoint_sha256=_hash_file(path),
    )
    write_document(run_folder / RECORD_FILE, record)
    return weights


def start_from(state: TrainState, weights: Weights, source: InitialRun) -> None:
    """Put the weights into a fresh state, also as the beginning of their average.

    Raises:
        TrainingError: they do not fit the network, whose code must have changed since.
    """
    try:
        for network in (state.network, state.averaged):
            if network is not None:
                network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(
            f"{source.folder / CHECKPOINT} does not fit the network, whose code must have changed since ({reason}); "
            f"bring the old code back, or train {source.plan.name} again"
        ) from error


def _check_shapes(plan: Plan, source: Plan, where: str) -> None:
    mine, theirs = _shapes(plan), _shapes(source)
    if mine == theirs:
        return
    fields = [row for row in differences(source, plan) if row[0].startswith(("network.config", "previous_stage"))]
    if fields:
        field, there, here = fields[0]
        found = f"{field} is {there} there and {here} here"
    else:
        name = next(name for name in (*mine, *theirs) if mine.get(name) != theirs.get(name))
        found = f"{name} is {theirs.get(name, 'missing')} there and {mine.get(name, 'missing')} here"
    raise PlanError(f"{where} does not fit, since the weights have other shapes: {found}; {_advise(source)}")


def _advise(source: Plan) -> str:
    return (
        f"make the plan with --from {source.name}, or set the network as it is there (autoseg_plan --diff shows both)"
    )


def _shapes(plan: Plan) -> dict[str, list[int]]:
    """Return the shape of each weight and buffer by its name."""
    return {name: list(values.shape) for name, values in build_without_values(build_network, plan).state_dict().items()}


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
