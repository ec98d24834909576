"""``autoseg_plan`` on a dataset with problems: a table, one line, a document, and a status."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.cli.plan import main


@pytest.fixture
def broken(workspace: Path, tmp_path: Path, phantom_folder: Path) -> Path:
    """A copy of the phantom, as links; its files may be replaced."""
    folder = workspace / "copy"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for path in (phantom_folder / part).iterdir():
            (folder / part / path.name).symlink_to(path)
    (folder / "dataset.json").write_text((phantom_folder / "dataset.json").read_text())
    return folder


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def run(broken: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str, dict]:
    status = main(["-d", str(broken), "-a", "unet", "--no-preprocess", "-w", str(broken.parent)])
    out, err = capsys.readouterr()
    return status, out, err, json.loads((broken.parent / "plans" / "copy" / "problems.json").read_text())


def test_errors_are_all_told(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 7):
        replace(broken / "imagesTr" / f"phantom_{number:03d}_0000.nii.gz", b"rubbish" * number)
    (broken / "labelsTr" / "phantom_002.nii.gz").unlink()
    status, out, err, document = run(broken, capsys)
    assert status == 2 and len(err.splitlines()) == 1
    assert "6 errors" in err and "and 1 more" in err and str(broken.parent / "plans" / "copy" / "problems.json") in err
    assert (document["schema"], document["errors"], document["warnings"]) == ("autoseg.problems.1", 6, 0)
    assert [p["case"] for p in document["problems"]] == [f"phantom_{n:03d}" for n in (2, 1, 3, 4, 5, 6)]
    for number in (1, 3, 4, 5, 6):
        assert f"imagesTr/phantom_{number:03d}_0000.nii.gz" in "".join(out.split())
    assert not (broken.parent / "plans" / "copy" / "fingerprint.json").exists()


def test_warnings_do_not_stop(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = sitk.ReadImage(str(broken / "labelsTr" / "phantom_001.nii.gz"))
    (broken / "labelsTr" / "phantom_001.nii.gz").unlink()
    sitk.WriteImage(label * 0, str(broken / "labelsTr" / "phantom_001.nii.gz"))
    status, out, err, document = run(broken, capsys)
    assert status == 0 and err == "" and "0 errors and 1 warning, worst first" in out and "no foreground" in out
    assert [p["kind"] for p in document["problems"]] == ["empty label"]
    assert np.size(document["problems"]) == 1 and (broken.parent / "plans" / "copy" / "unet.json").is_file()
