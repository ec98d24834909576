"""The reference pages are what the code says; the README keeps its two commands."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_command_reference_is_current(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "reference-cli.md").read_text(encoding="utf-8") == generate.cli_reference(), (
        "run python docs/generate.py"
    )


def test_plan_reference_is_current(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "reference-plan.md").read_text(encoding="utf-8") == generate.plan_reference(), (
        "run python docs/generate.py"
    )


def test_plan_schema_is_current(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "plan.schema.json").read_text(encoding="utf-8") == generate.plan_schema(), (
        "run python docs/generate.py"
    )


def test_readme_has_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "python -m pip install -e . -c constraints.txt && autoseg_demo" in text
    assert "python -m pip install -e '.[test]' -c constraints.txt && python -m pytest" in text


@pytest.mark.parametrize("page", ["README.md", *[f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")]])
def test_local_links_lead_somewhere(page: str) -> None:
    import re

    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)]+)\)", text) if "://" not in t]
    assert [t for t in targets if t and not (ROOT / page).parent.joinpath(t).exists()] == []
