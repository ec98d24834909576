"""With --json standard output holds one document and nothing else, and people's lines go to standard error."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from autoseg.cli._answers import ANSWERS
from autoseg.cli._completion import COMMANDS


def _ask(capsys: pytest.CaptureFixture[str], name: str, *arguments: str, status: int = 0) -> Any:
    """Run a command with --json; return what it answered."""
    capsys.readouterr()
    main = importlib.import_module(f"autoseg.cli.{name}").main
    assert main([*arguments, "--json"]) == status
    return _read(capsys.readouterr().out, name)


def _read(out: str, name: str) -> Any:
    """Return an answer after it was read as the document that it claims to be."""
    content = json.loads(out)
    kinds = {kind.model_fields["schema_"].default: kind for kind in ANSWERS[name]}
    kinds[content["schema"]].model_validate_json(out)
    return content


def test_plan_tells_what_was_planned_and_where(planned_once: Path) -> None:
    answer = _read((planned_once / "answer.json").read_text(), "plan")
    assert (answer["dataset"], answer["num_cases"], answer["failed_cases"]) == ("Phantom", 6, [])
    assert (answer["skipped"], [plan["name"] for plan in answer["plans"]]) == ({}, ["tiny"])
    plan = answer["plans"][0]
    assert (plan["architecture"], plan["patch_size"], plan["batch_size"]) == ("unet", [16, 16, 16], 2)
    assert Path(plan["path"]).is_file() and len(list(Path(plan["preprocessed"]).iterdir())) > 6
    assert all(Path(path).is_file() for path in answer["written"])
    assert answer["next"] == "autoseg_train -d Phantom -a tiny -f 0"


def test_plan_tells_of_a_part(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = _ask(capsys, "plan", "-d", "Phantom", "-w", str(workspace), "--part", "2/4")
    assert (answer["part"], answer["num_cases"], answer["errors"]) == ("2/4", 2, 0)


def test_plan_explains(planned_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = _ask(capsys, "plan", "-d", "Phantom", "-w", str(planned_once), "--explain", "tiny")
    assert "training.epochs" in {field["field"] for field in answer["fields"]}


def test_plan_tells_a_difference(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = _ask(capsys, "plan", "-d", "Phantom", "-w", str(trained), "--diff", "good", "poor")
    rows = {row["field"]: (row["first"], row["second"]) for row in answer["fields"]}
    assert rows["training.seed"] == ("1", "4")


def test_explain_and_diff_at_once_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from autoseg.cli.plan import main

    assert main(["--explain", "good", "--diff", "good", "poor", "-w", str(trained), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "exclude each other" in told.err


def test_run_tells_what_is_where(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = _ask(capsys, "run", "-d", "Phantom", "-w", str(trained), "-a", "good", "-f", "0", "-f", "2", "--status")
    states = [(row["plan"], row["fold"], row["state"], row["epochs"], row["job"]) for row in answer["runs"]]
    assert states == [("good", 0, "finished", 0, None), ("good", 2, "not started", 0, None)]
    assert answer["finished"] == 1 and 0.5 < answer["runs"][0]["dice"] <= 1


def test_predict_tells_what_it_wrote_kept_and_could_not_read(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    source = next(iter((trained / "raw").glob("*/imagesTs/*")))
    shutil.copy(source, images / "good_0000.nii.gz")
    (images / "bad_0000.nii.gz").write_bytes(b"no image")
    arguments = ("-d", "Phantom", "-w", str(trained), "-a", "good", "-i", str(images), "-o", str(output))
    answer = _ask(capsys, "predict", *arguments, "--device", "cpu", status=1)
    assert answer["written"] == [str(output / "good.nii.gz")] and Path(answer["written"][0]).is_file()
    assert list(answer["failed"]) == ["bad"] and answer["kept"] == []
    again = _ask(capsys, "predict", *arguments, "--device", "cpu", status=1)
    assert again["written"] == [] and again["kept"] == answer["written"]


def test_evaluate_tells_the_means(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = next((trained / "raw").glob("*/labelsTr"))
    predicted = trained / "results" / "Phantom" / "good" / "fold_0" / "validation"
    some = tmp_path / "labels"
    some.mkdir()
    for path in predicted.glob("*.nii.gz"):
        shutil.copy(labels / path.name, some)
    out = tmp_path / "metrics.json"
    arguments = ("-d", "Phantom", "-w", str(trained), "-o", str(out))
    answer = _ask(capsys, "evaluate", "-r", str(some), "-p", str(predicted), *arguments)
    assert answer["mean"] == json.loads(out.read_text())["mean"]
    assert answer["num_cases"] == len(list(some.iterdir()))


def test_compare_gives_the_summary(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(trained, root, symlinks=True)
    answer = _ask(capsys, "compare", "-d", "Phantom", "-w", str(root), "--baseline", "good", "--no-images")
    summary = json.loads((root / "reports" / "Phantom" / "summary.json").read_text())
    assert answer["summaries"] == {"Phantom": summary}
    assert Path(answer["reports"]["Phantom"]).is_file()


def test_people_are_told_on_standard_error(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from autoseg.cli.run import main

    assert main(["-d", "Phantom", "-w", str(trained), "-a", "good", "-f", "0", "--status", "--json"]) == 0
    told = capfd.readouterr()
    json.loads(told.out)
    assert "last attempt" in told.err
    assert "\x1b" not in told.out + told.err


@pytest.mark.parametrize("name", [name for name in COMMANDS if name in ANSWERS])
def test_a_mistake_prints_no_json(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = {
        "plan": [], "train": ["-a", "unet", "-f", "0"], "predict": ["-i", "images", "-o", str(tmp_path / "out")],
        "evaluate": ["-r", "references", "-p", "predictions"], "compare": [], "run": [],
    }[name]  # fmt: skip
    arguments = ["-d", "Nothing", "-w", str(tmp_path), *needed, "--json"]
    assert importlib.import_module(f"autoseg.cli.{name}").main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
