"""The commands of the tutorials, typed one after the other as they stand, on phantoms and with few iterations."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import SimpleITK as sitk

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorial"
BRIEF = (
    "training.epochs=1", "training.iterations_per_epoch=2", "training.validation_iterations=1",
    "prediction.mirror_axes=[]",
)  # fmt: skip


def _commands(page: str) -> dict[str, list[list[str]]]:
    """Return the words of each command, by the heading that it stands under."""
    commands: dict[str, list[list[str]]] = {}
    heading, inside = "", False
    for line in (TUTORIALS / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("```"):
            inside = line == "```bash"
        elif inside:
            commands.setdefault(heading, []).append(shlex.split(line, comments=True))
    return commands


def _type(words: list[str]) -> None:
    """Run a command; a training's length gives way to a brief one, and everything happens on the CPU."""
    program, *arguments = words
    if "--set" in arguments:
        kept = [word for word, before in zip(arguments, [None, *arguments]) if "--set" not in (word, before)]
        assert any(word.startswith("training.epochs=") for word in arguments)
        arguments = [*kept, *(word for text in BRIEF for word in ("--set", text))]
    if program in ("autoseg_train", "autoseg_predict", "autoseg_run"):
        arguments += ["--device", "cpu"]
    module = importlib.import_module(f"autoseg.cli.{program.removeprefix('autoseg_')}")
    assert module.main(arguments) == 0, f"{program} {shlex.join(arguments)}"


def _check_geometry(images: Path, segmentations: Path) -> None:
    written = sorted(segmentations.glob("*.nii*"))
    assert len(written) == len(list(images.iterdir())) > 0
    for path in written:
        (source,) = images.glob(f"{path.name.partition('.')[0]}*")
        image, segmentation = sitk.ReadImage(str(source)), sitk.ReadImage(str(path))
        for attribute in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(segmentation, attribute)() == getattr(image, attribute)(), attribute


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace that is the current folder, on a machine whose GPU has 8 GB."""
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("autoseg.launch.prepare.gpu_memory_gb", lambda: 8.0)
    return tmp_path


def test_mr_hippocampus(here: Path, phantom_folder: Path) -> None:
    (here / "raw" / "Dataset004_Hippocampus").symlink_to(phantom_folder)
    (here / "new_images").symlink_to(phantom_folder / "imagesTs")
    commands = _commands("mr-hippocampus.md")
    assert [len(typed) for typed in commands.values()] == [2, 2, 1, 1]
    for typed in commands.values():
        for words in typed:
            _type(words)
    assert json.loads((here / "plans" / "Hippocampus" / "unet.json").read_text())["rationale"]
    report = (here / "reports" / "Hippocampus" / "report.html").read_text(encoding="utf-8")
    assert "unet_short" in report and "attention_unet_short" in report
    _check_geometry(here / "new_images", here / "segmentations")


def _lay_out_as_lits(phantom: Path, folder: Path) -> None:
    """Write the phantom's cases as LiTS is downloaded, and its images without labels as new scans."""
    pairs = [("imagesTr", "volume", folder / "raw" / "Lits"), ("labelsTr", "segmentation", folder / "raw" / "Lits"),
             ("imagesTs", "scan", folder / "new_scans")]  # fmt: skip
    for source, kind, target in pairs:
        target.mkdir(exist_ok=True)
        for index, path in enumerate(sorted((phantom / source).iterdir())):
            sitk.WriteImage(sitk.ReadImage(str(path)), str(target / f"{kind}-{index}.nii"))


def test_ct_liver(here: Path, phantom_folder: Path) -> None:
    """All but the cascade, which needs larger images (tests/cli/test_cascade.py), and the tables' trainings."""
    _lay_out_as_lits(phantom_folder, here)
    commands = _commands("ct-liver.md")
    measure, tonight, cascade, table, read, use = commands.values()
    assert [words[0] for words in cascade] == ["autoseg_plan", "autoseg_run", "autoseg_run"]
    (trainings,) = tonight
    for name in ("nnunet", "segresnet"):  # one network takes long enough here
        place = trainings.index(name)
        assert trainings[place - 1] == "-a"
        del trainings[place - 1 : place + 1]
    for words in [*measure, trainings, *([*words, "--status"] for words in table if "--status" not in words)]:
        _type(words)
    assert (here / "plans" / "Lits" / "unet.preprocessing.png").is_file()
    for words in [*read, *use]:  # what was trained tonight takes the place of what a cluster trained
        _type([re.sub(r"^unet$", "unet_short", word) for word in words])
    _check_geometry(here / "new_scans", here / "segmentations")
    assert {"fold_0.onnx", "plan.json", "segment.py"} <= {path.name for path in (here / "liver_model").iterdir()}
