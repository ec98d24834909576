"""Components are found by their file names; a mistake in a name is told with what is near it."""

import sys
from pathlib import Path

import pytest

import autoseg.losses
from autoseg.components import available_components, load_component
from autoseg.errors import PlanError, nearest


def test_listing_is_the_public_files_of_the_folder() -> None:
    folder = Path(autoseg.losses.__file__).parent
    expected = sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))
    assert available_components(autoseg.losses) == expected


def test_listing_imports_no_component() -> None:
    sys.modules.pop("autoseg.losses.focal", None)
    available_components(autoseg.losses)
    assert "autoseg.losses.focal" not in sys.modules


def test_loading_by_name_gives_the_file() -> None:
    assert load_component(autoseg.losses, "focal", "loss").__name__ == "autoseg.losses.focal"


def test_unknown_name_tells_the_nearest_and_all() -> None:
    with pytest.raises(PlanError, match=r"unknown loss 'tverski'; did you mean 'tversky'\?; available: .*dice_ce"):
        load_component(autoseg.losses, "tverski", "loss")


def test_private_file_is_no_component() -> None:
    with pytest.raises(PlanError, match="unknown loss '_overlap'"):
        load_component(autoseg.losses, "_overlap", "loss")


def test_dotted_name_imports_a_module_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder_outside").mkdir()
    (tmp_path / "folder_outside" / "net.py").write_text("MARK = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_component(autoseg.losses, "folder_outside.net", "loss").MARK == 7


def test_dotted_name_that_is_not_there_is_the_users_mistake() -> None:
    with pytest.raises(PlanError, match="'no_such_package.net': no module of that name"):
        load_component(autoseg.losses, "no_such_package.net", "loss")


def test_import_error_inside_a_users_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_outside").mkdir()
    (tmp_path / "broken_outside" / "net.py").write_text("import a_module_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_installed"):
        load_component(autoseg.losses, "broken_outside.net", "loss")


@pytest.mark.parametrize(("name", "expected"), [("atention", "; did you mean 'attention'?"), ("zzz", "")])
def test_nearest(name: str, expected: str) -> None:
    assert nearest(name, ["attention", "unet"]) == expected
