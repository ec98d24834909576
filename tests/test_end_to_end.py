"""The whole flow through the commands, on a small phantom."""

import csv
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import SimpleITK as sitk

from autoseg.cli import compare, evaluate, plan, predict, train
from autoseg.cli._answers import TrainAnswer

BRIEF = (
    "training.patch_size=[16,32,32]", "training.batch_size=2", "training.epochs=2", "training.iterations_per_epoch=3",
    "training.validation_iterations=1", "prediction.mirror_axes=[]",
)  # fmt: skip


def _run(module: object, *arguments: str) -> None:
    assert module.main(list(arguments)) == 0  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """A workspace in which two small plans were trained on two folds and compared."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "raw").symlink_to(phantom_folder.parent)
    place = ("-d", "Phantom", "-w", str(root))
    settings = [word for text in BRIEF for word in ("--set", text)]
    _run(plan, *place, "-a", "unet", "-a", "nnunet", "--name", "brief", *settings)
    for name in ("unet_brief", "nnunet_brief"):
        with redirect_stdout(io.StringIO()) as out:
            _run(train, *place, "-a", name, "-f", "0", "--device", "cpu", "--json")
        (root / f"{name}.answer.json").write_text(out.getvalue())
    _run(predict, *place, "-a", "unet_brief", "-i", str(phantom_folder / "imagesTs"), "-o", str(root / "predicted"))
    _run(compare, *place, "--baseline", "unet_brief")
    return root


def test_every_promised_file_is_there(finished: Path) -> None:
    run = finished / "results" / "Phantom" / "unet_brief" / "fold_0"
    expected = ("plan.json", "run.json", "checkpoints/last.pt", "checkpoints/best.pt", "logs/train.log",
                "logs/metrics.jsonl", "validation/metrics.json", "validation/timing.json")  # fmt: skip
    assert [name for name in expected if not (run / name).is_file()] == []
    assert list((run / "events").iterdir())
    assert not list(finished.rglob(".partial*"))
    written = [p.name for p in sorted((finished / "reports" / "Phantom").iterdir())]
    assert written == ["cases.csv", "report.html", "summary.json", "table.md", "table.tex"]


def test_training_answers_a_program(finished: Path) -> None:
    answer = TrainAnswer.model_validate_json((finished / "unet_brief.answer.json").read_text())
    run = finished / "results" / "Phantom" / "unet_brief" / "fold_0"
    assert (answer.plan, answer.fold, answer.folder) == ("unet_brief", 0, str(run))
    assert answer.mean == json.loads((run / "validation" / "metrics.json").read_text())["mean"]


def test_one_line_of_metrics_an_epoch(finished: Path) -> None:
    text = (finished / "results" / "Phantom" / "unet_brief" / "fold_0" / "logs" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["epoch"] for line in lines] in ([0, 1], [1, 2])
    assert all(line["train_loss"] is not None for line in lines)


def test_predictions_have_the_geometry_of_their_images(finished: Path, phantom_folder: Path) -> None:
    images = sorted((phantom_folder / "imagesTs").iterdir())
    assert images
    for path in images:
        image = sitk.ReadImage(str(path))
        segmentation = sitk.ReadImage(str(finished / "predicted" / path.name.replace("_0000", "")))
        for attribute in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(segmentation, attribute)() == getattr(image, attribute)(), attribute


def test_the_table_holds_every_validation_case_of_both_plans(finished: Path) -> None:
    splits = json.loads((finished / "plans" / "Phantom" / "splits.json").read_text())
    with (finished / "reports" / "Phantom" / "cases.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "dice" and row["region"] == "liver"]
    expected = {(name, case) for name in ("unet_brief", "nnunet_brief") for case in splits["folds"][0]["validation"]}
    assert {(row["plan"], row["case"]) for row in rows} == expected


def test_evaluating_the_validation_folder_again_gives_the_same_scores(
    finished: Path, phantom_folder: Path, tmp_path: Path
) -> None:
    validation = finished / "results" / "Phantom" / "unet_brief" / "fold_0" / "validation"
    reference = tmp_path / "reference"
    reference.mkdir()
    for path in validation.glob("*.nii.gz"):
        (reference / path.name).symlink_to(phantom_folder / "labelsTr" / path.name)
    output = tmp_path / "again.json"
    arguments = ["-r", str(reference), "-p", str(validation), "-d", "Phantom", "-o", str(output), "-w", str(finished)]
    _run(evaluate, *arguments)
    again, first = json.loads(output.read_text()), json.loads((validation / "metrics.json").read_text())
    assert again["cases"] == first["cases"]


def test_a_finished_training_is_not_repeated(finished: Path) -> None:
    checkpoint = finished / "results" / "Phantom" / "unet_brief" / "fold_0" / "checkpoints" / "last.pt"
    before = checkpoint.stat().st_mtime_ns
    _run(train, "-d", "Phantom", "-w", str(finished), "-a", "unet_brief", "-f", "0", "--device", "cpu")
    assert checkpoint.stat().st_mtime_ns == before
