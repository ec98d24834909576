"""A component in a file of one's own: it is found where one stands, and its mistakes are told in one line."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import PlanError
from autoseg.losses import load_loss
from autoseg.networks import load_architecture
from autoseg.plan.plan import _nearest_sizes
from autoseg.plan.planner import make_plan

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-an-architecture.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, from which modules are not imported yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "own_nets").mkdir()
    yield tmp_path / "own_nets"
    for name in [name for name in sys.modules if name.split(".")[0] == "own_nets"]:
        del sys.modules[name]


def _write(here: Path, old: str = "", new: str = "") -> str:
    """Write the documented architecture with a change, and return its dotted name."""
    text = PAGE.read_text(encoding="utf-8").split("```python\n", 1)[1].split("```", 1)[0]
    assert old in text
    (here / "tiny.py").write_text(text.replace(old, new), encoding="utf-8")
    return "own_nets.tiny"


def test_a_module_of_the_current_directory_is_planned(here: Path, make_fingerprint: Any) -> None:
    plan = make_plan(_write(here), make_fingerprint())
    assert plan.name == "tiny" and plan.network.architecture == "own_nets.tiny"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("divisor(config: Config) -> tuple[int, ...]:", "divisor(config: Config)", r"tiny\.py, line 27: SyntaxError"),
        ("import torch\n", "import torch, not_installed\n", "line 4: ModuleNotFoundError: No module named 'not_inst"),
        ("TRAINING =", "OTHER = missing\nTRAINING =", r"tiny\.py, line 11: NameError"),
        ("class Config(Document)", "class Konfig(Document)", "NameError: name 'Config'"),
        ("def divisor", "def divisors", r"tiny\.py defines no divisor; see docs/how-to/add-an-architecture\.md"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_place(here: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        load_architecture(_write(here, old, new))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "nn.Conv3d(features, out_channels, 1)",
            "nn.Conv3D(features, 3)",
            r"tiny\.py, line 42: AttributeError.*Conv3D",
        ),
        ("self.join = _block(2 *", "self.join = _block(3 *", r"tiny\.py, line 47: RuntimeError"),
        ("[self.head(", "(self.head(", "forward returns a Tensor for images"),
        ("[self.head(", "[fine, self.head(", "forward returns a list that begins with shape"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(
    here: Path, make_fingerprint: Any, old: str, new: str, told: str
) -> None:
    name = _write(here, old, new)
    if new == "(self.head(":
        path = here / "tiny.py"
        path.write_text(path.read_text().replace("dim=1)))]", "dim=1))))"))
    with pytest.raises(PlanError, match=told):
        make_plan(name, make_fingerprint())


def test_a_loss_that_lacks_something_is_refused(here: Path) -> None:
    (here / "half.py").write_text("class Config: ...\n")
    with pytest.raises(PlanError, match=r"half\.py defines no build; see docs/how-to/add-a-loss\.md"):
        load_loss("own_nets.half")


def test_a_module_that_is_nowhere_says_where_it_was_looked_for(here: Path) -> None:
    with pytest.raises(PlanError, match=f"no module of that name in {here.parent} or on PYTHONPATH"):
        load_architecture("own_nets.absent")


def test_a_patch_below_the_divisor_is_told_the_smallest_size() -> None:
    assert [_nearest_sizes(size, 16) for size in (4, 17)] == ["the smallest is 16", "the nearest are 16 and 32"]
