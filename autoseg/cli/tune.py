"""autoseg_tune: search hyper-parameters around a plan, and make a plan of the best."""

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autoseg.cli._command import (
    DatasetOption,
    DeviceOption,
    LoggerOption,
    WorkersOption,
    WorkspaceOption,
    console,
    num_workers,
    run,
)
from autoseg.cli._tracking import read_service, show_notice
from autoseg.cli._trials import TrialsDisplay
from autoseg.cli.train import PlanOption
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.launch.search import SearchRequest
    from autoseg.launch.trial import Bench
    from autoseg.plan.plan import Plan
    from autoseg.tune.outcome import Result
    from autoseg.tune.space import Space
    from autoseg.tune.study import Search


class Sampler(str, Enum):  # noqa: UP042 (StrEnum is Python 3.11's)
    """What chooses the values of the next trial."""

    tpe, random, cmaes, grid, nsga2 = "tpe", "random", "cmaes", "grid", "nsga2"


class Pruner(str, Enum):  # noqa: UP042
    """What stops trials early."""

    median, hyperband, none = "median", "hyperband", "none"


class ScoreChoice(str, Enum):  # noqa: UP042
    """What a finished trial is judged by."""

    auto, patches, cases = "auto", "patches", "cases"


TrialsOption = Annotated[
    int, typer.Option("--trials", min=0, help="Trials of the study in all, however they end; 0: only the report.")
]
SpaceOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--space", help="Space to search, JSON. Default: what usually matters for the architecture."),
]
SamplerOption = Annotated[
    Sampler, typer.Option("--sampler", help="What is tried next; nsga2: two objectives, Dice and time.")
]
PrunerOption = Annotated[
    Optional[Pruner],  # noqa: UP045
    typer.Option("--pruner", help="What stops trials early. Default: median; with nsga2 none."),
]
EpochsOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--epochs", min=1, help="Epochs of a trial. Default: the plan's, which the tuned plan keeps."),
]
ScoreOption = Annotated[
    ScoreChoice,
    typer.Option("--score", help="Judge by Dice of patches or cases. auto: cases if the space changes patches."),
]
StorageOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--storage", help="Optuna URL, or journal:FILE. Default: SQLite in the workspace."),
]
StudyOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--study", help="Name of the study. Default: the plan's and the fold's."),
]
NameOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--name", help="Name of the tuned plan. Default: PLAN_tuned."),
]
TakeOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--take", min=0, help="Make the tuned plan of this trial. Default: of the highest Dice."),
]


def tune(
    dataset: DatasetOption,
    plan: PlanOption,
    trials: TrialsOption = 30,
    fold: Annotated[int, typer.Option("-f", "--fold", min=0, help="Fold whose validation cases judge, from 0.")] = 0,
    space: SpaceOption = None,
    print_space: Annotated[bool, typer.Option("--print-space", help="Print the space, to be edited, and end.")] = False,
    sampler: SamplerOption = Sampler.tpe,
    pruner: PrunerOption = None,
    epochs: EpochsOption = None,
    score: ScoreOption = ScoreChoice.auto,
    storage: StorageOption = None,
    study: StudyOption = None,
    name: NameOption = None,
    take: TakeOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sampler.")] = 0,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
    logger: LoggerOption = None,
) -> None:
    """Search hyper-parameters around a plan by short trainings; make a plan of the best.

    Start it several times at once to share the trials; stop and go on at any time.

    Example: autoseg_tune -d Hippocampus -a unet --trials 50 --epochs 50
    """
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import check_plan_exists, open_workspace

    place = open_workspace(workspace)
    found = find_dataset(dataset, place)
    check_plan_exists(place.plan(found.name, plan))  # before PyTorch is imported, which takes seconds
    from autoseg.launch.fold import choose_device
    from autoseg.launch.search import SearchRequest, check_installed, check_target, open_search
    from autoseg.launch.trial import Bench
    from autoseg.plan.plan import read_plan

    check_installed()
    service = read_service(logger)
    base = read_plan(place.plan(found.name, plan))
    wanted = _read_space(space, base)
    if print_space:
        _print_space(wanted)
        return
    request = SearchRequest(
        plan=base, fold=fold, space=wanted, sampler=sampler.value, epochs=epochs, storage=storage, name=study,
        seed=seed, score=None if score is ScoreChoice.auto else score.value, pruner=pruner.value if pruner else None,
    )  # fmt: skip
    target = name or f"{base.name}_tuned"
    check_target(place, base, target)
    search = open_search(place, found, request)
    bench = Bench(
        place, found, base, search.settings, choose_device(device), num_workers(workers), service, show_notice
    )
    _search(search, bench, request, trials)
    _conclude(search, bench, target, take)


