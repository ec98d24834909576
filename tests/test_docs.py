"""The reference pages are what the code says; the README keeps its two commands; links lead somewhere."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(str(page.relative_to(ROOT)) for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
GENERATED = ("commands.md", "plan.md", "plan.schema.json", "documents.md", "answers.md", "metrics.md")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", GENERATED)
def test_reference_is_current(generate: ModuleType, page: str) -> None:
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert text == generate.PAGES[page](), "run python docs/generate.py"


def test_all_generated_pages_are_tested(generate: ModuleType) -> None:
    assert sorted(generate.PAGES) == sorted(GENERATED)


def test_readme_has_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "python -m pip install -e . -c constraints.txt && autoseg_demo" in text
    assert "python -m pip install -e '.[test]' -c constraints.txt && python -m pytest" in text


@pytest.mark.parametrize("page", PAGES)
def test_local_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)]+)\)", text) if "://" not in t]
    assert [t for t in targets if t and not (ROOT / page).parent.joinpath(t).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_every_page_is_in_the_menu_of_the_site(page: str) -> None:
    name = page.removeprefix("docs/")
    if name.startswith("benchmarks/"):
        where, link = DOCS / "benchmarks" / "index.md", f"]({name.removeprefix('benchmarks/')})"
        wanted = name == "benchmarks/index.md" or link in where.read_text(encoding="utf-8")
    else:
        where = ROOT / "mkdocs.yml"
        wanted = re.search(rf"- (.*: )?{re.escape(name)}$", where.read_text(encoding="utf-8"), re.MULTILINE) is not None
    assert wanted, f"name it in {where.relative_to(ROOT)}"
