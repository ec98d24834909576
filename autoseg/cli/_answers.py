"""What ``--json`` prints: one document a command, for programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from autoseg.compare.overview import Overview
from autoseg.compare.summary import Summary
from autoseg.documents import Document
from autoseg.launch.select import Best
from autoseg.train.benchmark import Speed

if TYPE_CHECKING:
    from autoseg.data.workspace import Workspace
    from autoseg.launch.status import RunStatus
    from autoseg.plan.plan import Plan

Values = dict[str, float | None]


class PlannedPlan(Document):
    """A plan in short; the document at ``path`` has all of it.

    Attributes:
        path: of the plan.
        spacing: target spacing in mm, (z, y, x) after the plan's transpose; null where slices keep their own.
        memory_gb: predicted memory of a training, GB of 10^9 bytes.
        preprocessed: folder of the preprocessed cases; null where nothing was preprocessed.
    """

    name: str
    path: str
    architecture: str
    previous_stage: str | None
    patch_size: tuple[int, ...]
    batch_size: int
    spacing: tuple[float | None, ...]
    parameters: int
    memory_gb: float
    preprocessed: str | None


class PlanAnswer(Document):
    """What ``autoseg_plan --json`` prints.

    Attributes:
        folder: of the raw dataset.
        skipped: what was not planned because it does not suit the data, and why.
        failed_cases: what could not be preprocessed; the exit status is then 1.
        written: the documents besides the plans.
        next: the command to type now; null where other parts must end first.
    """

    schema_: Literal["autoseg.answer.plan.1"] = Field(default="autoseg.answer.plan.1", alias="schema")
    dataset: str
    folder: str
    num_cases: int
    plans: tuple[PlannedPlan, ...]
    skipped: dict[str, str]
    failed_cases: tuple[str, ...]
    written: tuple[str, ...]
    next: str | None


class PartAnswer(Document):
    """What ``autoseg_plan --part K/N --json`` prints: how many cases were measured, and what was found in them."""

    schema_: Literal["autoseg.answer.part.1"] = Field(default="autoseg.answer.part.1", alias="schema")
    dataset: str
    part: str
    num_cases: int
    errors: int
    warnings: int
    written: tuple[str, ...]


class Reason(Document):
    """A field of a plan, its value in words, and why it has it."""

    field: str
    value: str
    reason: str


class StoryAnswer(Document):
    """What ``autoseg_plan --explain PLAN --json`` prints."""

    schema_: Literal["autoseg.answer.explain.1"] = Field(default="autoseg.answer.explain.1", alias="schema")
    dataset: str
    plan: str
    fields: tuple[Reason, ...]


class FieldDifference(Document):
    """A field that differs; ``-`` where a plan has no such field."""

    field: str
    first: str
    second: str


class DifferenceAnswer(Document):
    """What ``autoseg_plan --diff A B --json`` prints."""

    schema_: Literal["autoseg.answer.diff.1"] = Field(default="autoseg.answer.diff.1", alias="schema")
    plans: tuple[str, str]
    fields: tuple[FieldDifference, ...]


class TrainAnswer(Document):
    """What ``autoseg_train --json`` prints.

    Attributes:
        folder: of the run.
        mean: region to metric to mean over the fold's validation cases.
    """

    schema_: Literal["autoseg.answer.train.1"] = Field(default="autoseg.answer.train.1", alias="schema")
    dataset: str
    plan: str
    fold: int
    folder: str
    num_cases: int
    mean: dict[str, Values]


class PredictAnswer(Document):
    """What ``autoseg_predict --json`` prints.

    Attributes:
        plans: whose networks were averaged.
        written: the segmentations that are new.
        kept: those that stood there already.
        failed: case to why it could not be segmented; the exit status is then 1, or 2 if all failed.
        seconds: the sum over the new ones.
    """

    schema_: Literal["autoseg.answer.predict.1"] = Field(default="autoseg.answer.predict.1", alias="schema")
    dataset: str
    plans: tuple[str, ...]
    output: str
    written: tuple[str, ...]
    kept: tuple[str, ...]
    failed: dict[str, str]
    seconds: float


class EvaluateAnswer(Document):
    """What ``autoseg_evaluate --json`` prints.

    Attributes:
        path: of the document with the scores of each case.
        mean: region to metric to mean over the cases; null where it is defined in none.
        undefined: region to the number of cases in which its Dice is undefined.
    """

    schema_: Literal["autoseg.answer.evaluate.1"] = Field(default="autoseg.answer.evaluate.1", alias="schema")
    path: str
    num_cases: int
    mean: dict[str, Values]
    undefined: dict[str, int]


class CompareAnswer(Document):
    """What ``autoseg_compare --json`` prints.

    Attributes:
        reports: dataset to its report.html.
        summaries: dataset to what stands in its summary.json.
        overview: the datasets together, where there are several.
        best: dataset to what ``--best`` chose.
    """

    schema_: Literal["autoseg.answer.compare.1"] = Field(default="autoseg.answer.compare.1", alias="schema")
    reports: dict[str, str]
    summaries: dict[str, Summary]
    overview: Overview | None
    best: dict[str, Best]


class RunRow(Document):
    """A fold of a plan; ``state`` is ``finished``, or what its folder says of it.

    Attributes:
        planned: epochs; null where there is no plan yet.
        seconds: of the epochs and of segmenting the validation cases.
        ended: how the last attempt ended.
        job: number and state in the queue of a cluster.
    """

    plan: str
    fold: int
    state: str
    epochs: int
    planned: int | None
    dice: float | None
    seconds: float
    ended: str
    job: str | None


class RunAnswer(Document):
    """What ``autoseg_run --json`` prints, with ``--status`` and at its end."""

    schema_: Literal["autoseg.answer.run.1"] = Field(default="autoseg.answer.run.1", alias="schema")
    dataset: str
    finished: int
    runs: tuple[RunRow, ...]


ANSWERS: dict[str, tuple[type[Document], ...]] = {
    "plan": (PlanAnswer, PartAnswer, StoryAnswer, DifferenceAnswer),
    "train": (TrainAnswer, Speed),
    "predict": (PredictAnswer,),
    "evaluate": (EvaluateAnswer,),
    "compare": (CompareAnswer,),
    "run": (RunAnswer,),
}
"""Command to what its ``--json`` may print."""


def planned(plan: "Plan", place: "Workspace", *, preprocessed: bool) -> PlannedPlan:
    """Return a plan in short."""
    from autoseg.preprocess.store import preprocessing_digest

    name, digest = plan.dataset.name, preprocessing_digest(plan)
    return PlannedPlan(
        name=plan.name,
        path=str(place.plan(name, plan.name)),
        architecture=plan.network.architecture,
        previous_stage=plan.previous_stage,
        patch_size=plan.training.patch_size,
        batch_size=plan.training.batch_size,
        spacing=plan.preprocessing.spacing,
        parameters=plan.estimate.parameters,
        memory_gb=plan.estimate.memory_gb,
        preprocessed=str(place.preprocessed(name, digest)) if preprocessed else None,
    )


def run_rows(statuses: "Sequence[RunStatus]", jobs: Mapping[Any, tuple[str, Any]]) -> tuple[RunRow, ...]:
    """Return the rows of a table of runs."""
    return tuple(
        RunRow(
            plan=status.key.plan,
            fold=status.key.fold,
            state=status.state,
            epochs=status.epochs,
            planned=status.planned,
            dice=status.dice,
            seconds=status.seconds,
            ended=status.ended,
            job=f"{jobs[status.key][0]} {jobs[status.key][1].state}" if status.key in jobs else None,
        )
        for status in statuses
    )


def files_of(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of files of a folder."""
    return tuple(str(folder / name) for name in names)
