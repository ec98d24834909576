"""autoseg_compare: the report on all trained plans."""

from collections.abc import Sequence
from typing import Annotated, Optional

import typer

from autoseg.cli._best import choose
from autoseg.cli._command import DeviceOption, WorkersOption, WorkspaceOption, console, num_workers, run
from autoseg.cli._tables import comparison_table


def compare(
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-d", "--dataset", help="Dataset. Default: every dataset with results."),
    ] = None,
    plan: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("-a", "--plan", help="Plan to compare; repeat. Default: all that have results."),
    ] = None,
    baseline: Annotated[str, typer.Option("--baseline", help="Plan that the others are compared with.")] = "unet",
    best: Annotated[
        bool, typer.Option("--best", help="Choose the best plan or pair for autoseg_predict; learn its postprocessing.")
    ] = False,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Compare trained plans: accuracy with its uncertainty, beside what it costs.

    Example: autoseg_compare -d Hippocampus --baseline unet
    """
    from autoseg.compare.report import write_report
    from autoseg.compare.runs import datasets_with_runs, load_runs
    from autoseg.compare.summary import Summary
    from autoseg.data.workspace import open_workspace
    from autoseg.documents import read_document
    from autoseg.errors import WorkspaceError

    place, out = open_workspace(workspace), console()
    names = [dataset] if dataset else datasets_with_runs(place)
    if not names:
        raise WorkspaceError(f"{place.root / 'results'}: no runs yet; make one with autoseg_train -d DATASET -a unet -f 0")
    for runs in [load_runs(place, name, plan or ()) for name in names]:
        path = write_report(runs, place.report(runs.dataset), baseline=baseline)
        summary = read_document(path.with_name("summary.json"), Summary)
        out.print(comparison_table(summary))
        out.print(f"{summary.headline}. {' '.join(summary.sentences)}", markup=False, soft_wrap=True)
        out.print(f"wrote {path} (open it in a browser), cases.csv, summary.json", markup=False, soft_wrap=True)
        if best:
            choose(place, runs.dataset, plan or (), device, num_workers(workers))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_compare`` and return its exit status."""
    return run(compare, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
