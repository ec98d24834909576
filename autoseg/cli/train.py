"""autoseg_train: train one fold of one plan, then predict and score its validation cases."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from autoseg.cli._command import (
    DatasetOption,
    DeviceOption,
    LoggerOption,
    WorkersOption,
    WorkspaceOption,
    answer,
    console,
    num_workers,
    run,
)
from autoseg.cli._completion import complete_plan
from autoseg.cli._progress import TrainingDisplay, duration, progress_bar
from autoseg.cli._speed import describe_speed, speed_table
from autoseg.cli._tables import metrics_table
from autoseg.cli._tracking import read_service, show_notice
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.cli._answers import TrainAnswer
    from autoseg.data.dataset import Dataset
    from autoseg.data.workspace import Workspace
    from autoseg.evaluate.evaluate import Metrics
    from autoseg.launch.fold import FoldRun
    from autoseg.train.machine import Machine
    from autoseg.train.tracking import Tracker

PlanOption = Annotated[
    str,
    typer.Option("-a", "--plan", help="Plan: an architecture's name, or a variant's.", autocompletion=complete_plan),
]


class AugmentChoice(str, Enum):  # noqa: UP042 (StrEnum is Python 3.11's)
    """Where batches are augmented."""

    auto, device, cpu = "auto", "device", "cpu"


AugmentOption = Annotated[
    AugmentChoice,
    typer.Option(
        "--augment-device",
        help="Augment on the training device, or on the CPU meanwhile. auto: measures both on a GPU, takes the faster.",
    ),
]


class CompileChoice(str, Enum):  # noqa: UP042 (StrEnum is Python 3.11's)
    """Whether the network is compiled."""

    auto, on, off = "auto", "on", "off"


CompileOption = Annotated[
    CompileChoice,
    typer.Option("--compile", help="Use torch.compile; where it fails, train without. auto: on NVIDIA GPUs only."),
]

TimeOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--time-budget",
        help="Train within a time, e.g. 30m, 6h, 1d12h: measures, and makes and trains the plan NAME_6h that fits.",
    ),
]
FoldOption = Annotated[
    Optional[int],  # noqa: UP045 (typer reads the annotation at run time on Python 3.10 too)
    typer.Option("-f", "--fold", help="Fold of the cross-validation, from 0."),
]
BenchmarkOption = Annotated[
    bool,
    typer.Option("--benchmark", help="Only measure how fast it trains and where the time goes."),
]


def train(
    dataset: DatasetOption,
    plan: PlanOption,
    fold: FoldOption = None,
    device: DeviceOption = "auto",
    time_budget: TimeOption = None,
    augment_device: AugmentOption = AugmentChoice.auto,
    compiled: CompileOption = CompileChoice.auto,
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
    benchmark: BenchmarkOption = False,
    logger: LoggerOption = None,
) -> None:
    """Train one fold of one plan, resuming by itself; then predict and score its validation cases.

    Example: autoseg_train -d Hippocampus -a attention_unet -f 0
    """
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import check_plan_exists, open_workspace

    started = time.monotonic()
    place = open_workspace(workspace)
    found = find_dataset(dataset, place)
    check_plan_exists(place.plan(found.name, plan))  # before PyTorch is imported, which takes seconds
    from autoseg.launch.fold import choose_device, open_fold
    from autoseg.launch.tracking import open_tracker
    from autoseg.plan.time_budget import parse_time
    from autoseg.train.machine import Machine
    from autoseg.train.processes import find_processes, open_processes, place_process
    from autoseg.train.tracking import tracked

    budget = parse_time(time_budget) if time_budget is not None else None
    if benchmark:
        machine = Machine(choose_device(device), num_workers(workers), augment_device.value, compiled.value)
        _benchmark(place, found, plan, fold or 0, machine)
        return
    if fold is None:
        raise typer.BadParameter("-f (--fold) is missing: which fold of the cross-validation, from 0")
    service = read_service(logger)
    chosen = place_process(choose_device(device), find_processes())
    with ExitStack() as joined:
        processes = joined.enter_context(open_processes(chosen))
        machine = Machine(chosen, num_workers(workers), augment_device.value, compiled.value, processes)
        if budget is not None:
            plan = _fit(place, found, plan, fold, budget, machine, started)
        this_run = open_fold(place, found, plan, fold)
        before = _spent(place, this_run, fold) if budget is not None else 0.0
        if processes.leads:
            _announce(this_run, chosen)
        tracker = open_tracker(service if processes.leads else None, this_run, show_notice)
        with tracked(tracker):
            _train(this_run, machine, tracker)
            joined.close()
            if not processes.leads:
                return
            metrics = _validate(this_run, chosen, num_workers(workers), tracker)
    if budget is not None:
        _tell_time(budget, before, time.monotonic() - started)
    console().print(f"next: autoseg_compare -d {this_run.dataset.name}")
    answer(lambda: _answer(this_run, fold, metrics))


def _fit(
    place: "Workspace", dataset: "Dataset", plan: str, fold: int, budget: int, machine: "Machine", started: float
) -> str:
    """Return the name of the plan that fits a time budget, and tell how it came about if it is new."""
    from autoseg.launch.time_budget import fit_to_time

    fitted, known = fit_to_time(place, dataset, plan, fold, budget, machine, started=started)
    if machine.processes.leads:
        story = "fitted before" if known else fitted.rationale["training.epochs"]
        path = place.plan(dataset.name, fitted.name)
        console().print(f"{path}: {story}", markup=False, soft_wrap=True)
    return fitted.name


def _spent(place: "Workspace", this_run: "FoldRun", fold: int) -> float:
    """Return the seconds that earlier starts of a run have trained and predicted."""
    from autoseg.launch.status import RunKey, read_status

    return read_status(place, this_run.dataset.name, RunKey(this_run.plan.name, fold)).seconds


def _tell_time(budget: int, before: float, now: float) -> None:
    earlier = f", {duration(before)} of it in earlier starts" if before else ""
    over = "" if before + now <= budget else ": more than was measured; the machine was busier, or is another one"
    console().print(f"took {duration(before + now)} of the {duration(budget)}{earlier}{over}", soft_wrap=True)


def _benchmark(workspace: "Workspace", dataset: "Dataset", plan: str, fold: int, machine: "Machine") -> None:
    from autoseg.launch.benchmark import benchmark

    with progress_bar("measuring, half a minute or more", None) as advance:
        speed = benchmark(workspace, dataset, plan, fold, machine, on_round=advance)
    answer(lambda: speed)
    out = console()
    out.print(describe_speed(speed), markup=False, soft_wrap=True)
    out.print(speed_table(speed))


def _announce(this_run: "FoldRun", device: Any) -> None:
    from autoseg.plan.sides import mirroring_warnings

    training, fold = this_run.plan.training, this_run.fold
    console().print(
        f"{this_run.plan.name} on {this_run.dataset.name}: {count(len(fold.train), 'training case')} and "
        f"{count(len(fold.validation), 'validation case')}, {count(training.epochs, 'epoch')} of "
        f"{count(training.iterations_per_epoch, 'iteration')}, batch "
        f"{training.batch_size}, on {device}"
    )
    if this_run.initial is not None:
        console().print(f"starting from the weights of {this_run.initial}: {this_run.initial.folder}", soft_wrap=True)
    for warning in mirroring_warnings(this_run.plan):
        console().print(f"warning: {warning}", markup=False, soft_wrap=True)


def _train(this_run: "FoldRun", machine: "Machine", tracker: "Tracker | None") -> None:
    from autoseg.launch.fold import train as train_networks
    from autoseg.train.tracking import TrackedTraining

    processes = machine.processes
    with ExitStack() as shown:
        if this_run.first:
            processes.lead(lambda: _find_unseen(this_run, machine.device))
        display = shown.enter_context(TrainingDisplay(console())) if processes.leads else None
        train_networks(
            this_run,
            machine,
            on_event=display.show if display else lambda event: None,
            loggers=(TrackedTraining(tracker),) if tracker else (),
        )


def _validate(this_run: "FoldRun", device: Any, workers: int, tracker: "Tracker | None") -> "Metrics":
    from autoseg.launch.fold import validate
    from autoseg.launch.tracking import tell_scores

    out, num = console(), len(this_run.fold.validation)
    out.print(f"predicting and scoring {count(num, 'validation case')}")
    with progress_bar("predicting validation cases", num) as advance:
        metrics = validate(this_run, device=device, num_workers=workers, on_case=advance)
    tell_scores(tracker, this_run, metrics)
    out.print(
        metrics_table(
            metrics.mean, f"validation, {count(len(metrics.cases), 'case')}", metrics.about.surface_tolerance_mm
        )
    )
    out.print(
        f"wrote {this_run.folder}: checkpoints/, logs/, events/, progress.png, validation/metrics.json", soft_wrap=True
    )
    return metrics


def _answer(this_run: "FoldRun", fold: int, metrics: "Metrics") -> "TrainAnswer":
    from autoseg.cli._answers import TrainAnswer

    name, folder = this_run.plan.name, str(this_run.folder)
    return TrainAnswer(
        dataset=this_run.dataset.name, plan=name, fold=fold, folder=folder,
        num_cases=len(metrics.cases), mean=metrics.mean,
    )  # fmt: skip


def _find_unseen(this_run: "FoldRun", device: Any) -> None:
    """Let the first stage segment, with a display of its own; the training then finds it done."""
    from autoseg.launch.fold import find_unseen

    if this_run.first:
        name, cases = this_run.first.plan.name, this_run.cases
        with progress_bar(f"segmenting with {name}", len(cases)) as advance:
            find_unseen(this_run, device=device, on_case=advance)
        console().print(
            f"{name} has segmented the {count(len(cases), 'case')}, each by the fold that did not see it: "
            f"{this_run.first.folder}",
            markup=False,
            soft_wrap=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_train`` and return its exit status."""
    return run(train, arguments, answers=True)


if __name__ == "__main__":
    raise SystemExit(main())
