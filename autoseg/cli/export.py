"""autoseg_export: a trained model to deploy, or to move to another machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autoseg.cli._command import OptionalDatasetOption, WorkspaceOption, console, run
from autoseg.cli._completion import complete_plan
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.data.cases import Case
    from autoseg.data.workspace import Workspace


def export(
    dataset: OptionalDatasetOption = None,
    plan: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-a", "--plan", help="Plan to export.", autocompletion=complete_plan),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", help="New folder for the model; or FILE.zip, to move the trained plan."),
    ] = None,
    fold: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("-f", "--fold", help="Fold whose network to take; repeat. Default: all trained folds."),
    ] = None,
    install: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--install", help="Instead: install such a FILE.zip into results/ of the workspace."),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a trained plan as ONNX and torch export with a model card and a script; or as a zip, or install one.

    Example: autoseg_export -d Hippocampus -a unet -o hippocampus_model
    """
    from autoseg.data.dataset import name_dataset
    from autoseg.data.workspace import open_workspace
    from autoseg.errors import WorkspaceError

    place = open_workspace(workspace)
    if install:
        _install(place, install)
        return
    if not dataset or not plan or not output:
        raise WorkspaceError("-d, -a and -o are needed: the dataset, the plan, and the new folder or FILE.zip")
    name = name_dataset(dataset, place)
    if output.suffix == ".zip":
        _pack(place, name, plan, output, fold or ())
    else:
        _export(place, dataset, name, plan, output, fold or ())


def _install(place: "Workspace", path: Path) -> None:
    from autoseg.launch.archive import install_model

    folder = install_model(place, path)
    out = console()
    out.print(f"wrote {folder}", soft_wrap=True)
    command = f"autoseg_predict -d {folder.parent.name} -a {folder.name} -i IMAGES -o SEGMENTATIONS"
    out.print(f"next: {command}", soft_wrap=True)


def _pack(place: "Workspace", dataset: str, plan: str, output: Path, folds: Sequence[int]) -> None:
    from autoseg.launch.archive import pack_model

    packed = pack_model(place, dataset, plan, output, folds=folds)
    size = output.stat().st_size / 1e6
    out = console()
    out.print(f"wrote {output}: {plan} of {dataset}, folds {packed}, {size:.1f} MB", markup=False, soft_wrap=True)
    out.print(f"next: autoseg_export --install {output.name}   (on the other machine)", soft_wrap=True)


def _export(place: "Workspace", dataset: str, name: str, plan: str, output: Path, folds: Sequence[int]) -> None:
    from autoseg.launch.export import export_model

    document = export_model(place, name, plan, output, folds=folds, cases=_cases(dataset, place))
    check, out = document.check, console()
    source = (
        f"{count(check.num_tiles, 'tile')} of {check.case}" if check.case else "random numbers (no images were found)"
    )
    out.print(
        f"checked on {source}: logits differ by at most {check.onnx_difference:.1e} standard deviations in "
        f"onnxruntime, {check.torch_difference:.1e} in torch; {100 * check.onnx_agreement:.3f} % of the voxels agree",
        soft_wrap=True,
    )
    out.print(f"wrote {output}: fold_*.onnx, fold_*.pt2, plan.json, export.json, segment.py, README.md", soft_wrap=True)
    command = f"python {output}/segment.py IMAGE SEGMENTATION"
    out.print(f"next: {command}   (and complete the model card, README.md)", soft_wrap=True)


def _cases(dataset: str, place: "Workspace") -> "Sequence[Case]":
    """Return the cases of the dataset, for the check; none where its images are not on this machine."""
    from autoseg.data.dataset import find_dataset
    from autoseg.errors import DatasetError

    try:
        return find_dataset(dataset, place).cases
    except DatasetError:
        return ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_export`` and return its exit status."""
    return run(export, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
