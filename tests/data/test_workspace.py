"""The workspace is the option's, else the variable's, else the current directory."""

from pathlib import Path

import pytest

from autoseg.data.workspace import Workspace, open_workspace
from autoseg.errors import WorkspaceError


def test_order_of_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.chdir(other)
    monkeypatch.delenv("AUTOSEG_WORKSPACE", raising=False)
    assert open_workspace(None).root == other
    monkeypatch.setenv("AUTOSEG_WORKSPACE", str(one))
    assert open_workspace(None) == Workspace(one, None)
    monkeypatch.setenv("nnUNet_raw", "/data/nn")
    assert open_workspace(other) == Workspace(other, Path("/data/nn"))
    monkeypatch.setenv("nnUNet_preprocessed", "/data/pp")
    assert open_workspace(other) == Workspace(other, Path("/data/nn"), Path("/data/pp"))


def test_a_missing_folder_says_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkspaceError, match="nowhere.*from -w"):
        open_workspace(tmp_path / "nowhere")
    monkeypatch.setenv("AUTOSEG_WORKSPACE", str(tmp_path / "gone"))
    with pytest.raises(WorkspaceError, match="gone.*AUTOSEG_WORKSPACE"):
        open_workspace(None)


def test_the_folders_are_those_of_the_documentation(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    found = [
        place.raw, place.fingerprint("D"), place.splits("D"), place.plan("D", "unet"),
        place.preprocessed("D", "a" * 64), place.fold("D", "unet", 3), place.report("D"),
    ]  # fmt: skip
    expected = (
        "raw plans/D/fingerprint.json plans/D/splits.json plans/D/unet.json preprocessed/D/aaaaaaaaaaaa "
        "results/D/unet/fold_3 reports/D"
    )
    assert [str(path.relative_to(tmp_path)) for path in found] == expected.split()
    assert list(tmp_path.iterdir()) == []
