"""autoseg_plan without images, and its options that only show something."""

import json
from pathlib import Path

import pytest

from autoseg.cli import plan

Captured = pytest.CaptureFixture[str]

INTENSITIES = {
    "mean": 1.5, "median": 1.0, "std": 2.0, "min": -3.0, "max": 9.0, "percentile_00_5": -2.0, "percentile_99_5": 8.0,
}  # fmt: skip


def _folder(root: Path, shape: list[int], spacing: list[float]) -> Path:
    folder = root / "Dataset007_Liver"
    folder.mkdir()
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 20}
    fingerprint = {
        "spacings": [spacing] * 20, "shapes_after_crop": [shape] * 20, "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return folder


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return _folder(tmp_path, [36, 50, 35], [1.0, 1.0, 1.0])


def _plans(root: Path) -> set[str]:
    return {path.stem for path in (root / "plans" / "Liver").glob("*.json")} - {"fingerprint"}


def test_nnunets_files_are_planned_without_images(volumes: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["-d", str(volumes), "-w", str(tmp_path), "-a", "nnunet", "-a", "nnunet_2d", "-a", "nnunet_lowres"]
    assert plan.main(arguments) == 0
    assert _plans(tmp_path) == {"nnunet", "nnunet_2d"}
    shown = capsys.readouterr().out
    assert "40x56x40" in shown and "skipped nnunet_lowres: low resolution" in shown
    assert not (tmp_path / "preprocessed").exists()


def test_slices_get_plans_in_two_dimensions(tmp_path: Path, capsys: Captured) -> None:
    folder = _folder(tmp_path, [1, 64, 64], [999.0, 1.0, 1.0])
    assert plan.main(["-d", str(folder), "-w", str(tmp_path)]) == 0
    assert _plans(tmp_path) == {"unet_2d", "nnunet_2d", "attention_unet_2d", "unetr_2d"}
    reason = "skipped unet, nnunet, attention_unet, unetr: Liver: the median image is 1 x 64 x 64"
    assert reason in capsys.readouterr().out
    assert plan.main(["-d", str(folder), "-w", str(tmp_path), "-a", "nnunet"]) == 2


def test_downsampling_plans_everything_again(volumes: Path, tmp_path: Path) -> None:
    arguments = ["-d", str(volumes), "-w", str(tmp_path), "-a", "nnunet"]
    assert plan.main([*arguments, "--name", "coarse", "--set", "preprocessing.downsample=2"]) == 0
    assert plan.main([*arguments, "--name", "same", "--downsample", "2"]) == 0
    paths = (tmp_path / "plans" / "Liver" / f"{name}.json" for name in ("coarse", "same"))
    coarse, same = (json.loads(path.read_text()) for path in paths)
    assert coarse["preprocessing"]["spacing"] == [2.0, 2.0, 2.0]
    assert coarse["training"]["patch_size"] == [20, 28, 20]
    assert {**coarse, "name": "same"} == same


def test_memory_is_a_number_or_this_machines(volumes: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["-d", str(volumes), "-w", str(tmp_path), "-a", "nnunet_resenc_l"]
    assert plan.main([*arguments, "--memory", "much"]) == 2
    assert "expected a number of GB, at least 0.1, or auto" in capsys.readouterr().err
    assert plan.main([*arguments, "--memory", "12"]) == 0
    written = json.loads((tmp_path / "plans" / "Liver" / "nnunet_resenc_l.json").read_text())
    assert written["budget"]["memory_gb"] == 12.0


def test_plans_are_explained_and_compared(volumes: Path, tmp_path: Path, capsys: Captured) -> None:
    place = ["-w", str(tmp_path)]
    assert plan.main(["-d", str(volumes), *place, "-a", "nnunet", "-a", "nnunet_2d"]) == 0
    capsys.readouterr()
    assert plan.main([*place, "--explain", "nnunet"]) == 0
    story = capsys.readouterr().out
    assert "training.patch_size = [40, 56, 40]\n  Started at 36 x 50 x 35" in story
    path = str(tmp_path / "plans" / "Liver" / "nnunet_2d.json")
    assert plan.main([*place, "-d", "Liver", "--diff", "nnunet", path]) == 0
    shown = capsys.readouterr().out
    assert "training.patch_size" in shown and "[56, 40]" in shown and "training.seed" not in shown
    assert plan.main([*place, "--explain", "nnunett"]) == 2
    assert "no plan of that name" in capsys.readouterr().err
    assert plan.main(place) == 2
    assert "--dataset" in capsys.readouterr().err


def test_a_training_of_weeks_is_told_with_a_remedy(
    volumes: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["-d", str(volumes), "-w", str(tmp_path), "-a", "nnunet"]
    for seconds, remedy in ((3600, "--downsample 2"), (1000, "--time-budget 6h"), (600, None)):  # of 1,000 epochs each
        monkeypatch.setattr("autoseg.plan.throughput.epoch_seconds", lambda *_, seconds=seconds: seconds)
        assert plan.main(options) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("all epochs of nnunet take")]
        assert len(lines) == bool(remedy) and all(f"{remedy} " in line and "days on this" in line for line in lines)


def test_what_takes_more_than_was_asked_for_is_warned_of(volumes: Path, tmp_path: Path, capsys: Captured) -> None:
    for memory, told in (("0.1", True), ("8", False)):
        assert plan.main(["-d", str(volumes), "-w", str(tmp_path), "-a", "nnunet", "--memory", memory]) == 0
        assert ("more than the 0.1 GB that it was planned for" in capsys.readouterr().out) is told
