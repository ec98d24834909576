"""autoseg_predict, autoseg_export and autoseg_compare --best from the command line: what is bad is told in a word."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.volumes import read_image, read_label, write_volume


def main(name: str, *arguments: str) -> int:
    status: int = importlib.import_module(f"autoseg.cli.{name}").main(list(arguments))
    return status


def refused(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> str:
    """Run a command that must fail with status 2; return its only line on standard error."""
    capsys.readouterr()
    assert main(name, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.fixture
def images(trained: Path, tmp_path: Path) -> Path:
    """A folder with two images, the second smaller than a patch."""
    folder = tmp_path / "images"
    folder.mkdir()
    source = next(iter((trained / "raw").glob("*/imagesTs/*")))
    shutil.copy(source, folder / "one_0000.nii.gz")
    volume = read_image([source])
    small = volume.array[0][:5, :6, :7]
    write_volume(folder / "two_0000.nii.gz", small, volume.geometry.model_copy(update={"shape": small.shape}))
    return folder


def words(trained: Path, images: Path, output: Path, *more: str) -> list[str]:
    return ["-d", "Phantom", "-w", str(trained), "-a", "good", "-i", str(images), "-o", str(output),
            "--device", "cpu", *more]  # fmt: skip


def test_help_of_export_imports_nothing_heavy() -> None:
    code = (
        "import sys; from autoseg.cli.export import main; status = main(['--help']); "
        "sys.exit(status or any(name in sys.modules for name in ('torch', 'numpy', 'pydantic', 'onnx')))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0 and "Example" in finished.stdout


def test_it_goes_on_from_where_it_stopped_and_replaces_on_request(trained, images, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    arguments = words(trained, images, output, "-f", "0")
    assert main("predict", *arguments) == 0
    assert "wrote 2 segmentations" in capsys.readouterr().out
    (output / "two.nii.gz").unlink()
    before = (output / "one.nii.gz").stat().st_mtime_ns
    assert main("predict", *arguments) == 0
    assert "wrote 1 segmentation " in (text := capsys.readouterr().out) and "1 was there already" in text
    assert (output / "one.nii.gz").stat().st_mtime_ns == before and (output / "two.nii.gz").is_file()
    assert "by other plans" in refused(capsys, "predict", *words(trained, images, output, "-f", "1"))
    assert main("predict", *words(trained, images, output, "-f", "1", "--overwrite")) == 0
    assert json.loads((output / "prediction.json").read_text())["plans"][0]["folds"] == [1]


def test_a_constant_and_a_tiny_image_are_segmented(trained, images, tmp_path) -> None:
    volume = read_image([images / "one_0000.nii.gz"])
    write_volume(images / "one_0000.nii.gz", np.full_like(volume.array[0], 7.0), volume.geometry)
    assert main("predict", *words(trained, images, tmp_path / "out")) == 0
    for name in ("one", "two"):
        assert (
            read_label(tmp_path / "out" / f"{name}.nii.gz").geometry.shape
            == read_image([images / f"{name}_0000.nii.gz"]).geometry.shape
        )


def test_one_bad_image_is_reported_and_the_others_go_on(trained, images, tmp_path, capsys) -> None:
    (images / "bad_0000.nii.gz").write_bytes(b"nothing")
    assert main("predict", *words(trained, images, tmp_path / "out")) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and "case bad" in lines[0] and "bad_0000.nii.gz" in lines[0]
    assert "2 segmentations" in captured.out and "1 could not be read" in captured.out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"one.nii.gz", "two.nii.gz", "prediction.json"}


def test_four_dimensions_are_refused_and_the_others_go_on(trained, images, tmp_path, capsys) -> None:
    series = sitk.JoinSeries([sitk.ReadImage(str(images / "two_0000.nii.gz"))] * 2)
    sitk.WriteImage(series, str(images / "film_0000.nii.gz"))
    assert main("predict", *words(trained, images, tmp_path / "out")) in (1, 2)
    assert "film" in capsys.readouterr().err
    assert not (tmp_path / "out" / "film.nii.gz").exists()


def test_probabilities_and_pictures_on_request(trained, images, tmp_path) -> None:
    (images / "one_0000.nii.gz").unlink()
    assert main("predict", *words(trained, images, tmp_path / "out", "--save-probabilities", "--overlay")) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"two.nii.gz", "two_probabilities.b2nd", "two.png", "two.gif", "prediction.json"}


def test_what_cannot_be_predicted_is_refused_before_anything_is_written(trained, images, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "no images" in refused(capsys, "predict", *words(trained, tmp_path / "empty", output))
    assert "nowhere" in refused(capsys, "predict", *words(trained, tmp_path / "nowhere", output))
    shutil.copy(images / "one_0000.nii.gz", images / "one_0001.nii.gz")
    assert "one" in refused(capsys, "predict", *words(trained, images, output))
    (images / "one_0001.nii.gz").unlink()
    assert "fold" in refused(capsys, "predict", *words(trained, images, output, "-f", "7"))
    assert not output.exists()


def test_broken_models_are_refused(trained, images, tmp_path, capsys) -> None:
    own, output = tmp_path / "own", tmp_path / "out"
    shutil.copytree(trained, own, symlinks=True)
    run = own / "results" / "Phantom" / "good"
    checkpoint = run / "fold_0" / "checkpoints" / "last.pt"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    assert "last.pt" in refused(capsys, "predict", *words(own, images, output, "-f", "0"))
    (run / "fold_1" / "plan.json").unlink()
    checkpoint.unlink()
    assert "plan.json" in refused(capsys, "predict", *words(own, images, output, "-f", "1"))
    shutil.rmtree(run)
    assert "autoseg_train" in refused(capsys, "predict", *words(own, images, output))
    assert not output.exists()


def test_the_best_is_chosen_written_and_used(trained, images, tmp_path, capsys) -> None:
    own = tmp_path / "own"
    shutil.copytree(trained, own, symlinks=True)
    place = ["-d", "Phantom", "-w", str(own)]
    arguments = [*place, "-i", str(images), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert "autoseg_compare --best" in refused(capsys, "predict", *arguments)
    assert main("compare", *place, "--best", "--device", "cpu") == 0
    assert "The best plan is good" in (text := capsys.readouterr().out) and "good + poor" in text
    assert main("predict", *arguments) == 0
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert [plan["name"] for plan in record["plans"]] == ["good"]
    assert record["postprocessing"]["steps"][0]["region"] == "liver"


def test_archives_move_a_plan_and_mistakes_are_told(trained, tmp_path, capsys) -> None:
    place, path = ["-d", "Phantom", "-w", str(trained), "-a", "good"], tmp_path / "good.zip"
    assert "-o" in refused(capsys, "export", *place)
    assert main("export", *place, "-o", str(path)) == 0
    (tmp_path / "new").mkdir()
    assert main("export", "--install", str(path), "-w", str(tmp_path / "new")) == 0
    assert (tmp_path / "new" / "results" / "Phantom" / "good" / "fold_1" / "plan.json").is_file()
    assert "is there already" in refused(capsys, "export", "--install", str(path), "-w", str(tmp_path / "new"))
    assert "no trained fold" in refused(capsys, "export", *place[:-1], "none", "-o", str(tmp_path / "x.zip"))
    assert "exists already" in refused(capsys, "export", *place, "-o", str(path))
