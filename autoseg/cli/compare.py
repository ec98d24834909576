"""autoseg_compare: the report on all trained plans."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autoseg.cli._best import choose
from autoseg.cli._command import (
    DeviceOption,
    LoggerOption,
    WorkersOption,
    WorkspaceOption,
    answer,
    console,
    num_workers,
    run,
)
from autoseg.cli._completion import complete_dataset, complete_plan
from autoseg.cli._progress import progress_bar
from autoseg.cli._tables import comparison_table, group_table
from autoseg.cli._tracking import read_service, show_notice
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.cli._answers import CompareAnswer
    from autoseg.compare.overview import Overview
    from autoseg.compare.runs import Runs
    from autoseg.compare.summary import Summary
    from autoseg.data.workspace import Workspace
    from autoseg.launch.select import Best

NOT_BETTER = 1
PORT = 8000

DatasetOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "-d", "--dataset", help="Dataset. Default: every dataset with results.", autocompletion=complete_dataset
    ),
]
PlanOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "-a",
        "--plan",
        help="Plan to compare; repeat. Default: all that have results.",
        autocompletion=complete_plan,
    ),
]
BaselineOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--baseline", help="Plan that the others are compared with. Default: unet.", autocompletion=complete_plan
    ),
]
ByOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--by", help="Group plans that differ in this: loss, optimizer, schedule, architecture, downsample."),
]
AddOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--add", help="NAME=FOLDER: nnU-Net's results, metrics.json, or segmentations; repeat."),
]
CasesOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--cases", help="Long table (the columns of cases.csv) to compare instead of results/."),
]
BetterThanOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--fail-unless-better-than",
        help="End with status 1 unless a plan is better than this one.",
        autocompletion=complete_plan,
    ),
]
BestOption = Annotated[
    bool, typer.Option("--best", help="Choose the best plan or pair for autoseg_predict; learn its postprocessing.")
]


def compare(
    dataset: DatasetOption = None,
    plan: PlanOption = None,
    baseline: BaselineOption = None,
    by: ByOption = None,
    add: AddOption = None,
    cases: CasesOption = None,
    better_than: BetterThanOption = None,
    images: Annotated[bool, typer.Option(help="Show slices of the worst, median and best cases.")] = True,
    serve: Annotated[bool, typer.Option("--serve", help="Then serve reports and TensorBoard on 127.0.0.1.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of --serve.")] = PORT,
    best: BestOption = False,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
    logger: LoggerOption = None,
) -> None:
    """Compare trained plans: accuracy with its uncertainty, beside what it costs.

    Example: autoseg_compare -d Hippocampus --baseline unet --by loss
    """
    from autoseg.data.workspace import open_workspace

    place, service = open_workspace(workspace), read_service(logger)
    against = _choose_baseline(baseline, better_than)
    found = _load(place, dataset, plan or [], cases, add or [], better_than)
    summaries = [_report(runs, place, against, by or [], images) for runs in found]
    if service:
        _tell(service, summaries, place)
    workers = num_workers(workers)
    chosen = {one.dataset: choose(place, one.dataset, plan or (), device, workers) for one in found if best}
    overview = _report_together(summaries, place) if len(summaries) > 1 else None
    answer(lambda: _answer(place, summaries, overview, chosen))
    if serve:
        _serve(place, port)
    if better_than:
        _require_better(summaries, better_than)


def _report(runs: "Runs", place: "Workspace", baseline: str, by: list[str], images: bool) -> "Summary":
    """Write and print the report of one dataset."""
    from autoseg.compare.background import gather_background
    from autoseg.compare.report import write_report
    from autoseg.compare.scores import gather_scores

    out, folder, table = console(), place.report(runs.dataset), gather_scores(runs)
    with progress_bar("reading images", None) as advance:
        background = gather_background(runs, table, place, images=images, on_case=advance)
    summary = write_report(runs, folder, baseline=baseline, by=by, table=table, background=background)
    out.print(comparison_table(summary))
    for group in summary.groups:
        out.print(group_table(summary, group))
    out.print(f"{summary.headline}. {' '.join(summary.sentences)}", markup=False, soft_wrap=True)
    if summary.notes:
        told = f"{count(len(summary.notes), 'note')} in the report on how to read this, the first: {summary.notes[0]}"
        out.print(told, markup=False, soft_wrap=True)
    for name in by:
        if not any(group.by == name for group in summary.groups):
            out.print(f"by {name}: no two plans of {runs.dataset} differ in that alone", markup=False, soft_wrap=True)
    written = f"{folder / 'report.html'} (open it in a browser), cases.csv, summary.json, table.md, table.tex"
    out.print(f"wrote {written}", markup=False, soft_wrap=True)
    if summary.ranking and any(run.plan == summary.ranking[0].plan and run.document for run in runs.runs):
        following = f"autoseg_predict -d {runs.dataset} -a {summary.ranking[0].plan} -i IMAGES -o FOLDER"
        out.print(f"next: {following}   (or --best, to choose by it and learn a postprocessing)", soft_wrap=True)
    return summary


def _tell(service: str, summaries: "Sequence[Summary]", place: "Workspace") -> None:
    """Tell a service of the reports."""
    from autoseg.launch.tracking import tell_comparison

    for summary in summaries:
        tell_comparison(service, summary, place.report(summary.dataset), show_notice)


def _report_together(summaries: "Sequence[Summary]", place: "Workspace") -> "Overview":
    """Write and print what several datasets say together."""
    from autoseg.compare.overview import compare_over_datasets
    from autoseg.compare.report import write_overview

    overview, out = compare_over_datasets(summaries), console()
    path = write_overview(overview, place.root / "reports")
    out.print(f"{overview.headline}. {' '.join(overview.sentences)}", markup=False, soft_wrap=True)
    out.print(f"wrote {path}, datasets.json", markup=False, soft_wrap=True)
    return overview


def _answer(
    place: "Workspace", summaries: "Sequence[Summary]", overview: "Overview | None", best: "dict[str, Best]"
) -> "CompareAnswer":
    from autoseg.cli._answers import CompareAnswer

    return CompareAnswer(
        reports={one.dataset: str(place.report(one.dataset) / "report.html") for one in summaries},
        summaries={one.dataset: one for one in summaries},
        overview=overview,
        best=best,
    )


def _choose_baseline(baseline: str | None, better_than: str | None) -> str:
    from autoseg.errors import PlanError

    if baseline and better_than and baseline != better_than:
        raise PlanError(
            f"--baseline {baseline} and --fail-unless-better-than {better_than} differ; a report has one baseline, so "
            "leave --baseline out"
        )
    return better_than or baseline or "unet"


def _load(
    place: "Workspace",
    dataset: str | None,
    plans: list[str],
    cases: Path | None,
    add: list[str],
    better_than: str | None,
) -> "list[Runs]":
    """Return the runs of each dataset, with those that were added."""
    from autoseg.compare.external import read_cases_table
    from autoseg.compare.runs import choose_plans, datasets_with_runs, load_runs
    from autoseg.errors import WorkspaceError

    wanted = [*plans, better_than] if plans and better_than else plans
    if cases:
        found = [runs for runs in read_cases_table(cases) if dataset in (None, runs.dataset)]
        if not found:
            raise WorkspaceError(f"{cases}: no rows of dataset {dataset}; leave -d out to compare all that it holds")
        found = [choose_plans(runs, wanted) for runs in found]
    else:
        names = [dataset] if dataset else datasets_with_runs(place)
        if not names and add:
            raise WorkspaceError(f"--add {add[0]}: say with -d which dataset it is of")
        if not names:
            raise WorkspaceError(
                f"{place.root / 'results'}: no runs yet; make one with autoseg_train -d DATASET -a unet -f 0"
            )
        found = [load_runs(place, name, wanted, empty=bool(add)) for name in names]
    return [_with_added(runs, add, place, len(found)) for runs in found]


def _with_added(runs: "Runs", add: list[str], place: "Workspace", num_datasets: int) -> "Runs":
    from autoseg.compare.external import add_results
    from autoseg.errors import WorkspaceError

    for text in add:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise WorkspaceError(f"--add {text}: expected NAME=FOLDER, e.g. --add nnunet_v2=results/fold_0/validation")
        if num_datasets > 1:
            raise WorkspaceError(f"--add {text}: {num_datasets} datasets are compared; say with -d which one it is of")
        with progress_bar(f"scoring {name}", None) as advance:
            runs = add_results(runs, name, Path(folder), place, advance)
        for remark in dict.fromkeys(remark for one in runs.finished(name) for remark in one.remarks):
            console().print(f"warning: {name}: {remark}", markup=False, soft_wrap=True)
    return runs


def _serve(place: "Workspace", port: int) -> None:
    """Serve until Ctrl-C."""
    from autoseg.compare.serve import make_server, run_tensorboard

    out = console()
    with make_server(place.root / "reports", port) as server, run_tensorboard(place.root / "results") as tensorboard:
        number = server.server_address[1]
        board = tensorboard.rstrip("/").rsplit(":", 1)[1]
        out.print(f"reports on http://127.0.0.1:{number}/, TensorBoard on {tensorboard}; Ctrl-C ends", soft_wrap=True)
        tunnels = " ".join(f"-L {each}:127.0.0.1:{each}" for each in (number, board))
        out.print(f"from another machine: ssh {tunnels} THIS_MACHINE", markup=False, soft_wrap=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            out.print("stopped")


def _require_better(summaries: "Sequence[Summary]", plan: str) -> None:
    """End with status 1 where on any dataset no plan is better than ``plan``."""
    from autoseg.compare.conclusions import describe_better

    failed = False
    for summary in summaries:
        passed, told = describe_better(summary, plan)
        failed |= not passed
        (sys.stdout if passed else sys.stderr).write(f"{summary.dataset}: {told}\n")
    if failed:
        raise typer.Exit(NOT_BETTER)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_compare`` and return its exit status."""
    return run(compare, arguments, answers=True)


if __name__ == "__main__":
    raise SystemExit(main())