def _read_space(path: Path | None, plan: "Plan") -> "Space":
    from autoseg.tune.defaults import default_space
    from autoseg.tune.space import read_space

    return read_space(path, plan) if path else default_space(plan)


def _print_space(space: "Space") -> None:
    from autoseg.tune.space import space_text

    sys.stdout.write(space_text(space))


def _search(search: "Search", bench: "Bench", request: "SearchRequest", num_trials: int) -> None:
    """Run the trials; an interruption tells how many are done."""
    from autoseg.launch.search import run_search
    from autoseg.tune.outcome import gather_results

    out, settings = console(), search.settings
    begun = len(gather_results(search))
    out.print(
        f"{search.study.study_name}: {len(search.space.parameters)} parameters around {settings.plan}, "
        f"{request.sampler}; {begun} of {count(num_trials, 'trial')} begun; {count(settings.epochs, 'epoch')} "
        f"each on fold "
        f"{settings.fold}, judged by the Dice of its validation {settings.score}; on {bench.device}",
        markup=False,
        soft_wrap=True,
    )
    try:
        display = TrialsDisplay(out)
        with display:
            run_search(search, bench, num_trials, tell=display.tell, on_event=display.show)
    except KeyboardInterrupt:
        done = sum(one.state != "running" for one in gather_results(search))
        told = f"stopped; {done} of {count(num_trials, 'trial')} over, the one under way keeps its epochs"
        raise KeyboardInterrupt(f"{told}; the same command goes on from there") from None


def _conclude(search: "Search", bench: "Bench", name: str, take: int | None) -> None:
    """Write the report and the tuned plan; print what was found, and what comes next."""
    from autoseg.launch.tracking import tell_search
    from autoseg.tune.outcome import count_states, gather_results, pick, tell_result
    from autoseg.tune.report import write_report

    out, plan = console(), bench.plan
    results = gather_results(search)
    chosen = pick(results, take)
    headline = tell_result(plan, chosen, results)
    out.print(f"{count(len(results), 'trial')}: {count_states(results) or 'none'}", markup=False, soft_wrap=True)
    out.print(headline, markup=False, soft_wrap=True)
    folder = bench.workspace.report(bench.dataset.name)
    report = folder / f"tune_{search.folder.name}.html"
    write_report(search, plan, results, chosen, headline, report)
    out.print(f"wrote {report} (open it in a browser)", markup=False, soft_wrap=True)
    tell_search(bench.service, plan, search.folder.name, chosen, headline, report, show_notice)
    if chosen is not None and (not chosen.own or take is not None):
        _write_plan(search, bench, chosen, results, name)


def _write_plan(search: "Search", bench: "Bench", chosen: "Result", results: "list[Result]", name: str) -> None:
    from autoseg.cli._plans import difference_table
    from autoseg.launch.search import keep_tuned_plan

    out, plan = console(), bench.plan
    tuned = keep_tuned_plan(search, bench, chosen, results, name)
    out.print(difference_table(plan, tuned))
    path = bench.workspace.plan(bench.dataset.name, name)
    out.print(f"wrote {path} (its story is under 'rationale')", markup=False, soft_wrap=True)
    other = 0 if search.settings.fold else 1
    both = " && ".join(f"autoseg_train -d {bench.dataset.name} -a {one} -f {other}" for one in (plan.name, name))
    out.print(f"next: {both} && autoseg_compare -d {bench.dataset.name} --baseline {plan.name}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_tune`` and return its exit status."""
    return run(tune, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
