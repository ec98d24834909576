"""autoseg_predict: segment the images of a folder with a trained plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from autoseg.cli._command import DatasetOption, DeviceOption, WorkspaceOption, console, run
from autoseg.cli._progress import duration, progress_bar
from autoseg.cli.train import PlanOption


def predict(
    dataset: DatasetOption,
    plan: PlanOption,
    images: Annotated[Path, typer.Option("-i", "--input", help="Folder of images, CASE_0000.nii.gz for channel 0 ...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the segmentations; made if missing.")],
    fold: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("-f", "--fold", help="Fold whose network to use; repeat to average. Default: all trained folds."),
    ] = None,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = None,
) -> None:
    """Segment every image of a folder; each segmentation has its image's own geometry.

    Example: autoseg_predict -d Hippocampus -a unet -i new_images -o segmentations
    """
    from autoseg.data.dataset import find_images
    from autoseg.data.layouts import dataset_name
    from autoseg.data.workspace import open_workspace
    from autoseg.launch.fold import choose_device, open_networks, trained_folds
    from autoseg.predict.predictor import predict_cases

    _check_output(output)
    place, chosen = open_workspace(workspace), choose_device(device)
    name = dataset_name(Path(dataset))
    used, networks = open_networks(place, name, plan, fold or (), chosen)
    cases = find_images(images, used.dataset.channels)
    out = console()
    out.print(f"{used.name} of {used.dataset.name}, {len(networks)} folds averaged, {len(cases)} cases, on {chosen}")
    if not fold and (unfinished := len(trained_folds(place, name, plan)) - len(networks)):
        out.print(f"{unfinished} more folds are left out, since their training is not finished")
    with progress_bar("predicting", len(cases)) as advance:
        timings = predict_cases(networks, cases, used, output, device=chosen, on_case=advance)
    total = sum(timing.seconds for timing in timings)
    out.print(f"wrote {len(timings)} segmentations to {output} in {duration(total)}")
    hint = f"autoseg_evaluate -r REFERENCE -p {output} -d {used.dataset.name}"
    out.print(f"next: {hint}   (if you have reference labels)", soft_wrap=True)


def _check_output(folder: Path) -> None:
    """Refuse what can be no folder now, not after the first case was segmented."""
    from autoseg.errors import WorkspaceError

    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise WorkspaceError(f"-o {folder}: {nearest} is a file; name a folder, which is made if it is missing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_predict`` and return its exit status."""
    return run(predict, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
