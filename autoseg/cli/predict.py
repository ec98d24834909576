"""autoseg_predict: segment new images with a trained plan, or with several."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from autoseg.cli._command import (
    SOME_FAILED,
    USER_ERROR,
    DatasetOption,
    DeviceOption,
    WorkspaceOption,
    answer,
    console,
    run,
)
from autoseg.cli._completion import complete_plan
from autoseg.cli._progress import duration, progress_bar
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.cli._answers import PredictAnswer

ImagesOption = Annotated[
    Path,
    typer.Option("-i", "--input", help="Folder of images (CASE_0000.nii.gz ..., or DICOM folders), or one image."),
]
PlanOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "-a",
        "--plan",
        help="Plan; repeat to average. Default: what autoseg_compare --best chose.",
        autocompletion=complete_plan,
    ),
]
FoldOption = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option("-f", "--fold", help="Fold whose network to use; repeat to average. Default: all trained folds."),
]
SaveProbabilitiesOption = Annotated[
    bool, typer.Option("--save-probabilities", help="Write CASE_probabilities.b2nd too.")
]
OverlayOption = Annotated[bool, typer.Option("--overlay", help="Draw outlines: CASE.png and an animated CASE.gif.")]
NoPostprocessingOption = Annotated[
    bool, typer.Option("--no-postprocessing", help="Leave out what autoseg_compare --best learnt.")
]


def predict(
    dataset: DatasetOption,
    images: ImagesOption,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the segmentations; made if missing.")],
    plan: PlanOption = None,
    fold: FoldOption = None,
    save_probabilities: SaveProbabilitiesOption = False,
    overlay: OverlayOption = False,
    no_postprocessing: NoPostprocessingOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace segmentations that are there.")] = False,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = None,
) -> None:
    """Segment images; each segmentation has its image's own geometry and format. Goes on from where it stopped.

    Example: autoseg_predict -d Hippocampus -a unet -i new_images -o segmentations
    """
    from autoseg.data.dataset import find_images, name_dataset
    from autoseg.data.workspace import open_workspace
    from autoseg.launch.fold import choose_device
    from autoseg.launch.inference import check_output, chosen_plans, claim_output, open_model, release_output

    check_output(output)
    place, chosen = open_workspace(workspace), choose_device(device)
    name = name_dataset(dataset, place)
    plans = chosen_plans(place, name, plan)
    model, record = open_model(place, name, plans, fold or (), chosen, with_postprocessing=not no_postprocessing)
    cases = find_images(images, model.plan.dataset.channels)
    made = not output.exists()
    claim_output(output, record, cases, overwrite=overwrite)
    _announce(record, len(cases), chosen)
    done = _segment(model, cases, output, overwrite, save_probabilities)
    if len(done.failed) == len(cases):
        release_output(output, made=made)
        answer(lambda: _answer(record, output, done))
        raise typer.Exit(USER_ERROR)
    if overlay:
        _draw(cases, output, model)
    console().print(
        f"next: autoseg_evaluate -r REFERENCE -p {output} -d {record.dataset}   (if you have reference labels)",
        soft_wrap=True,
    )
    answer(lambda: _answer(record, output, done))
    if done.failed:
        raise typer.Exit(SOME_FAILED)


def _announce(record: Any, num_cases: int, device: Any) -> None:
    parts = [
        f"{f'{p.previous_stage}, then ' if p.previous_stage else ''}{p.name} "
        f"({'fold' if len(p.folds) == 1 else 'folds'} {', '.join(map(str, p.folds))}; weight {p.weight:.3g})"
        for p in record.plans
    ]
    steps = record.postprocessing.steps if record.postprocessing else ()
    after = "; then " + ", ".join(f"{step.action} of {step.region}" for step in steps) if steps else ""
    console().print(
        f"{' + '.join(parts)} of {record.dataset}: {count(num_cases, 'case')}, on {device}{after}",
        markup=False,
        soft_wrap=True,
    )


@dataclass(frozen=True)
class _Done:
    """File names of what was segmented and of what stood there already, why cases failed, and seconds."""

    written: list[str]
    kept: list[str]
    failed: dict[str, str]
    seconds: float


def _segment(model: Any, cases: Sequence[Any], output: Path, overwrite: bool, save_probabilities: bool) -> _Done:
    """Segment the cases and tell which could not be."""
    from autoseg.predict.predictor import ending_of, predict_cases

    failed: dict[str, str] = {}

    def report(name: str, error: Exception) -> None:
        failed[name] = " ".join(str(error).split())
        sys.stderr.write(f"error: case {name}: {failed[name]}\n")

    with progress_bar("predicting", len(cases)) as advance:
        timings = predict_cases(
            model, cases, output, on_case=advance, on_error=report, skip_existing=not overwrite,
            save_probabilities=save_probabilities,
        )  # fmt: skip
    total = sum(timing.seconds for timing in timings)
    new = {timing.name for timing in timings}
    names = {case.name: f"{case.name}{ending_of(case.images[0])}" for case in cases}
    kept = [file for name, file in names.items() if name not in new and name not in failed]
    notes = [
        f", {count(len(kept), 'was', 'were')} there already" if kept else "",
        f", {len(failed)} could not be read" if failed else "",
    ]
    text = f"wrote {count(len(timings), 'segmentation')} to {output} in {duration(total)}{''.join(notes)}"
    console().print(text, markup=False, soft_wrap=True)
    return _Done([file for name, file in names.items() if name in new], kept, failed, total)


def _answer(record: Any, output: Path, done: _Done) -> "PredictAnswer":
    from autoseg.cli._answers import PredictAnswer, files_of

    return PredictAnswer(
        dataset=record.dataset, plans=tuple(one.name for one in record.plans), output=str(output),
        written=files_of(output, done.written), kept=files_of(output, done.kept), failed=done.failed,
        seconds=done.seconds,
    )  # fmt: skip


def _draw(cases: Sequence[Any], output: Path, model: Any) -> None:
    from autoseg.predict.overlay import draw_overlays
    from autoseg.predict.predictor import ending_of

    targets = [(case, output / f"{case.name}{ending_of(case.images[0])}") for case in cases]
    there = [(case, path) for case, path in targets if path.is_file()]
    with progress_bar("drawing", len(there)) as advance:
        for case, path in there:
            draw_overlays(case, path, model.plan.dataset.label_scheme)
            advance()
    console().print(f"wrote {2 * len(there)} pictures to {output}: CASE.png and CASE.gif", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_predict`` and return its exit status."""
    return run(predict, arguments, answers=True)


if __name__ == "__main__":
    raise SystemExit(main())
