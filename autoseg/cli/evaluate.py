"""autoseg_evaluate: score a folder of segmentations against a folder of reference labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from autoseg.cli._command import WorkersOption, WorkspaceOption, answer, console, num_workers, run
from autoseg.cli._completion import complete_dataset
from autoseg.cli._progress import progress_bar
from autoseg.cli._tables import metrics_table
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.cli._answers import EvaluateAnswer
    from autoseg.evaluate.evaluate import Metrics

DatasetOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "-d",
        "--dataset",
        help="Dataset whose label names and regions count. Default: each value found.",
        autocompletion=complete_dataset,
    ),
]
OutputOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("-o", "--output", help="Document to write. Default: metrics.json in the prediction folder."),
]
LesionsOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--lesions",
        help="Region whose components count one by one; repeat for several. Default: what -d marks as lesions.",
    ),
]
OnlySegmentedOption = Annotated[
    bool, typer.Option("--only-segmented", help="Leave out cases that the prediction folder lacks.")
]


def evaluate(
    reference: Annotated[Path, typer.Option("-r", "--reference", help="Folder of reference labels.")],
    prediction: Annotated[Path, typer.Option("-p", "--prediction", help="Folder of segmentations, named alike.")],
    dataset: DatasetOption = None,
    output: OutputOption = None,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0, help="Tolerance of the surface Dice, in mm.")] = 2.0,
    lesions: LesionsOption = None,
    only_segmented: OnlySegmentedOption = False,
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Score segmentations of every case and region: overlap, surface distances, volumes, and detection of lesions.

    Example: autoseg_evaluate -r labelsTs -p segmentations -d Hippocampus
    """
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import open_workspace
    from autoseg.documents import write_document
    from autoseg.evaluate.evaluate import evaluate_label_folders

    described = find_dataset(dataset, open_workspace(workspace)) if dataset else None
    labels, marked = (described.labels, described.lesions) if described else (None, ())
    out = console()
    options: dict[str, Any] = {
        "tolerance_mm": tolerance,
        "lesions": lesions or marked,
        "only_segmented": only_segmented,
        "num_workers": num_workers(workers),
    }
    with progress_bar("scoring", None) as advance:
        metrics = evaluate_label_folders(reference, prediction, labels, **options, on_case=advance)
    path = output or prediction / "metrics.json"
    write_document(path, metrics)
    out.print(metrics_table(metrics.mean, f"mean of {count(len(metrics.cases), 'case')}", tolerance))
    out.print(f"wrote {path}", soft_wrap=True)
    name = dataset or "DATASET"
    following = (
        f"autoseg_compare -d {name} --add NAME={path.parent}   (beside the trained plans, under a name of yours)"
    )
    if path.name == "metrics.json":  # where --add looks for it
        out.print(f"next: {following}", markup=False, soft_wrap=True)
    answer(lambda: _answer(path, metrics))


def _answer(path: Path, metrics: "Metrics") -> "EvaluateAnswer":
    from autoseg.cli._answers import EvaluateAnswer

    undefined, mean = metrics.undefined, metrics.mean
    return EvaluateAnswer(path=str(path), num_cases=len(metrics.cases), mean=mean, undefined=undefined)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_evaluate`` and return its exit status."""
    return run(evaluate, arguments, answers=True)


if __name__ == "__main__":
    raise SystemExit(main())
