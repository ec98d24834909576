"""The package is read in the order in which the data flows: imports point backwards only, also inside functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import autoseg

ROOT = Path(autoseg.__file__).parent
ORDER = [
    "plurals",
    "errors",
    "documents",
    "components",
    "data",
    "fingerprint",
    "networks",
    "augment",
    "losses",
    "plan",
    "preprocess",
    "train",
    "predict",
    "evaluate",
    "compare",
    "tune",
    "launch",
    "cli",
]


def _imported_stages(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [node.module or ""]
            if node.module == "autoseg":
                names = [f"autoseg.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "autoseg" and rest:
                yield node.lineno, rest.split(".")[0]


def _violations(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        stage = path.relative_to(root).with_suffix("").parts[0]
        for line, target in _imported_stages(path):
            if stage in ORDER and target in ORDER and ORDER.index(target) > ORDER.index(stage):
                found.append(f"{path}:{line}: {stage} imports {target}, a later stage")
            if (stage, target) == ("train", "predict"):
                found.append(f"{path}:{line}: train imports predict")
    return found


def test_imports_point_backwards() -> None:
    assert _violations(ROOT) == []


def test_a_forward_import_inside_a_function_is_found(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "bad.py").write_text("def f():\n    from autoseg.train import loop\n")
    assert [text.split(": ", 1)[1] for text in _violations(tmp_path)] == ["plan imports train, a later stage"]


def test_every_stage_of_the_package_has_its_place_in_the_order() -> None:
    names = {
        p.stem if p.suffix == ".py" else p.name
        for p in ROOT.iterdir()
        if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert names - {"__init__"} <= set(ORDER)


def test_no_print_and_no_assert_in_the_package() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            if isinstance(node, ast.Assert) or is_print:
                found.append(f"{path}:{node.lineno}")
    assert found == []
